"""The byte index of a tar: where each sample lies and what its bytes hash to. An Arrow IPC file beside the tar."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from shards.tar import Span

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
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    except pa.ArrowException as error:
        raise ValueError(f"no index: {error}") from None
    if table.schema != SCHEMA:
        raise ValueError(f"no index: columns {table.schema.names}, expected {SCHEMA.names}")
    return [Entry(*row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
