"""What a JPEG says of itself before its first scan; enough to tell whether its bytes can be kept as they are."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

_SOF_BASELINE, _SOF_EXTENDED, _SOF_PROGRESSIVE = 0xC0, 0xC1, 0xC2
_NOT_SOF = (0xC4, 0xC8, 0xCC)  # DHT, JPG, DAC share the range of the frame headers
_STANDALONE = (0x01, *range(0xD0, 0xD8))
_ORIENTATION = 0x0112
_END = re.compile(rb"\xff\xd9")


class JpegHeader(NamedTuple):
    """`process` is the SOF marker's low byte; `adobe` the color transform of an Adobe segment; `icc` the joined profile
    (b"" when there is none, None when its parts do not fit); `orientation` EXIF's, 1 when absent or senseless."""

    width: int
    height: int
    process: int
    bits: int
    component_ids: bytes
    sampled: int  # samples of all components per 64 luma-sized pixels: 96 for 4:2:0, 192 for 4:4:4
    adobe: int | None
    icc: bytes | None
    orientation: int
    scan: int  # where the first scan's header starts

    @property
    def is_plain_color(self) -> bool:
        """Three components in YCbCr, 8 bits, baseline or progressive: what every decoder shows alike."""
        known = self.process in (_SOF_BASELINE, _SOF_EXTENDED, _SOF_PROGRESSIVE) and self.bits == 8
        return known and len(self.component_ids) == 3 and self.component_ids != b"RGB" and self.adobe in (None, 1)

    @property
    def is_progressive(self) -> bool:
        return self.process == _SOF_PROGRESSIVE


def read_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG whose segments are in order up to the first scan, else None."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    frame: tuple[int, int, int, int, bytes, int] | None = None
    adobe: int | None = None
    orientation = 1
    profile: dict[int, bytes] = {}
    parts = 0
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:
            if frame is None:
                return None
            width, height, process, bits, ids, sampled = frame
            icc = (
                b"".join(profile[part] for part in sorted(profile))
                if sorted(profile) == list(range(1, parts + 1))
                else None
            )
            return JpegHeader(width, height, process, bits, ids, sampled, adobe, icc, orientation, at)
        length = (data[at + 2] << 8) | data[at + 3]
        body = data[at + 4 : at + 2 + length]
        if length < 2 or len(body) != length - 2:
            return None
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_SOF:
            frame = _read_frame(marker, body) if frame is None else None
            if frame is None:
                return None
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = read_orientation(body[6:])
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            profile[body[12]], parts = body[14:], body[13]
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        at += 2 + length
    return None


def ends_with_picture(data: bytes, scan: int) -> bool:
    """Whether nothing follows the picture: no second one (MPO), no video (motion photo), no padding."""
    # Inside a scan 0xFF is always followed by 0x00 or a restart marker, so the first FFD9 after it is the end. (A regular
    # expression: bytes.find takes half as long again among so many 0xFF.)
    end = _END.search(data, scan)
    return end is not None and end.end() == len(data)


def read_orientation(tiff: bytes) -> int:
    """EXIF orientation 1 to 8 of a TIFF block; 1 when it holds none, or one that makes no sense."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == _ORIENTATION:
                (value,) = struct.unpack_from(f"{order}H", tiff, entry + 8)
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _read_frame(marker: int, body: bytes) -> tuple[int, int, int, int, bytes, int] | None:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        return None
    bits, height, width, count = struct.unpack_from(">BHHB", body)
    if not width or not height:
        return None
    factors = [(code >> 4, code & 15) for code in body[7::3]]
    largest = max(across for across, _ in factors) * max(down for _, down in factors) if factors else 0
    if not largest:
        return None
    sampled = sum(64 * across * down for across, down in factors) // largest
    return width, height, marker, bits, body[6 : 6 + 3 * count : 3], sampled
