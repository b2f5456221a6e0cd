"""Headers of a shard's samples, compared many at once: a header by itself takes longer to look at than many bytes take to hash.

What is just as `TarWriter` leaves it is found here, and nothing else is: of the other samples no more is said than that they must
be looked at by themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from stillreel.shards.format.tar import BLOCK

_AT_ONCE = 2048  # headers: 1 MiB
_NAME = 100  # bytes
_NOT_ASCII = np.uint64(0x8080808080808080)
_SIZE, _SUM = slice(124, 135), slice(148, 154)  # digits
_SIZE_AT = struct.Struct("124x 11s").unpack_from
_FIXED = ((135, b"\0"), (154, b"\0 0"), (257, b"ustar"))  # what ends them, the kind of member, and that it is USTAR
_EIGHTS = 8 ** np.arange(5, -1, -1)

Blocks = NDArray[np.uint8]  # (blocks, 512)


class Headers:
    """The headers of samples whose keys are known. `take` those of each sample, in order, then `find_doubtful`."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._starts = _starts(keys)
        self._doubtful: set[int] = set()
        self._blocks: list[Blocks] = []
        self._owners: list[int] = []  # the sample of each header

    def take(self, blocks: Blocks, first: int, spans: Iterable[tuple[int, int]]) -> None:
        """Walk through samples, numbered from `first`, that lie in blocks from one byte, a multiple of 512, to another."""
        rows: list[int] = []
        bytes_of = blocks.data.cast("B")
        for sample, (at, end) in enumerate(spans, first):
            try:
                while at < end:
                    rows.append(at // BLOCK)
                    self._owners.append(sample)
                    (size,) = _SIZE_AT(bytes_of, at)
                    at += BLOCK + -(-abs(int(size, 8)) // BLOCK) * BLOCK
            except ValueError:
                at = -1
            if at != end:
                self._doubtful.add(sample)
        self._blocks.append(blocks.take(rows, axis=0))
        if len(self._owners) >= _AT_ONCE:
            self._judge()

    def find_doubtful(self) -> list[int]:
        """The samples, of those taken, that may hold other than members of their own key, each once, up to the last byte."""
        self._judge()
        return sorted(self._doubtful)

    def _judge(self) -> None:
        if not self._owners:
            return
        blocks, owners = np.concatenate(self._blocks), np.array(self._owners)
        self._blocks, self._owners = [], []
        plain = _are_plain(blocks, owners, self._starts[owners]) if self._starts is not None else False
        self._doubtful.update(owners[~np.broadcast_to(plain, owners.shape)].tolist())


def _are_plain(blocks: Blocks, owners: NDArray[np.int64], starts: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    """Of each header whether it is whole, its name starts so, and comes after the one before of the same owner."""
    size, digits = blocks[:, _SIZE], blocks[:, _SUM]
    # The field of the sum counts as blanks.
    summed = blocks.sum(axis=1, dtype=np.uint32) - digits.sum(axis=1, dtype=np.uint32) - ord(" ") + 8 * ord(" ")
    plain: NDArray[np.bool_] = (digits & 7) @ _EIGHTS == summed
    plain &= (digits >> 3 == ord("0") >> 3).all(axis=1) & (size >> 3 == ord("0") >> 3).all(axis=1)
    for begin, text in _FIXED:
        plain &= (blocks[:, begin : begin + len(text)] == np.frombuffer(text, np.uint8)).all(axis=1)
    words = blocks.view(np.uint64)[:, : -(-_NAME // 8)]
    plain &= np.bitwise_or.reduce(words, axis=1) & _NOT_ASCII == 0
    names = _texts(blocks, _NAME)
    plain[1:] &= (owners[1:] != owners[:-1]) | (names[1:] > names[:-1])
    plain &= _texts(blocks, starts.itemsize) == starts
    return plain


def _texts(blocks: Blocks, length: int) -> NDArray[np.bytes_]:
    """What each block starts with."""
    columns: NDArray[np.bytes_] = np.ascontiguousarray(blocks[:, :length]).view(f"S{length}")[:, 0]
    return columns


def _starts(keys: Sequence[str]) -> NDArray[np.bytes_] | None:
    """What the names of each sample's members start with; None where keys are not all as long, as those of a plan are."""
    lengths, text = {*map(len, keys)}, ".".join([*keys, ""])
    if len(lengths) != 1 or max(lengths) >= _NAME or not text.isascii():
        return None
    return np.frombuffer(text.encode(), f"S{max(lengths) + 1}")
