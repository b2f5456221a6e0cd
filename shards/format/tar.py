"""USTAR, the small part of it that shards use: write samples, and walk a tar without forgiving anything.

Every tar reader in use (tarfile, webdataset, Ray's) takes a cut or holed tar for a shorter one. `walk` does not.
Headers are constant but for name and size: mtime 0, uid and gid 0, mode 0444, user and group "stillreel".

A tar's digest is the sha256 of its samples' sha256s, one after another. Samples fill the tar up to its end, which is
zeros, so this covers every byte; and every byte is hashed once, when it is written and when it is verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, NamedTuple

BLOCK = 512
RECORD = 20 * BLOCK  # a finished tar is padded to a multiple of this, as tar and tarfile do
_MAX_MEMBER = 8**11 - 1  # the octal size field of USTAR


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


class TarWriter:
    """Appends samples to an open binary file and hashes them; `finish` ends the archive."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digests: list[bytes] = []
        self._buffer = bytearray()  # kept: fresh memory for each sample costs as much as copying into it
        self.offset = 0

    def add(self, members: Sequence[tuple[str, bytes]]) -> Span:
        """Write one sample's members, (name, payload), in the order of their names."""
        length = sum(BLOCK + len(payload) + -len(payload) % BLOCK for _, payload in members)
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        at = 0
        with memoryview(self._buffer) as buffer:
            for name, payload in sorted(members):
                start, end = at + BLOCK, at + BLOCK + len(payload)
                at = end + -len(payload) % BLOCK
                buffer[start - BLOCK : start] = header(name, len(payload))
                buffer[start:end] = payload
                buffer[end:at] = bytes(at - end)
            span = Span(self.offset, length, hashlib.sha256(buffer[:length]).digest())
            self._file.write(buffer[:length])
        self._digests.append(span.sha256)
        self.offset += length
        return span

    def finish(self) -> str:
        """Write the end of the archive and return the digest of the tar, as hex."""
        self.offset += self._file.write(end_of_archive(self.offset))
        return digest_of_samples(self._digests)


def digest_of_samples(digests: Iterable[bytes]) -> str:
    """The digest of a tar whose samples have these sha256s, as hex."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def end_of_archive(offset: int) -> bytes:
    """What follows the last sample, which ends at `offset`: two blocks of zeros, and more up to a full record."""
    return bytes(2 * BLOCK + -(offset + 2 * BLOCK) % RECORD)


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a payload. Names are ASCII and at most 100 bytes: keys are made so."""
    raw = name.encode("ascii")
    assert 0 < len(raw) <= 100 and 0 <= size <= _MAX_MEMBER, (name, size)
    block = bytearray(_TEMPLATE)
    block[: len(raw)] = raw
    octal = b"%011o" % size
    block[124:135] = octal
    block[148:156] = b"%06o\0 " % (_TEMPLATE_SUM + sum(raw) + sum(octal))
    return bytes(block)


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
    tail = file.read()
    if any(tail):
        raise TarDamage(offset, "zeroed hole")
    if len(tail) < 2 * BLOCK or size % RECORD:
        raise TarDamage(offset, "short end of archive")


def members_of(blob: bytes) -> list[Member]:
    """The members that fill a sample's bytes exactly; TarDamage when they do not."""
    members: list[Member] = []
    offset = 0
    while offset < len(blob):
        member = _parse(blob[offset : offset + BLOCK], offset)
        offset += BLOCK + member.size + -member.size % BLOCK
        members.append(member)
    if offset != len(blob):
        raise TarDamage(len(blob), "cut sample")
    return members


def _parse(block: bytes, offset: int) -> Member:
    try:
        claimed = int(block[148:156].strip(b"\0 "), 8)
        size = int(block[124:136].strip(b"\0 "), 8)
        name = block[:100].rstrip(b"\0").decode("ascii")
    except ValueError:
        raise TarDamage(offset, "no tar header") from None
    if claimed != sum(block) - sum(block[148:156]) + 8 * 0x20 or block[257:262] != b"ustar" or block[156:157] != b"0":
        raise TarDamage(offset, "damaged tar header")
    return Member(name, offset, size)


def _template() -> bytes:
    block = bytearray(BLOCK)
    block[100:108] = b"0000444\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = b"0"
    block[257:265] = b"ustar\00000"
    block[265:274] = block[297:306] = b"stillreel"
    return bytes(block)


_TEMPLATE = _template()
_TEMPLATE_SUM = sum(_TEMPLATE)
