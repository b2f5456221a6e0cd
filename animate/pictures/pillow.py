"""The slow way to pixels, for all that is no plain color JPEG: any format, mode, profile and orientation, by Pillow.

Whatever the bytes are, the outcome is correct upright sRGB, or a Rejection that names what is wrong.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from stillreel.animate.pictures.jpeg import read_header
from stillreel.shards.format.record import Rejection

Pixels = NDArray[np.uint8]
Convert = Callable[[Pixels], Pixels]

Image.init()  # registers all plugins, so that _FORMATS can name any of them
Image.MAX_IMAGE_PIXELS = None  # sizes are checked against max_pixels here, before anything is decoded

# Formats that pictures on the web come in. Not EPS, WMF and the like, whose "decoding" runs other programs.
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP")

# What decoding takes per pixel with Pillow's copies and ours, in bytes: measured maxima, rounded up.
_BYTES_PER_PIXEL = {"WEBP": 22.0, "AVIF": 20.0, "JPEG2000": 28.0}
_BYTES_PER_PIXEL_ELSE = 15.0

_MAGIC = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\1\0": "ICO",
}
_LOSSLESS_JPEG = (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF)
_TIFF_COMPRESSION, _OPTIONAL_COMPRESSIONS = 259, {34925: "LZMA", 50000: "Zstandard", 50001: "WebP"}


class OpenPicture:
    """A picture whose header is read and whose pixels are not."""

    def __init__(self, image: Image.Image, data: bytes) -> None:
        self._image = image
        self._data = data

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored, before it is turned upright."""
        return self._image.size

    @property
    def decode_bytes_per_pixel(self) -> float:
        return _BYTES_PER_PIXEL.get(self._image.format or "", _BYTES_PER_PIXEL_ELSE)

    def pixels(self) -> Pixels:
        """Decode the first frame to upright sRGB, (H, W, 3); Rejection when it cannot be done whole."""
        with _rejecting(self._data):
            self._load()
            upright = _upright(self._image)
            return _to_rgb(upright)

    def _load(self) -> None:
        try:
            self._image.load()
        except OSError:
            compression = getattr(self._image, "tag_v2", {}).get(_TIFF_COMPRESSION)
            if compression in _OPTIONAL_COMPRESSIONS:
                name = _OPTIONAL_COMPRESSIONS[compression]
                raise Rejection(
                    "unsupported", f"TIFF with {name} compression, which this Pillow lacks or which is damaged"
                ) from None
            raise


def open_picture(data: bytes) -> OpenPicture:
    """Read the header of any picture; Rejection when the bytes are none, or of a kind that is not decoded here."""
    with _rejecting(data):
        return OpenPicture(Image.open(io.BytesIO(data), formats=_FORMATS), data)


@contextmanager
def _rejecting(data: bytes) -> Iterator[None]:
    """Turn whatever a decoder makes of hostile bytes into a Rejection."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Rejection:
        raise
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except MemoryError:
        raise Rejection("too_large", "not enough memory to decode it") from None
    # Decoders raise nearly anything on bytes made to break them; here, and only here, all of it means one thing.
    except Exception as error:
        said = (
            str(error)[:200]
            if isinstance(error, OSError | ValueError | SyntaxError)
            else f"{type(error).__name__}: {error}"[:200]
        )
        truncated = "truncated" in said.lower() or isinstance(error, EOFError)
        raise Rejection("truncated" if truncated else "corrupt", said) from None


def _unidentified(data: bytes) -> Rejection:
    head = data[:64]
    if head[4:8] == b"ftyp":
        brand = head[8:12].decode("latin-1")
        if brand in ("avif", "avis"):
            return Rejection("corrupt", "AVIF whose header makes no sense")
        return Rejection(
            "unsupported", f"{brand!r} of the HEIF and MP4 family is not decoded here; convert it to JPEG or PNG"
        )
    if head.startswith(b"8BPS") or b"<svg" in data[:1024].lower():
        return Rejection(
            "unsupported",
            f"{'Photoshop' if head.startswith(b'8BPS') else 'SVG'} is not decoded here; convert it to JPEG or PNG",
        )
    header = read_header(data)
    if header is not None and header.process in _LOSSLESS_JPEG:
        return Rejection("unsupported", "lossless or hierarchical JPEG is not decoded here")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Rejection("corrupt", "WebP whose header makes no sense")
    for mark, kind in _MAGIC.items():
        if head.startswith(mark) and len(data) > len(mark):
            return Rejection("corrupt", f"{kind} whose header makes no sense")
    return Rejection("not_an_image", f"{len(data)} bytes that begin with {head[:8]!r}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except (ValueError, TypeError, KeyError, SyntaxError, OSError, ArithmeticError):
        return image  # EXIF that cannot be read turns nothing


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey(image)
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(image, lab, _srgb(), outputMode="RGB")
        assert converted is not None
        return _array(converted)
    if image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        colors = _managed(layered.convert("RGB"), image.info.get("icc_profile") if image.mode != "LA" else None)
        return _over_white(colors, np.asarray(layered.getchannel("A")))
    if image.mode in ("1", "L"):
        return cv2.cvtColor(_array(image.convert("L")), cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]
    return _managed(image if image.mode in ("RGB", "CMYK") else image.convert("RGB"), image.info.get("icc_profile"))


def _managed(image: Image.Image, profile: bytes | None) -> Pixels:
    """RGB or CMYK to sRGB, by its profile where it has a usable one."""
    convert = conversion_to_srgb(profile, image.mode) if profile else None
    if convert is not None:
        return convert(np.asarray(image))
    return _array(image if image.mode == "RGB" else image.convert("RGB"))


def _over_white(colors: Pixels, alpha: Pixels) -> Pixels:
    share = alpha.astype(np.uint16)[..., None]
    return ((colors * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)


def _deep_grey(image: Image.Image) -> Pixels:
    """Grey of more than 8 bits, or float, to RGB. The range comes from the file where it says so."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise Rejection("unsupported", "float pixels that are not finite")
    low, high = float(values.min()), float(values.max())
    if image.mode == "F":
        top = 1.0 if high <= 1 else 255.0
    else:
        bits = getattr(image, "tag_v2", {}).get(258, (16,))
        top = float(2 ** min(bits[0] if isinstance(bits, tuple) else bits, 16) - 1)
    if low < 0 or high > top:
        raise Rejection("unsupported", f"grey values from {low:g} to {high:g}: their range is not known")
    grey = np.round(values * (255 / top)).astype(np.uint8)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]


def _array(image: Image.Image) -> Pixels:
    return np.asarray(image)


@lru_cache(1)
def _srgb() -> Any:
    return ImageCms.createProfile("sRGB")


@lru_cache(64)
def conversion_to_srgb(profile: bytes, mode: str) -> Convert | None:
    """How pixels of a profile become sRGB; None when they are that already, or the profile cannot be used.

    `mode` is RGB or CMYK. Most files with a profile carry some vendor's sRGB: one whose colors all land within three
    levels of where they were is taken for it.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None

    def convert(pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        image = Image.frombytes(mode, (width, height), np.ascontiguousarray(pixels).data)
        if mode == "RGB":
            ImageCms.applyTransform(image, transform, inPlace=True)
            return np.asarray(image)
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None
        return np.asarray(converted)

    if mode == "RGB":
        steps = np.linspace(0, 255, 7).astype(np.uint8)
        cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(7, 49, 3)
        if np.abs(convert(cube).astype(int) - cube).max() <= 3:
            return None
    return convert
