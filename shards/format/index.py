"""The byte index of a tar: where each sample lies and what its bytes hash to. An Arrow IPC file beside the tar."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stillreel.configs.system.claims import damage_of
from stillreel.shards.format.tar import BLOCK, Span, digest_of_samples

_MOST = 1 << 50  # bytes of a tar

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("sha256", pa.binary(32), nullable=False),
    ]
)


class Entry(NamedTuple):
    """One sample of a tar: `length` bytes from `offset`, headers and padding included, and their sha256."""

    key: str
    offset: int
    length: int
    sha256: bytes


class Index:
    """The samples of a tar in columns, as Arrow holds them: what a reader of single samples keeps."""

    def __init__(self, table: pa.Table) -> None:
        self._keys = table["key"].combine_chunks()
        self._digests = table["sha256"].combine_chunks()
        self._offsets: NDArray[np.int64] = table["offset"].to_numpy()
        self._lengths: NDArray[np.int64] = table["length"].to_numpy()
        self.end = (
            int(self._offsets[-1] + self._lengths[-1]) if len(self._offsets) else 0
        )  # of the last sample, in bytes

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, sample: int) -> Entry:
        return Entry(
            self._keys[sample].as_py(),
            int(self._offsets[sample]),
            int(self._lengths[sample]),
            self._digests[sample].as_py(),
        )

    def pick(self, samples: Sequence[int]) -> list[Entry]:
        """Those of some numbers."""
        return [self[sample] for sample in samples]

    def __iter__(self) -> Iterator[Entry]:
        return (self[sample] for sample in range(len(self)))

    def list_keys(self) -> list[str]:
        return list(self._keys.to_pylist())

    def list_digests(self) -> list[bytes]:
        # Arrow makes objects of binary many times faster than of binary(32).
        return list(self._digests.cast(pa.binary()).to_pylist())

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where each sample ends."""
        return self._offsets + self._lengths

    def find_gap(self) -> int | None:
        """The first sample that does not begin where the one before ends, or whose length is not one of a tar's."""
        wrong = self._lengths % BLOCK != 0
        wrong |= self._offsets != np.append(0, self.ends[:-1])[: len(self)]
        return int(wrong.argmax()) if wrong.any() else None

    @cached_property
    def digest(self) -> str:
        """The digest of the tar, as in its receipt."""
        return digest_of_samples(self.list_digests())


def entry_of(key: str, span: Span) -> Entry:
    return Entry(key, span.offset, span.length, span.sha256)


def encode_index(entries: Sequence[Entry]) -> bytes:
    """Entries as the bytes of an Arrow IPC file, in the order given."""
    columns = zip(*entries, strict=True) if entries else [[] for _ in SCHEMA]
    batch = pa.record_batch(
        [pa.array(list(column), kind.type) for column, kind in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def decode_index(data: bytes) -> list[Entry]:
    """The entries of an index file; ValueError when the bytes are no such file."""
    keys, offsets, lengths, digests = _table(data).columns
    # Arrow makes objects of binary many times faster than of binary(32).
    columns = (
        keys.to_pylist(),
        offsets.to_numpy().tolist(),
        lengths.to_numpy().tolist(),
        digests.cast(pa.binary()).to_pylist(),
    )
    return list(map(Entry._make, zip(*columns, strict=True)))


def open_index(data: bytes) -> Index:
    """The same, without an object for each entry: a hundred times faster for a few of them."""
    return Index(_table(data))


def _table(data: bytes) -> pa.Table:
    with damage_of("no index"):
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        table.validate(full=True)
        if not table.schema.equals(SCHEMA) or any(column.null_count for column in table.columns):
            raise ValueError(f"columns {table.schema.names}, expected {SCHEMA.names}, all of them filled")
        offsets, lengths = table["offset"].to_numpy(), table["length"].to_numpy()
        wrong = (offsets < 0) | (lengths <= 0) | (offsets > _MOST) | (lengths > _MOST)
        wrong[1:] |= offsets[1:] < offsets[:-1] + lengths[:-1]
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(
                f"sample {at} claims {lengths[at]} bytes at {offsets[at]}, which is not after the one before"
            )
    return table
