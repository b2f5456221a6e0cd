"""USTAR, the small part of it that shards use: walk a tar without forgiving anything. `shards/format/writer.py` writes it.

Every tar reader in use (tarfile, webdataset, Ray's) takes a cut or holed tar for a shorter one. `walk` does not.

A tar's digest is the sha256 of its samples' sha256s, one after another. Samples fill the tar up to its end, which is
zeros, so this covers every byte; and every byte is hashed once, when it is written and when it is verified.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

BLOCK = 512
RECORD = 20 * BLOCK  # a finished tar is padded to a multiple of this, as tar and tarfile do
_HEADER = struct.Struct("100s 24x 12s 12x 8s c 100x 5s 250x")  # name, size, checksum, type, magic


class Span(NamedTuple):
    """Where a sample lies in its tar: its headers, payloads and padding, and the sha256 of just these bytes."""

    offset: int
    length: int
    sha256: bytes


class Member(NamedTuple):
    """A file in a tar: its header starts at `offset`, its `size` payload bytes at `offset + 512`."""

    name: str
    offset: int
    size: int


class TarDamage(Exception):
    """A tar that is not whole: where, and what is wrong."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"{what} at byte {offset}")
        self.offset = offset
        self.what = what


def digest_of_samples(digests: Iterable[bytes]) -> str:
    """The digest of a tar whose samples have these sha256s, as hex."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def walk(file: IO[bytes], size: int) -> Iterator[Member]:
    """Members of a tar of `size` bytes, in order; TarDamage at the first thing that is not as TarWriter leaves it.

    Reads headers and the end of the archive, not the payloads.
    """
    offset = 0
    while True:
        file.seek(offset)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise TarDamage(offset, "cut inside a header" if block else "no end of archive")
        if not any(block):
            break
        member = _parse(block, offset)
        end = offset + BLOCK + member.size + -member.size % BLOCK
        if end > size:
            raise TarDamage(offset, f"cut inside {member.name}")
        yield member
        offset = end
    file.seek(offset)
    if not ends_in_zeros(file):
        raise TarDamage(offset, "zeroed hole")
    if size - offset < 2 * BLOCK or size % RECORD:
        raise TarDamage(offset, "short end of archive")


def ends_in_zeros(file: IO[bytes]) -> bool:
    """Whether nothing but zeros follows from where the file stands."""
    return not any(chunk.strip(b"\0") for chunk in iter(lambda: file.read(1 << 20), b""))


def members_of(blob: bytes | memoryview) -> list[Member]:
    """The members that fill a sample's bytes exactly; TarDamage when they do not."""
    members: list[Member] = []
    offset, end = 0, len(blob)
    while offset < end:
        member = _parse(bytes(blob[offset : offset + BLOCK]), offset)
        members.append(member)
        offset += BLOCK + member.size + -member.size % BLOCK
    if offset != end:
        raise TarDamage(end, "cut sample")
    return members


def _sum(block: bytes) -> int:
    """Of all bytes. Adler-32 has it, modulo a number that 512 bytes of ASCII do not reach, in a fiftieth of the time."""
    return (zlib.adler32(block) & 0xFFFF) - 1 if block.isascii() else sum(block)


def _parse(block: bytes, offset: int) -> Member:
    try:
        raw, octal, checksum, kind, magic = _HEADER.unpack(block)
        claimed, size = _octal(checksum), _octal(octal)
        name = raw.rstrip(b"\0").decode("ascii")
    except (ValueError, struct.error):
        raise TarDamage(offset, "no tar header") from None
    if claimed != _sum(block) - _sum(checksum) + 8 * 0x20 or magic != b"ustar" or kind != b"0":
        raise TarDamage(offset, "damaged tar header")
    return Member(name, offset, size)


def _octal(field: bytes) -> int:
    """A number of a header. ValueError where it is none."""
    number = int(field.strip(b"\0 "), 8)
    if number < 0:  # whoever walks by such sizes walks in circles
        raise ValueError("a number below 0")
    return number
