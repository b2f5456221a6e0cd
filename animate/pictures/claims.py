"""What a file's header makes a decoder take beside the picture's pixels: looked at before any decoder is."""

from __future__ import annotations

import struct

from stillreel.shards.format.record import Rejection

_MOST_VALUES = 1 << 20  # of a TIFF's tag, each of which becomes an object
_TIFF_BYTES = (1, 2, 6, 7)  # types of which any number is one object
_MOST_ICON = 1 << 22  # pixels; an icon is decoded to see its size

_CODESTREAM, _COD, _COC, _SOT = b"\xff\x4f\xff\x51", 0xFF52, 0xFF53, 0xFF90
_BLOCK_BYTES, _TILE_BYTES, _TILE_COMPONENT_BYTES = 600, 8192, 2048  # of OpenJPEG's tables, rounded up


def check_claims(data: bytes) -> None:
    """Rejection for a TIFF or an icon whose header alone costs more than a picture may."""
    for tag, kind, count in tiff_directory(data):
        if kind not in _TIFF_BYTES and _MOST_VALUES < count <= len(data):
            raise Rejection("too_large", f"TIFF whose tag {tag} has {count:,} values")
    if data[:4] == b"\0\0\1\0":
        for at in range(6, min(6 + 16 * int.from_bytes(data[4:6], "little"), len(data) - 15), 16):
            (offset,) = struct.unpack_from("<I", data, at + 12)
            width, height = _icon_size(data[offset : offset + 24].ljust(24, b"\0"))
            if width * height > _MOST_ICON:
                raise Rejection("too_large", f"icon of {width} x {height} pixels")


def tiff_directory(data: bytes) -> list[tuple[int, int, int]]:
    """Tag, type and count of values of each entry of a TIFF's first directory; none where there is no sound one."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return []
    try:
        if data[2:4] in (b"+\0", b"\0+"):
            (offset,) = struct.unpack_from(f"{order}Q", data, 8)
            (entries,), entry, each, first = struct.unpack_from(f"{order}Q", data, offset), "HHQ", 20, 8
        else:
            (offset,) = struct.unpack_from(f"{order}I", data, 4)
            (entries,), entry, each, first = struct.unpack_from(f"{order}H", data, offset), "HHI", 12, 2
        start = offset + first
        if entries > 4096 or start + each * entries > len(data):
            return []
        return [struct.unpack_from(order + entry, data, start + each * number) for number in range(entries)]
    except (struct.error, OverflowError):
        return []


def jpeg2000_tables(data: bytes) -> float:
    """Bytes that a JPEG 2000's tiles and code blocks take, which may be as small as a few pixels; 0 of anything else."""
    at = data.find(_CODESTREAM)
    try:
        if at < 0:
            return 0.0
        width, height, _, _, across, down, _, _, components = struct.unpack_from(">8IH", data, at + 8)
        tiles = -(-width // max(across, 1)) * -(-height // max(down, 1))
        area = 64 * 64
        at += 2
        while True:
            marker, length = struct.unpack_from(">HH", data, at)
            if marker == _COD:
                area = min(area, _block_area(data[at + 9 : at + 2 + length], data[at + 4] & 1))
            elif marker == _COC:
                style = at + 5 + (components > 256)
                area = min(area, _block_area(data[style + 1 : at + 2 + length], data[style] & 1))
            elif marker == _SOT or length < 2:
                break
            at += 2 + length
    except (struct.error, IndexError):
        return 0.0  # cut in its header: the decoder says so
    blocks = components * width * height / area
    return float(blocks * _BLOCK_BYTES + tiles * (_TILE_BYTES + components * _TILE_COMPONENT_BYTES))


def _block_area(style: bytes, has_precincts: int) -> int:
    """Pixels of the smallest code block: its own size, or half of the smallest precinct's."""
    across, down = (style[1] & 15) + 2, (style[2] & 15) + 2
    for precinct in style[5:] if has_precincts else b"":
        across, down = min(across, max(0, (precinct & 15) - 1)), min(down, max(0, (precinct >> 4) - 1))
    return 1 << across + down


def _icon_size(head: bytes) -> tuple[int, int]:
    if head.startswith(b"\x89PNG"):
        width, height = struct.unpack_from(">II", head, 16)
    else:
        width, height = struct.unpack_from("<HH" if head[0] == 12 else "<ii", head, 4)
    return abs(width), abs(height)
