"""Pictures that take much to decode: as large as is let through, of every format, and small files that hold much more.

python -m tests.animate.giants NAME ...    a line of JSON each: MiB at the peak, and what came of it
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from stillreel.animate.pictures.picture import PictureReader
from stillreel.configs.build import ClipSettings
from stillreel.shards.format.record import Rejection

_SIDE = 6400  # squared, 15 bytes each: just within the budget
_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _plain(mode: str, side: int = _SIDE, height: int = 0) -> Image.Image:
    """Something with little in it, so that it is soon made."""
    return Image.new(mode, (side, height or side), 97)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(side: int, bits: int, color: int, *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A black PNG: color 0 gray, 2 RGB, 3 palette, 4 gray with alpha, 6 RGBA."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    packer, body = zlib.compressobj(1), b""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    for x, y, across, down in passes if interlaced else ((0, 0, 1, 1),):
        row = bytes(1 + (-(-(side - x) // across) * samples * bits + 7) // 8)
        body += b"".join(packer.compress(row) for _ in range(y, side, down))
    body += packer.flush()
    head = struct.pack(">IIBBBBB", side, side, bits, color, 0, 0, interlaced)
    palette = _chunk(b"PLTE", bytes(range(240)) + bytes(528)) + _chunk(b"tRNS", bytes(256)) if color == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + extra + palette + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def tiff(
    width: int,
    height: int,
    samples: int,
    bits: int,
    photometric: int,
    *,
    rows: int = 0,
    tile: int = 0,
    tags: object = (),
) -> bytes:
    """A TIFF compressed by Deflate, all pieces of which are the same zeros."""
    piece = (tile * tile if tile else (rows or height) * width) * samples * bits // 8
    count = -(-width // tile) * -(-height // tile) if tile else -(-height // (rows or height))
    packer = zlib.compressobj(1)
    packed = (
        b"".join(packer.compress(bytes(min(1 << 20, piece - at))) for at in range(0, piece, 1 << 20)) + packer.flush()
    )
    fields: dict[int, tuple[int, bytes]] = {
        256: (4, struct.pack("<I", width)),
        257: (4, struct.pack("<I", height)),
        258: (3, struct.pack("<H", bits) * samples),
        259: (3, struct.pack("<H", 8)),
        262: (3, struct.pack("<H", photometric)),
        277: (3, struct.pack("<H", samples)),
    }
    where, lengths = struct.pack("<I", 8) * count, struct.pack("<I", len(packed)) * count
    if tile:
        side = struct.pack("<I", tile)
        fields |= {322: (4, side), 323: (4, side), 324: (4, where), 325: (4, lengths)}
    else:
        fields |= {273: (4, where), 278: (4, struct.pack("<I", rows or height)), 279: (4, lengths)}
    fields |= dict(tags)  # type: ignore[call-overload]
    start = 8 + len(packed) + len(packed) % 2
    after = start + 2 + 12 * len(fields) + 4
    entries, beyond = b"", b""
    for tag, (kind, value) in sorted(fields.items()):
        number = len(value) // {1: 1, 3: 2, 4: 4, 7: 1}[kind]
        if len(value) > 4:
            entries += struct.pack("<HHII", tag, kind, number, after + len(beyond))
            beyond += value
        else:
            entries += struct.pack("<HHI", tag, kind, number) + value.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", start) + packed.ljust(start - 8, b"\0")
    return head + struct.pack("<H", len(fields)) + entries + bytes(4) + beyond


def icon(inner: bytes) -> bytes:
    """An icon that says 32 x 32 and holds something else."""
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 32, 32, 0, 0, 1, 32, len(inner), 22) + inner


def bmp_rle(side: int) -> bytes:
    row = bytes((255, 7)) * (side // 255) + bytes((side % 255, 9)) + b"\0\0"
    body = row * side + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 14 + 40 + 1024 + len(body), 0, 0, 14 + 40 + 1024) + head + bytes(1024) + body


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def lying_avif() -> bytes:
    """64 x 64, it says; there is a picture of 100 million pixels behind it."""
    data = bytearray(_saved(_plain("RGB", 10_000), "AVIF", speed=10, quality=10))
    at = data.index(b"ispe")
    data[at + 8 : at + 16] = struct.pack(">II", 64, 64)
    return bytes(data)


def lying_jp2() -> bytes:
    data = bytearray(_saved(_plain("RGB", 5_000), "JPEG2000"))
    at = data.index(b"ihdr")
    data[at + 4 : at + 12] = struct.pack(">II", 64, 64)
    return bytes(data)


def lying_webp() -> bytes:
    data = bytearray(_saved(_plain("RGBA", 8_000), "WEBP", lossless=True, quality=0, method=0, exif=oriented(6)))
    at = data.index(b"VP8X")
    data[at + 12 : at + 18] = bytes((63, 0, 0)) * 2
    return bytes(data)


def jpeg_of_profile(size: int) -> bytes:
    body = _saved(_plain("RGB", 64), "JPEG")
    parts = [bytes(60_000)] * (size // 60_000)
    segments = b"".join(
        b"\xff\xe2" + struct.pack(">H", len(part) + 16) + b"ICC_PROFILE\0" + bytes((at + 1, len(parts))) + part
        for at, part in enumerate(parts)
    )
    return body[:2] + segments + body[2:]


def _many(value: int) -> dict[int, tuple[int, bytes]]:
    return {value: (3, b"\x00\x40" * 20_000_000)}


GIANTS: dict[str, Callable[[], bytes]] = {
    "PNG gray": lambda: png(_SIDE, 8, 0),
    "PNG gray 1": lambda: png(_SIDE, 1, 0),
    "PNG gray 16": lambda: png(_SIDE, 16, 0),
    "PNG gray 16 interlaced": lambda: png(_SIDE, 16, 0, interlaced=True),
    "PNG gray 16, transparent": lambda: png(_SIDE, 16, 0, extra=_chunk(b"tRNS", b"\0\0")),
    "PNG gray with alpha 16": lambda: png(_SIDE, 16, 4),
    "PNG RGB": lambda: png(_SIDE, 8, 2),
    "PNG RGB 16 interlaced": lambda: png(_SIDE, 16, 2, interlaced=True),
    "PNG RGB, transparent": lambda: png(_SIDE, 8, 2, extra=_chunk(b"tRNS", bytes(6))),
    "PNG palette": lambda: png(_SIDE, 8, 3),
    "PNG palette interlaced": lambda: png(_SIDE, 8, 3, interlaced=True),
    "PNG RGBA": lambda: png(_SIDE, 8, 6),
    "PNG RGBA 16": lambda: png(_SIDE, 16, 6),
    "PNG RGBA 16 interlaced": lambda: png(_SIDE, 16, 6, interlaced=True),
    "PNG RGBA with a profile, turned": lambda: _saved(
        _plain("RGBA"), "PNG", icc_profile=_PROFILE, exif=oriented(6), compress_level=1
    ),
    "PNG beyond max_pixels": lambda: png(13_500, 1, 0),
    "PNG beyond the budget": lambda: png(13_000, 8, 0),
    "PNG zTXt bomb": lambda: png(64, 8, 2, extra=_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20), 1))),
    "PNG many zTXt": lambda: png(64, 8, 2, extra=_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 2_000),
    "PNG iTXt bomb": lambda: png(64, 8, 2, extra=_chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(200 << 20), 1))),
    "PNG iCCP bomb": lambda: png(64, 8, 2, extra=_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(200 << 20), 1))),
    "PNG huge eXIf": lambda: png(
        64, 8, 2, extra=_chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x112, 3, 40 << 20, 26) + bytes(80 << 20))
    ),
    "JPEG progressive": lambda: _saved(_plain("RGB", 12_000), "JPEG", progressive=True, quality=5),
    "JPEG progressive, 4:4:4": lambda: _saved(_plain("RGB", 9_900), "JPEG", progressive=True, quality=5, subsampling=0),
    "JPEG progressive, gray": lambda: _saved(_plain("L"), "JPEG", progressive=True, quality=5),
    "JPEG CMYK": lambda: _saved(_plain("CMYK"), "JPEG", quality=5),
    "JPEG CMYK progressive": lambda: _saved(_plain("CMYK"), "JPEG", progressive=True, quality=5),
    "JPEG turned": lambda: _saved(_plain("RGB", 9_900), "JPEG", quality=5, exif=oriented(5)),
    "JPEG turned, with a profile": lambda: _saved(_plain("L"), "JPEG", quality=5, exif=oriented(5), icc_profile=_PROFILE),
    "JPEG with 15 MB of profile": lambda: jpeg_of_profile(15_000_000),
    "WebP": lambda: _saved(_plain("RGB", 5_300), "WEBP", method=0, quality=1),
    "WebP lossless": lambda: _saved(_plain("RGBA", 5_300), "WEBP", lossless=True, method=0, quality=0),
    "WebP that lies": lying_webp,
    "AVIF": lambda: _saved(_plain("RGB", 5_500), "AVIF", speed=10, quality=10, subsampling="4:4:4"),
    "AVIF with alpha, turned": lambda: _saved(_plain("RGBA", 5_500), "AVIF", speed=10, quality=10, exif=oriented(6)),
    "AVIF that lies": lying_avif,
    "JPEG 2000": lambda: _saved(_plain("RGB", 4_600), "JPEG2000", irreversible=True),
    "JPEG 2000, gray 16": lambda: _saved(Image.fromarray(np.zeros((4_600, 4_600), np.uint16)), "JPEG2000"),
    "JPEG 2000 of small blocks": lambda: _saved(_plain("L", 2_100), "JPEG2000", codeblock_size=(4, 4), precinct_size=(4, 4)),
    "JPEG 2000 of tiny tiles": lambda: _saved(_plain("RGBA", 2_550), "JPEG2000", tile_size=(10, 10)),
    "JPEG 2000 that lies": lying_jp2,
    "TIFF one strip": lambda: tiff(_SIDE, _SIDE, 3, 8, 2),
    "TIFF strips of a row": lambda: tiff(_SIDE, _SIDE, 3, 16, 2, rows=1),
    "TIFF one strip, RGBA 16": lambda: tiff(_SIDE, _SIDE, 4, 16, 2),
    "TIFF one strip, CMYK, turned": lambda: tiff(5_000, 5_000, 4, 8, 5, tags={274: (3, b"\6\0")}),
    "TIFF float": lambda: tiff(_SIDE, _SIDE, 1, 32, 1, rows=64, tags={339: (3, b"\3\0")}),
    "TIFF gray 16 turned": lambda: tiff(_SIDE, _SIDE, 1, 16, 1, rows=64, tags={274: (3, b"\5\0")}),
    "TIFF tiled": lambda: tiff(_SIDE, _SIDE, 3, 8, 2, tile=256),
    "TIFF small with a huge tile": lambda: tiff(64, 64, 3, 8, 2, tile=16_384),
    "TIFF small with a huge strip": lambda: tiff(64, 64, 3, 8, 2, rows=4_000_000),
    "TIFF of 20 million offsets": lambda: tiff(64, 64, 3, 8, 2, tags=_many(258)),
    "TIFF of 20 million strips": lambda: tiff(64, 64, 3, 8, 2, tags=_many(273)),
    "TIFF LZW": lambda: _saved(_plain("RGB"), "TIFF", compression="tiff_lzw"),
    "TIFF JPEG": lambda: _saved(_plain("RGB"), "TIFF", compression="jpeg"),
    "TIFF of a bit": lambda: _saved(Image.new("1", (_SIDE, _SIDE)), "TIFF", compression="group4"),
    "TIFF YCbCr": lambda: tiff(_SIDE, _SIDE, 3, 8, 6, rows=64, tags={530: (3, b"\1\0\1\0")}),
    "TIFF Lab": lambda: tiff(_SIDE, _SIDE, 3, 8, 8, rows=64),
    "GIF": lambda: _saved(_plain("P"), "GIF"),
    "GIF of a huge canvas": lambda: b"GIF89a" + struct.pack("<HHBBB", 13_000, 13_000, 0, 0, 0)
    + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\2D\1\0;",
    "GIF of a large canvas": lambda: b"GIF89a" + struct.pack("<HHBBB", _SIDE, _SIDE, 0x80, 0, 0) + bytes(6)
    + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\2D\1\0;",
    "BMP RLE": lambda: bmp_rle(_SIDE),
    "BMP 16": lambda: b"BM" + struct.pack("<IHHI", 0, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, _SIDE, _SIDE, 1, 16, 0, 0, 0, 0, 0, 0) + bytes(_SIDE * _SIDE * 2),
    "ICO with a PNG bomb": lambda: icon(png(9_000, 8, 6)),
    "ICO with a BMP bomb": lambda: icon(struct.pack("<IiiHHIQQQ", 40, 20_000, 40_000, 1, 1, 0, 0, 0, 0) + bytes(100 << 20)),
    "PPM": lambda: b"P6 6400 6400 65535\n" + bytes(_SIDE * _SIDE * 6),
    "PGM 16": lambda: b"P5 6400 6400 4095\n" + bytes(_SIDE * _SIDE * 2),
    "PCX": lambda: _saved(_plain("RGB"), "PCX"),
    "TGA RLE": lambda: _saved(_plain("RGBA"), "TGA", compression="tga_rle"),
}  # fmt: skip


def measured(file: Path) -> tuple[float, str]:
    """MiB at the peak of reading a picture, and "ok" or why it was rejected."""
    Path("/proc/self/clear_refs").write_text("5")
    try:
        PictureReader(ClipSettings()).read(file.read_bytes()).pixels()
        outcome = "ok"
    except Rejection as rejection:
        outcome = rejection.reason
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), outcome


def _in_child(work: Callable[[], None]) -> None:
    """What it takes is given back."""
    if not (child := os.fork()):
        work()
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        for number, name in enumerate(sys.argv[1:]):
            file = Path(home, str(number))
            _in_child(lambda file=file, name=name: file.write_bytes(GIANTS[name]()))  # type: ignore[misc]
            _in_child(lambda file=file, name=name: print(json.dumps((name, *measured(file)))))  # type: ignore[misc]
            file.unlink()
