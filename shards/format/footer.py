"""The footer of a Parquet file, taken apart by row groups, so that one of them can be read without the others.

A footer tells of every row group; parsed whole it takes time and memory (19 kB a group of a plan's), and whoever reads one group
needs one. Here it is cut where groups end, and a part becomes the footer of a file that has this group alone, where it lies.

    head    version, schema, number of rows             of Thrift's compact protocol, as Parquet's writers leave it: fields in
    groups  one after another                           the order of their numbers
    tail    key-value metadata, and what else follows
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

_MAGIC = b"PAR1"
_VARINT = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_STOP, _LIST_OF_STRUCTS, _NO_STRUCTS, _ONE_STRUCT = 0, b"\x19", b"\x0c", b"\x1c"
_TRUE, _FALSE, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _MAP, _STRUCT = 1, 2, 3, (4, 5, 6), 7, 8, (9, 10), 11, 12
_NUM_ROWS, _ROW_GROUPS = 3, 4  # fields of FileMetaData
_DEEPEST = 16


class Span(NamedTuple):
    """Bytes of a file."""

    offset: int
    length: int


class GroupAt(NamedTuple):
    """Where the footer's head and tail lie, how many row groups it has, and what it says of one of them: the same small
    message however many there are."""

    head: Span
    tail: Span
    groups: int
    group: bytes


@dataclass(frozen=True)
class Footer:
    """A footer as bytes. `offset` is where it begins in its file; `ends` are where the head and each group end in it."""

    data: bytes
    offset: int
    rows: int
    ends: array[int] = field(repr=False)

    @property
    def groups(self) -> int:
        return len(self.ends) - 1

    def locate(self, number: int) -> GroupAt:
        """What is to be handed to whoever reads one group."""
        tail = Span(self.offset + self.ends[-1], len(self.data) - self.ends[-1])
        return GroupAt(Span(self.offset, len(self.head)), tail, self.groups, self.group(number))

    def group(self, number: int) -> bytes:
        return self.data[self.ends[number] : self.ends[number + 1]]

    @property
    def head(self) -> bytes:
        return self.data[: self.ends[0] - len(_count(self.groups))]

    @property
    def tail(self) -> bytes:
        return self.data[self.ends[-1] :]


def read_footer(file: IO[bytes]) -> Footer:
    """The footer of an open Parquet file. ValueError where there is none."""
    size = file.seek(0, 2)
    file.seek(max(size - 8, 0))
    end = file.read(8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != _MAGIC or length > size - 12:
        raise ValueError("no Parquet file, or one that was cut")
    file.seek(size - 8 - length)
    data = file.read(length)
    if len(data) < length:
        raise ValueError("a Parquet file whose footer was cut")
    try:
        rows, ends = _cut(data)
    except IndexError:
        raise ValueError("a Parquet file whose footer ends early") from None
    return Footer(data, size - 8 - length, rows, ends)


def frame_metadata(head: bytes, tail: bytes) -> pq.FileMetaData:
    """What a footer says of the whole file: its schema and key-value metadata, without any row group."""
    metadata = _parse(head + _NO_STRUCTS + tail)
    if metadata.num_row_groups:
        raise ValueError("its footer lists row groups twice")
    return metadata


def group_metadata(head: bytes, group: bytes) -> pq.FileMetaData:
    """The metadata of a file that has one row group, to read it by."""
    return _parse(head + _ONE_STRUCT + group + bytes([_STOP]))


def rows_of_head(head: bytes) -> int:
    """The number of rows of the whole file."""
    at, number = 0, 0
    while True:
        at, number, kind = _field(head, at, number)
        if number == _NUM_ROWS and kind in _INTEGERS:
            value, _ = _varint(head, at)
            return value >> 1
        at = _skip(head, at, kind, [], 0)


def _parse(footer: bytes) -> pq.FileMetaData:
    return pq.read_metadata(pa.BufferReader(_MAGIC + footer + len(footer).to_bytes(4, "little") + _MAGIC))


def _count(groups: int) -> bytes:
    """The header of a list of this many structs."""
    if groups < 15:
        return bytes([groups << 4 | _STRUCT])
    written = bytearray([0xF0 | _STRUCT])
    while groups > 0x7F:
        written.append(groups & 0x7F | 0x80)
        groups >>= 7
    return bytes([*written, groups])


def _cut(data: bytes) -> tuple[int, array[int]]:
    """The number of rows, and where head and groups end."""
    rows, at, number = rows_of_head(data), 0, 0
    while True:
        at, number, kind = _field(data, at, number)
        if number == _ROW_GROUPS:
            break
        at = _skip(data, at, kind, [], 0)
    begin = at
    count, at = _list(data, at)
    if (
        kind != _LISTS[0]
        or (data[begin : begin + 1] and data[begin] & 0x0F != _STRUCT)
        or data[begin:at] != _count(count)
    ):
        raise ValueError("a Parquet file whose footer is not as writers leave it")
    ends = array("q", [at])
    alike: re.Pattern[bytes] | None = None
    for _ in range(count):
        found = alike and alike.match(data, at)
        if found:
            end = found.end()
        else:  # groups differ in little but numbers, so the shape of one is tried on the next: a hundred times as fast
            holes: list[Span] = []
            end = _skip(data, at, _STRUCT, holes, 0)
            alike = _shape(data, at, end, holes)
        at = end
        ends.append(at)
    return rows, ends


def _shape(data: bytes, at: int, end: int, holes: list[Span]) -> re.Pattern[bytes]:
    """An expression for structs that differ from this one in their integers alone."""
    parts = []
    for hole in holes:
        parts += [re.escape(data[at : hole.offset]), _VARINT]
        at = hole.offset + hole.length
    return re.compile(b"".join([*parts, re.escape(data[at:end])]), re.DOTALL)


def _field(data: bytes, at: int, before: int) -> tuple[int, int, int]:
    """Where a field's value begins, its number and its kind. ValueError at the end of the struct."""
    header = data[at]
    if header == _STOP:
        raise ValueError("a Parquet file whose footer lists no row groups")
    if header >> 4:
        return at + 1, before + (header >> 4), header & 0x0F
    number, end = _varint(data, at + 1)
    return end, number >> 1, header & 0x0F


def _skip(data: bytes, at: int, kind: int, holes: list[Span], depth: int) -> int:
    """Where a value ends; adds the places of integers in it to `holes`."""
    if depth > _DEEPEST:
        raise ValueError("a Parquet file whose footer is nested too deep")
    if kind in _INTEGERS:
        end = _varint(data, at)[1]
        holes.append(Span(at, end - at))
        return end
    if kind in (_TRUE, _FALSE):
        return at
    if kind in (_BYTE, _DOUBLE):
        return at + (1 if kind == _BYTE else 8)
    if kind == _BINARY:
        length, at = _varint(data, at)
        if length > len(data) - at:
            raise IndexError
        return at + length
    if kind in _LISTS:
        inner = data[at] & 0x0F
        count, at = _list(data, at)
        for _ in range(count):
            at = at + 1 if inner in (_TRUE, _FALSE) else _skip(data, at, inner, holes, depth + 1)
        return at
    if kind == _STRUCT:
        while data[at] != _STOP:
            inner = data[at] & 0x0F
            at = at + 1 if data[at] >> 4 else _varint(data, at + 1)[1]
            at = _skip(data, at, inner, holes, depth + 1)
        return at + 1
    raise ValueError(f"a Parquet file whose footer holds what writers do not write (kind {kind})")


def _list(data: bytes, at: int) -> tuple[int, int]:
    """The number of a list's elements, and where they begin."""
    count = data[at] >> 4
    if count < 15:
        return count, at + 1
    count, at = _varint(data, at + 1)
    if count > len(data) - at:  # each takes a byte, at least
        raise IndexError
    return count, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a Parquet file whose footer holds a number beyond 64 bits")
