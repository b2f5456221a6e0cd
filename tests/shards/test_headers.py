"""Headers compared many at once: what is passed as plain is what the reader of one sample finds in order, whatever the bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillreel.shards.format.check import _holds_only
from stillreel.shards.format.headers import Headers
from stillreel.shards.format.tar import BLOCK
from stillreel.shards.format.writer import TarWriter, header

KEYS = [f"set_{number:09d}" for number in range(3)]
ENDINGS = {"jpg": bytes(700), "json": b"{}", "txt": b""}


def summed(block: bytes) -> bytes:
    """A header whose checksum is right."""
    blank = block[:148] + b" " * 8 + block[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def doubtful(blobs: list[bytes], keys: list[str]) -> list[int]:
    """What is found of samples one after another, in an array with more blocks than they need."""
    data = b"".join([*blobs, bytes(BLOCK)])
    ends = np.cumsum([len(blob) for blob in blobs]).tolist()
    found = Headers(keys)
    blocks = np.frombuffer(data, np.uint8).reshape(-1, BLOCK)
    found.take(blocks, 0, list(zip([0, *ends], ends, strict=False)))
    return found.find_doubtful()


def blobs() -> list[bytes]:
    """The samples of KEYS as they lie in a tar."""
    sink = io.BytesIO()
    writer = TarWriter(sink)
    spans = [writer.add([(f"{key}.{one}", data) for one, data in ENDINGS.items()]) for key in KEYS]
    return [sink.getvalue()[span.offset : span.offset + span.length] for span in spans]


def test_what_the_writer_leaves_is_plain() -> None:
    assert doubtful(blobs(), KEYS) == []
    assert all(_holds_only(blob, key) for blob, key in zip(blobs(), KEYS, strict=True))


@given(
    st.integers(0, 2),
    st.lists(st.tuples(st.integers(0, BLOCK - 1), st.integers(0, 255)), min_size=1, max_size=3),
    st.booleans(),
)
def test_no_edit_of_a_header_passes_that_the_reader_of_one_refuses(
    member: int, edits: list[tuple[int, int]], is_summed: bool
) -> None:
    found = blobs()
    at = (0, 3 * BLOCK, 5 * BLOCK)[member]
    block = bytearray(found[1][at : at + BLOCK])
    for place, value in edits:
        block[place] = value
    edited = summed(bytes(block)) if is_summed else bytes(block)
    found[1] = found[1][:at] + edited + found[1][at + BLOCK :]
    seen = doubtful(found, KEYS)
    assert set(seen) <= {1}
    assert seen == [1] or _holds_only(found[1], KEYS[1])


def member(name: str, size: int = 0, field: bytes = b"") -> bytes:
    """A header, with `field` where the size is."""
    block = header(name, size)
    return summed(block[:124] + field + block[124 + len(field) :]) if field else block


JPG, KEY = f"{KEYS[1]}.jpg", KEYS[1]


@pytest.mark.parametrize(
    "blob",
    [
        member(JPG) + member(JPG),
        member(f"{KEY}.txt") + member(f"{KEY}.json") + member(f"{KEY}.txt"),
        member(f"{KEYS[0]}.jpg"),
        member(JPG) + member(f"{KEYS[2]}.jpg"),
        member(KEY),
        member(f"{KEY}0.jpg"),
        member(JPG, 5),
        member(JPG) + bytes(BLOCK),
        member(JPG, field=b"-0000001000\0"),
        member(JPG, field=b"-0000002000\0"),
        member(JPG, field=b"\x80" + bytes(11)),
        bytes(BLOCK),
        b"\xff" * BLOCK,
    ],
    ids=range(13),
)
def test_what_is_not_in_order_is_doubtful(blob: bytes) -> None:
    assert not _holds_only(blob, KEY)
    first, _, last = blobs()
    assert doubtful([first, blob, last], KEYS) == [1]


def test_other_spellings_and_orders_are_left_to_the_reader_of_one() -> None:
    for blob in (
        member(f"{KEY}.txt") + member(JPG),
        member(JPG, field=b"          0 "),
        member(JPG, field=b"0" + bytes(11)),
    ):
        assert _holds_only(blob, KEY)
        assert doubtful([blobs()[0], blob], KEYS[:2]) == [1]


def test_keys_of_unlike_lengths_are_left_to_the_reader_of_one() -> None:
    assert doubtful([member("a.jpg"), member("bc.jpg")], ["a", "bc"]) == [0, 1]
    assert doubtful([member("e.jpg")], ["é"]) == [0]
    assert doubtful([], []) == []
