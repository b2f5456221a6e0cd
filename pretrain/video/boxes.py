"""A look at the boxes of an MP4 before FFmpeg makes an index of them.

A few bytes can claim a billion samples (a constant size in `stsz`, no sizes in `trun`), and FFmpeg writes an entry of its
index for each before it finds that they are not there: gigabytes, and minutes in which nothing can stop it. Real samples
have at least a byte each.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

# Boxes that hold boxes, on the way to the counts.
_PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"}
_COUNT_AT = {b"stsz": 8, b"trun": 4}  # in their payload, behind version and flags
_MOST_BOXES = 1_000_000


def claimed_samples(path: Path) -> int:
    """How many samples the boxes of a file claim together; 0 for one that is not made of boxes."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        return _claimed(file, 0, size)


def _claimed(file: IO[bytes], start: int, end: int) -> int:
    total = 0
    stack = [(start, end)]
    for _ in range(_MOST_BOXES):
        if not stack:
            break
        at, end = stack.pop()
        file.seek(at)
        head = file.read(16)
        if end - at < 8 or len(head) < 8:
            continue
        length, kind = struct.unpack_from(">I4s", head)
        body = 8
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack_from(">Q", head, 8)
            body = 16
        elif length == 0:
            length = end - at
        if length < body:
            continue
        after = min(at + length, end)  # a length may be anything: raw H.264 begins like a box of 2**63 bytes
        stack.append((after, end))
        if kind in _PARENTS:
            stack.append((at + body, after))
        elif kind in _COUNT_AT:
            file.seek(at + body + _COUNT_AT[kind])
            total += int.from_bytes(file.read(4))
    return total
