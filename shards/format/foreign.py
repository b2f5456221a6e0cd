"""Tars that we did not write, read member by member: headers of any kind, and names as webdataset splits them.

Nothing that a header claims is believed before it is held against the file: sizes, names, records. Where one lies, the member
is named as damaged, and reading goes on at the next header that is whole.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

from stillreel.shards.format.tar import BLOCK

_EXTENSIONS, _REGULAR, _WITHOUT_DATA, _LINKS = b"xgLK", b"\x0007", b"123456", b"12"
_ARCHIVE = 20 * BLOCK  # archives end at a multiple of it, as a rule
_LONGEST_EXTENSION = 1 << 20  # bytes of a long name, or of pax records
_LONGEST_NAME = 4096  # bytes, as file systems have it
_RECORD = re.compile(rb"(\d{1,7}) ([^=\n]+)=")
_OCTAL = re.compile(rb"[0-7]{0,11}")
_AT_ONCE = 2048 * BLOCK
_PACKED = re.compile(r"\.(tgz|tbz2?|txz|tzst|tar\.(gz|bz2|xz|zst|lz4|lzma|Z))$", re.IGNORECASE)
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "a zip",
    b"Rar!": "a RAR",
    b"7z\xbc\xaf": "a 7z archive",
}


class Member(NamedTuple):
    """A regular file: where its first header stands, where its payload, and where the next header. Any other has no name.

    A link to an earlier member has the payload of that.
    """

    name: str
    offset: int
    start: int
    size: int
    end: int
    link: str = ""


class Damage(NamedTuple):
    """What cannot be believed: of which member ("": unknown), one of record.REASONS, and what exactly, with its byte."""

    name: str
    reason: str
    what: str


class _Lie(Exception):
    """A member that cannot be believed; from `resume` on the next header is looked for."""

    def __init__(self, resume: int, reason: str, what: str, name: str = "") -> None:
        super().__init__(what)
        self.resume, self.damage = resume, Damage(name, reason, what)


class _Zeros(_Lie):
    """A block of zeros: the end of the archive, if nothing else follows."""


def read_members(file: IO[bytes], size: int) -> Iterator[Member | Damage]:
    """What a tar of `size` bytes holds, in order, header by header. Whoever asks may move the file's position.

    Archives that were joined (`cat a.tar b.tar`) are read to the end of the last.
    """
    if what := _compressed(file, size):
        yield Damage("", "unsupported", f"it is {what}, which cannot be read in part: unpack it first")
        return
    offset = archive = 0
    payloads: dict[str, tuple[int, int]] = {}
    while offset >= 0:
        try:
            member = _member_at(file, offset, size)
        except _Lie as lie:
            begin = offset
            offset, is_blank = _next_header(file, lie.resume)
            if isinstance(lie, _Zeros) and (is_blank or _ends_an_archive(lie.resume, offset, archive, file)):
                archive = offset
            else:
                yield lie.damage
            assert offset < 0 or offset > begin
        else:
            if member.link:
                target = payloads.get(member.link, payloads.get(_beside(member.name, member.link)))
                if target is None and split_name(member.name)[1]:
                    yield Damage(member.name, "missing", f"a link to {member.link}, which does not stand before it")
                elif target is not None:
                    yield member._replace(start=target[0], size=target[1])
            else:
                payloads[member.name] = member.start, member.size
                yield member
            offset = member.end


def tar_names(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The tars among files, by their names, and those that are compressed, which cannot be read in part."""
    listed = list(names)
    return [name for name in listed if name.lower().endswith(".tar")], [name for name in listed if _PACKED.search(name)]


def _compressed(file: IO[bytes], size: int) -> str:
    """What a file that is called a tar is instead, by its first bytes; empty for all others."""
    file.seek(0)
    head = file.read(8) if size else b""
    return next((what for magic, what in _MAGIC.items() if head.startswith(magic)), "")


def _ends_an_archive(zeros: int, following: int, archive: int, file: IO[bytes]) -> bool:
    """Whether what lies between two headers is the end of an archive and not a hole: nothing but zeros, as many as end one."""
    if following < 0 or following - zeros < 2 * BLOCK:
        return False
    file.seek(zeros)
    blank = all(not file.read(min(_AT_ONCE, following - at)).strip(b"\0") for at in range(zeros, following, _AT_ONCE))
    return blank and (following - zeros == 2 * BLOCK or (following - archive) % _ARCHIVE == 0)


def _beside(name: str, link: str) -> str:
    """The member that a symbolic link means."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))


def _member_at(file: IO[bytes], first: int, size: int) -> Member:
    """The member whose headers begin at `first`."""
    at, name, link, declared, lie = first, "", "", -1, ""
    while True:
        file.seek(at)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise _Lie(size, "truncated", f"cut at byte {size}: no end of archive" if size else "it is empty")
        if not any(block):
            raise _Zeros(at, "corrupt", f"zeroed hole at byte {at}")
        kind, length, start = block[156], _size_in(block), at + BLOCK
        if length < 0:
            raise _Lie(start, "corrupt", f"damaged at byte {at}: not a header")
        if kind not in _EXTENSIONS:
            break
        at = start + length + -length % BLOCK
        try:
            if length > _LONGEST_EXTENSION or start + length > size:
                at, _ = _next_header(file, start)
                raise ValueError(f"{length:,} bytes of names and records claimed")
            if kind == ord("L"):
                name = _text(file.read(length).partition(b"\0")[0])
            elif kind == ord("K"):
                link = _text(file.read(length).partition(b"\0")[0])
            elif kind == ord("x"):
                name, link, declared = _from_records(file.read(length), name, link, declared)
        except ValueError as error:
            lie = lie or f"{error} in the header at byte {start - BLOCK}"
            if at < 0:
                raise _Lie(size, "corrupt", lie) from None
    name = name or _name_in(block)
    if kind in _LINKS and not lie:
        return Member(name, first, start, 0, start, link or _text(block[157:257].partition(b"\0")[0]) or "nothing")
    if kind in _WITHOUT_DATA or (kind == 0 and name.endswith("/")):
        return Member("", first, start, 0, start)
    length = length if declared < 0 else declared
    end = start + length + -length % BLOCK
    if lie or kind == ord("S"):
        raise _Lie(end if end <= size else start, "corrupt", lie or f"kept as a sparse file at byte {at}", name)
    if start + length > size:
        raise _Lie(start, "truncated", f"cut at byte {size}, of the {length:,} bytes that it claims", name)
    return Member(name if kind in _REGULAR else "", first, start, length, end)


def _next_header(file: IO[bytes], offset: int) -> tuple[int, bool]:
    """Where the first whole header from `offset` on stands (-1: nowhere); and whether there is nothing but zeros."""
    is_blank, size = True, 8 * BLOCK  # a header is near, as a rule
    file.seek(offset)
    while chunk := file.read(size):
        is_blank = is_blank and not chunk.strip(b"\0")
        at = chunk.find(b"ustar")
        while at >= 0:
            start = at - 257
            if start >= 0 and start % BLOCK == 0 and _size_in(chunk[start : start + BLOCK]) >= 0:
                return offset + start, False
            at = chunk.find(b"ustar", at + 1)
        offset, size = offset + len(chunk), min(2 * size, _AT_ONCE)
    return -1, is_blank


def _size_in(block: bytes) -> int:
    """The size that a header claims; -1 where it is none."""
    claimed = _number(block[148:156])
    return _number(block[124:136]) if len(block) == BLOCK and claimed == sum(block) - sum(block[148:156]) + 256 else -1


def _number(field: bytes) -> int:
    """A header's number, octal or base-256; -1 where it is none."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b"\0 ")
    return int(digits or b"0", 8) if _OCTAL.fullmatch(digits) else -1


def _from_records(data: bytes, name: str, link: str, size: int) -> tuple[str, str, int]:
    """What pax records say of the member that follows: its name, link and size, else those given. ValueError where they lie."""
    data = data.rstrip(b"\0")
    at = 0
    while at < len(data):
        record = _RECORD.match(data, at)
        end = at + int(record[1]) if record else 0
        if record is None or end > len(data) or end <= record.end() or data[end - 1 : end] != b"\n":
            raise ValueError(f"pax records that cannot be read, {data[at : at + 24]!r} ...,")
        value = data[record.end() : end - 1]
        if record[2].startswith(b"GNU.sparse."):
            raise ValueError("a sparse file")
        if record[2] == b"path":
            name = _text(value)
        elif record[2] == b"linkpath":
            link = _text(value)
        elif record[2] == b"size":
            if not re.fullmatch(rb"\d{1,19}", value):
                raise ValueError(f"a size of {value[:24]!r}")
            size = int(value)
        at = end
    return name, link, size


def _name_in(block: bytes) -> str:
    """The name of a header without extensions; that of a POSIX one has two parts."""
    name, prefix = block[:100].partition(b"\0")[0], block[345:500].partition(b"\0")[0]
    return _text(prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name)


def _text(name: bytes) -> str:
    """A name as text; bytes that are not UTF-8 are spelled out, as \\xff. ValueError for one that no file system has."""
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"a name of {len(name):,} bytes")
    return name.decode("utf-8", "backslashreplace")


def split_name(name: str) -> tuple[str, str]:
    """(key, ending) as webdataset splits a member's name: at the first dot of its last part; ("", "") for the others."""
    folder, slash, last = name.rpartition("/")
    key, dot, ending = last.partition(".")
    if not key or not dot or key.startswith("__"):
        return "", ""
    return folder + slash + key, ending.lower()
