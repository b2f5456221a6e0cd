"""From the bytes of a source to the one picture that every store holds and films.

A picture is decoded whole, once, whatever the store, so that all stores accept and reject alike. An upright plain JPEG
within `max_side` is kept byte for byte; everything else becomes, once, an upright sRGB JPEG (4:4:4, q95).
"""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from stillreel.animate.pictures import pillow
from stillreel.animate.pictures.jpeg import JpegHeader, ends_with_picture, read_header
from stillreel.animate.pictures.likeness import perceptual_hash
from stillreel.animate.pictures.saliency import salient_point
from stillreel.animate.render.cpu import SAMPLES_PER_PIXEL
from stillreel.configs.build import ClipSettings
from stillreel.configs.system.memory import PixelMemory
from stillreel.shards.format.record import Rejection

Pixels = NDArray[np.uint8]

STORED_QUALITY = 95

# What decoding one picture may take, so that a worker stays under 1 GiB whatever a header claims.
DECODE_BUDGET = 600 << 20
_KEPT = 64 << 20  # of the reader's buffer, while something else decodes

# Warnings of libjpeg that a picture survives whole: junk between segments, odd profiles and application markers. The
# other ones (premature end, junk inside a scan, impossible progressions) mean that pixels are lost.
_HARMLESS = (
    "extraneous bytes before marker 0x",
    "bad ICC marker",
    "Unknown Adobe color transform",
    "Unsupported marker type",
)
_RESTART_MARKERS = tuple(f"marker 0xd{number}" for number in range(8))


class StoredPicture:
    """The JPEG that goes into the shard (or would), and its pixels on demand."""

    def __init__(self, jpeg: bytes, seen: Pixels, reader: PictureReader, pixels: Pixels | None) -> None:
        """`seen` are the upright pixels that `jpeg` was encoded from, or was decoded to if it is the source itself."""
        self.jpeg = jpeg
        self.height, self.width = seen.shape[:2]
        self._seen: Pixels | None = seen
        self._reader = reader
        self._pixels = pixels
        self._level = 0  # of `pixels`

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    def perceptual_hash(self) -> int:
        """64 bits of how it looks (`likeness`). To be asked before `pixels`, which may take the place of what was decoded."""
        assert self._seen is not None
        return perceptual_hash(self._seen)

    def salient_point(self) -> tuple[int, int]:
        """Where (x, y), in its pixels, it differs most from what lies around (`saliency`). To be asked before `pixels`, too."""
        assert self._seen is not None
        return salient_point(self._seen)

    def pixels(self, level: int = 0) -> Pixels:
        """RGB of exactly these bytes, uint8 (H, W, 3), decoded at 1 / 2^level of their size.

        Lies in the reader's buffer: use it before the next picture.
        """
        if self._pixels is None or level != self._level:
            self._seen = None
            self._pixels = self._reader.decode(self.jpeg, self.width, self.height, level)
            self._level = level
        return self._pixels


class PictureReader:
    """Turns source bytes into stored pictures. Keeps one buffer: fresh memory for each picture costs half a decode."""

    def __init__(self, settings: ClipSettings) -> None:
        self._max_side = settings.max_side
        self._max_pixels = settings.max_pixels
        self._min_side = settings.min_side
        self._max_aspect = settings.max_aspect
        self._memory = PixelMemory()

    def read(self, data: bytes) -> StoredPicture:
        """The stored picture of a source's bytes; raises Rejection with what is wrong with them."""
        if not data:
            raise Rejection("empty", "0 bytes")
        header = read_header(data)
        if header is not None and header.is_plain_color:
            self._check_size(header.width, header.height)
            stored = self._read_jpeg(data, header)
            if stored is not None:
                return stored
        picture = pillow.open_picture(data)
        self._check_size(*picture.size)
        self._check_memory(picture.size, picture.decode_bytes + len(data))
        self._memory.trim(_KEPT)
        return self._transcode(picture.pixels())

    def decode(self, jpeg: bytes, width: int, height: int, level: int = 0, *, strict: bool = True) -> Pixels:
        """Decode a color JPEG to RGB (H, W, 3), at 1 / 2^level of its size, into the buffer. ValueError as simplejpeg's."""
        buffer = self._memory.shaped(-(-height >> level), -(-width >> level))
        return _decode(jpeg, (width, height), level, buffer, strict)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise Rejection("too_large", f"{width} x {height} pixels; max_pixels is {self._max_pixels}")
        if min(width, height) < self._min_side:
            raise Rejection("too_small", f"{width} x {height} pixels; min_side is {self._min_side}")
        if max(width, height) > self._max_aspect * min(width, height):
            raise Rejection("too_long", f"{width} x {height} pixels; sides up to {self._max_aspect:g}:1 are taken")

    def _check_memory(self, size: tuple[int, int], needed: float) -> None:
        if needed > DECODE_BUDGET:
            raise Rejection(
                "too_large",
                f"{size[0]} x {size[1]} pixels of this kind take {needed / 2**20:.0f} MiB to decode; "
                f"a worker may use {DECODE_BUDGET >> 20}",
            )

    def _read_jpeg(self, data: bytes, header: JpegHeader) -> StoredPicture | None:
        """The fast way. None when libjpeg stumbles over something harmless, which Pillow then decides about."""
        width, height = header.width, header.height
        level = self._level(width, height)
        # A progressive JPEG is held whole as 16-bit coefficients while it is decoded.
        coefficients = 2 * header.sampled / 64 if header.is_progressive else 0
        turned = 3 if header.orientation != 1 else 0
        per_pixel = (3 + turned) / 4**level + coefficients
        self._check_memory((width, height), width * height * per_pixel + len(data))
        try:
            pixels = self.decode(data, width, height, level)
        except ValueError as error:
            _judge(str(error))
            return None
        convert = pillow.conversion_to_srgb(header.icc, "RGB") if header.icc else None
        fits = not self._max_side or max(width, height) <= self._max_side
        if fits and header.orientation == 1 and convert is None and ends_with_picture(data, header.scan):
            return StoredPicture(data, pixels, self, pixels)
        # Smallest first: a profile is costly to undo, by the pixel.
        pixels = self._shrunk(pixels)
        if convert is not None:
            for rows in pillow.strips(pixels.shape[0], pixels.shape[1]):
                pixels[rows] = convert(pixels[rows])
        return self._transcode(pillow.turned(pixels, header.orientation))

    def _level(self, width: int, height: int) -> int:
        """How often a picture may be halved while it is decoded: it keeps SAMPLES_PER_PIXEL for each pixel of max_side."""
        level = 0
        while self._max_side and level < 3 and max(width, height) >> (level + 1) >= SAMPLES_PER_PIXEL * self._max_side:
            level += 1
        return level

    def _shrunk(self, pixels: Pixels) -> Pixels:
        """Pixels with their longer side at most max_side."""
        height, width = pixels.shape[:2]
        scale = self._max_side / max(width, height)
        if not self._max_side or scale >= 1:
            return pixels
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _transcode(self, pixels: Pixels) -> StoredPicture:
        pixels = np.ascontiguousarray(self._shrunk(pixels))
        jpeg = simplejpeg.encode_jpeg(pixels, quality=STORED_QUALITY, colorspace="RGB", colorsubsampling="444")
        return StoredPicture(jpeg, pixels, self, None)


def _judge(complaint: str) -> None:
    """Raise Rejection for a complaint of libjpeg that means lost pixels; return for one that does not settle it."""
    if "Premature end of JPEG" in complaint:
        raise Rejection("truncated", f"JPEG: {complaint}")
    if "tjDecompressHeader" in complaint or "Unsupported color conversion" in complaint:
        return  # an odd kind of JPEG: Pillow may know it
    if any(words in complaint for words in _HARMLESS) and not any(words in complaint for words in _RESTART_MARKERS):
        return
    raise Rejection("corrupt", f"JPEG: {complaint}")


def stored_pixels(jpeg: bytes, level: int = 0, buffer: Pixels | None = None) -> Pixels:
    """RGB of a stored picture, uint8 (H, W, 3), decoded at 1 / 2^level of its size: what a loader films. In memory of its
    own, or in a buffer that is large enough. ValueError when damaged."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    return _decode(jpeg, (width, height), level, buffer)


def _decode(
    jpeg: bytes, size: tuple[int, int], level: int, buffer: Pixels | None = None, strict: bool = True
) -> Pixels:
    # The least sizes are rounded up, or libjpeg would pick another fraction.
    width, height = (-(-side >> level) if level else 0 for side in size)
    pixels: Pixels = simplejpeg.decode_jpeg(
        jpeg, "RGB", min_factor=1 << level, min_width=width, min_height=height, buffer=buffer, strict=strict
    )
    return pixels
