"""Depth and color profile: what a picture says of its samples is heeded, whatever else is done to it on the way."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stillreel.animate.pictures.picture import PictureReader
from stillreel.configs.build import ClipSettings
from stillreel.shards.format.record import Rejection

Ints = NDArray[np.int64]


def read(data: bytes) -> Ints:
    stored = PictureReader(ClipSettings(min_side=8)).read(data)
    return stored.pixels().astype(np.int64)


def tiff(entries: dict[int, tuple[int, int]], strip: bytes, order: str = "<", magic: int = 42) -> bytes:
    """A TIFF of one strip: tags with a type and a value that fits into an entry."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", magic, 8)
    rows = sorted({**entries, 273: (4, 8 + 2 + 12 * (len(entries) + 2) + 4), 279: (4, len(strip))}.items())
    fields = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1)
        + (struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value))
        for tag, (kind, value) in rows
    )
    return head + struct.pack(f"{order}H", len(rows)) + fields + bytes(4) + strip


def gray_tiff(values: Ints, bits: int) -> bytes:
    height, width = values.shape
    packed = np.packbits(
        ((values[..., None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).reshape(height, -1), axis=1
    )
    tags = {256: (3, width), 257: (3, height), 258: (3, bits), 259: (3, 1), 262: (3, 1), 277: (3, 1), 278: (3, height)}
    return tiff(tags, packed.tobytes())


@pytest.mark.parametrize("bits", [12, 16])
def test_deep_gray_has_the_brightness_that_its_depth_gives_it(bits: int) -> None:
    values = np.full((16, 32), (1 << bits) // 4)
    values[8:] = (1 << bits) * 3 // 4
    if bits == 16:
        with io.BytesIO() as sink:
            Image.fromarray(values.astype(np.uint16)).save(sink, "TIFF")
            data = sink.getvalue()
    else:
        data = gray_tiff(values, bits)
    pixels = read(data)
    assert np.abs(pixels[2:6] - 64).max() <= 2
    assert np.abs(pixels[10:14] - 191).max() <= 2


def gray_profile(gamma: float) -> bytes:
    """An ICC profile of gray: white point and tone curve."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    offset = 128 + 4 + 2 * 12
    tags = struct.pack(">I", 2)
    tags += struct.pack(">4sII", b"wtpt", offset, len(white)) + struct.pack(">4sII", b"kTRC", offset + len(white), 14)
    body = tags + white + curve
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), b"\0" * 4, 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head = head.ljust(36, b"\0") + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + body


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_gray_profiles_are_undone(mode: str, kind: str) -> None:
    values = np.full((32, 32), 128, np.uint8)
    deep = values.astype(np.uint16) * 257
    image = Image.fromarray(deep) if mode == "I;16" else Image.fromarray(values).convert(mode)
    with io.BytesIO() as sink:
        image.save(sink, kind, icc_profile=gray_profile(1.0))
        linear = sink.getvalue()
    assert np.abs(read(linear) - 188).max() <= 2, "half of the light is 188 in sRGB"


OTHERS = {
    "JPEG XL": b"\xff\x0a" + bytes(60),
    "JPEG XL in a box": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60),
    "DDS": b"DDS " + struct.pack("<I", 124) + bytes(120),
    "HDR": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 32 +X 32\n" + bytes(64),
    "PAM": b"P7\nWIDTH 32\nHEIGHT 32\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n" + bytes(4096),
    "CUR": b"\0\0\2\0\1\0" + bytes(64),
    "odd TIFF": tiff({256: (3, 32), 257: (3, 32), 258: (3, 24), 259: (3, 1), 262: (3, 9), 277: (3, 7)}, bytes(99)),
    "odd TIFF, big-endian": tiff({256: (3, 32), 257: (3, 32), 258: (3, 9), 262: (3, 9), 277: (3, 7)}, bytes(99), ">"),
    "BMP": b"BM" + struct.pack("<IHHI", 200, 0, 0, 138) + struct.pack("<IiiHHI", 124, 32, 32, 1, 16, 99) + bytes(200),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_picture_of_a_kind_that_is_not_decoded_is_called_one(kind: str) -> None:
    with pytest.raises(Rejection) as rejected:
        read(OTHERS[kind])
    assert rejected.value.reason == "unsupported"
