"""Tars that we did not write, read member by member: any header that tarfile knows, and names as webdataset splits them."""

from __future__ import annotations

import tarfile
from typing import IO

from stillreel.shards.format.tar import BLOCK

_REGULAR = b"0\0"


def read_member(file: IO[bytes], header: bytes, offset: int) -> tuple[str, int, int] | None:
    """(name, payload offset, payload size) of the regular file whose header stands at `offset`, else None.

    The usual header is read here, a hundred times faster than by tarfile; every other kind is left to tarfile, and the
    file is then left where the next header stands. tarfile.TarError when there is no header.
    """
    if header[156] in _REGULAR and header[345] == 0 and header[124] & 0x80 == 0:
        try:
            length = int(header[124:136].strip(b"\0 ") or b"0", 8)
            checksum = int(header[148:156].strip(b"\0 "), 8)
        except ValueError:
            raise tarfile.HeaderError("not a header") from None
        if checksum != sum(header) - sum(header[148:156]) + 256:
            raise tarfile.HeaderError("a header with a wrong checksum")
        return header[:100].rstrip(b"\0").decode("utf-8", "surrogateescape"), offset + BLOCK, length
    file.seek(offset)
    with tarfile.open(fileobj=file, mode="r:", errorlevel=0) as tar:
        info = tar.next()
        if info is None:
            raise tarfile.HeaderError("not a header")
        file.seek(info.offset_data + (info.size + -info.size % BLOCK if info.isreg() else 0))
        return (info.name, info.offset_data, info.size) if info.isreg() else None


def split_name(name: str) -> tuple[str, str]:
    """(key, ending) as webdataset splits a member's name: at the first dot of its last part; ("", "") for the others."""
    folder, slash, last = name.rpartition("/")
    key, dot, ending = last.partition(".")
    if not key or not dot or key.startswith("__"):
        return "", ""
    return folder + slash + key, ending.lower()
