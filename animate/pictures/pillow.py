"""The slow way to pixels, for all that is no plain color JPEG: any format, mode, profile and orientation, by Pillow.

Whatever the bytes are, the outcome is correct upright sRGB, or a Rejection that names what is wrong.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin, UnidentifiedImageError

from stillreel.animate.pictures.claims import check_claims, jpeg2000_tables, tiff_directory
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
_OWN_BYTES_PER_PIXEL = 8.0  # of it: Pillow's picture, and ours beside it
_STRIP = 1 << 20  # pixels that are converted at a time
_MOST_PROFILE = 4 << 20  # bytes; they are kept, to be recognized
_MOST_EXIF = 1 << 20

_MAGIC = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\1\0": "ICO",
}
# Pictures all the same, of kinds that are not decoded here.
_OTHER_KINDS = {
    b"8BPS": "Photoshop",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"II\xbc": "JPEG XR",
    b"BPG\xfb": "BPG",
    b"DDS ": "DDS",
    b"#?RADIANCE": "Radiance HDR",
    b"#?RGBE": "Radiance HDR",
    b"v/1\x01": "OpenEXR",
    b"P7\n": "PAM",
    b"P7 ": "PAM",
    b"\0\0\2\0": "Windows cursor",
    b"\x01\xda": "SGI",
    b"\x59\xa6\x6a\x95": "Sun raster",
    b"icns": "ICNS",
    b"SIMPLE  =": "FITS",
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
    b"\xd7\xcd\xc6\x9a": "WMF",
}
_LOSSLESS_JPEG = (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF)
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_TIFF_BITS, _TIFF_SAMPLES, _TIFF_ROWS, _TIFF_TILE = 258, 277, 278, (322, 323)
_TIFF_COLORS, _TIFF_PLANES, _TIFF_PALETTE, _TIFF_FORMAT = 262, 284, 320, 339
_WHITE_IS_ZERO, _YCBCR, _SEPARATE, _SIGNED = 0, 6, 2, 2
_TIFF_COMPRESSION, _OPTIONAL_COMPRESSIONS = 259, {34925: "LZMA", 50000: "Zstandard", 50001: "WebP"}
_ORIENTATION = 0x0112

_TURNS: dict[int, Callable[[Any], Any]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


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
    def decode_bytes(self) -> float:
        """What decoding it takes beside the file."""
        pixels = self.size[0] * self.size[1]
        per_pixel = _BYTES_PER_PIXEL.get(self._image.format or "", _BYTES_PER_PIXEL_ELSE)
        with _rejecting(self._data):
            tables = jpeg2000_tables(self._data) if self._image.format == "JPEG2000" else 0.0
            return max(per_pixel * pixels, _OWN_BYTES_PER_PIXEL * pixels + 2 * self._chunk()) + tables

    def pixels(self) -> Pixels:
        """Decode the first frame to upright sRGB, (H, W, 3); Rejection when it cannot be done whole."""
        with _rejecting(self._data):
            self._load()
            colors = _to_rgb(self._image)
            orientation = _orientation(self._image)
            del self._image  # before there is another copy
            return turned(colors, orientation)

    def _chunk(self) -> float:
        """Bytes of the piece that a compressed TIFF is decoded by, which it chooses itself."""
        tags: Mapping[int, Any] = getattr(self._image, "tag_v2", {})
        if tags.get(_TIFF_COMPRESSION, 1) == 1:
            return 0.0
        across, down = (tags.get(tag) for tag in _TIFF_TILE)
        if across is None or down is None:
            across, down = self.size[0], min(tags.get(_TIFF_ROWS, self.size[1]), self.size[1])
        return float(across * down * tags.get(_TIFF_SAMPLES, 1) * _depth(self._image) / 8)

    def _load(self) -> None:
        try:
            self._image.load()
        except OSError:
            compression = _tag(self._image, _TIFF_COMPRESSION)
            if compression in _OPTIONAL_COMPRESSIONS:
                name = _OPTIONAL_COMPRESSIONS[compression]
                raise Rejection(
                    "unsupported", f"TIFF with {name} compression, which this Pillow lacks or which is damaged"
                ) from None
            raise
        palette = getattr(self._image, "tag_v2", {}).get(_TIFF_PALETTE)
        if palette and self._image.mode in ("P", "PA") and max(palette) < 256:  # of 8 bits, against the book
            self._image.putpalette(bytes(palette), "RGB;L")


def open_picture(data: bytes) -> OpenPicture:
    """Read the header of any picture; Rejection when the bytes are none, or of a kind that is not decoded here."""
    with _rejecting(data):
        check_claims(data)
        image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if _tag(image, _TIFF_PLANES) == _SEPARATE or _tag(image, _TIFF_COLORS) == _YCBCR:
            image = _open_by_libtiff(data)
        if _tag(image, _TIFF_FORMAT) == _SIGNED:
            raise Rejection("unsupported", "TIFF of signed samples: their range is not known")
        return OpenPicture(image, data)


def _open_by_libtiff(data: bytes) -> Image.Image:
    """A TIFF of planes, or of halved colors, which Pillow itself takes for another kind where it is not compressed."""
    TiffImagePlugin.READ_LIBTIFF = True
    try:
        return Image.open(io.BytesIO(data), formats=("TIFF",))
    finally:
        TiffImagePlugin.READ_LIBTIFF = False


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
        if said.startswith(("Unsupported BMP", "unknown raw mode")):
            raise Rejection("unsupported", said) from None
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
    other = next((kind for mark, kind in _OTHER_KINDS.items() if head.startswith(mark)), None)
    if other is None and b"<svg" in data[:1024].lower():
        other = "SVG"
    if other is not None:
        return Rejection("unsupported", f"{other} is not decoded here; convert it to JPEG or PNG")
    header = read_header(data)
    if header is not None and header.process in _LOSSLESS_JPEG:
        return Rejection("unsupported", "lossless or hierarchical JPEG is not decoded here")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Rejection("corrupt", "WebP whose header makes no sense")
    for mark, kind in _MAGIC.items():
        if head.startswith(mark) and len(data) > len(mark):
            if _has_sound_header(data):
                return Rejection("unsupported", f"{kind} of a kind that is not decoded here; convert it to JPEG or PNG")
            return Rejection("corrupt", f"{kind} whose header makes no sense")
    return Rejection("not_an_image", f"{len(data)} bytes that begin with {head[:8]!r}")


def _has_sound_header(data: bytes) -> bool:
    """Whether a TIFF's first directory, or a BMP's header, is one: then it is Pillow that does not know the kind."""
    if data[:2] != b"BM":
        return bool(tiff_directory(data))
    try:
        offset, size = struct.unpack_from("<II", data, 10)
    except struct.error:
        return False
    return size in _BMP_HEADERS and 14 + size <= offset <= len(data)


def _tag(image: Image.Image, number: int) -> Any:
    """A TIFF's tag, of the first sample where it is of each; None where there is none."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) and value else value


def _depth(image: Image.Image) -> int:
    """Bits of a sample, where the file says so; 16 else."""
    return int(_tag(image, _TIFF_BITS) or 16)


def _orientation(image: Image.Image) -> Any:
    if len(image.info.get("exif") or b"") > _MOST_EXIF:
        return 1
    try:
        return image.getexif().get(_ORIENTATION)
    except (ValueError, TypeError, KeyError, SyntaxError, OSError, ArithmeticError):
        return 1  # EXIF that cannot be read turns nothing


def turned(pixels: Pixels, orientation: Any) -> Pixels:
    """Pixels upright, by an orientation of EXIF; as they are where it makes no sense."""
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return np.asarray(turn(pixels), np.uint8) if turn else pixels


def strips(height: int, width: int) -> Iterator[slice]:
    """The rows of a picture, some at a time: what converts them then needs little memory."""
    rows = max(1, _STRIP // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _to_rgb(image: Image.Image) -> Pixels:
    width, height = image.size
    profile = image.info.get("icc_profile")
    is_negative = _tag(image, _TIFF_COLORS) == _WHITE_IS_ZERO  # of less bits, Pillow turned it
    is_deep = image.mode.startswith("I") or image.mode == "F"
    colors = np.empty((height, width, 3), np.uint8)
    top = _top(image) if is_deep else 0
    for rows in strips(height, width):
        strip = image.crop((0, rows.start, width, rows.stop))
        colors[rows] = _managed(_shallow(strip, top, is_negative), profile) if is_deep else _colors(strip, profile)
    return colors


def _colors(image: Image.Image, profile: bytes | None) -> Pixels:
    """Of any mode of 8 bits."""
    if image.mode == "LAB":
        return _array(ImageCms.applyTransform(image, _lab_to_srgb()))
    if image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        is_gray = image.mode in ("LA", "La", "L", "1")  # L and 1 where a PNG names a transparent gray
        colors = _managed(layered.convert("L" if is_gray else "RGB"), profile)
        return _over_white(colors, np.asarray(layered.getchannel("A")))
    if image.mode in ("1", "L"):
        return _managed(image.convert("L"), profile)
    return _managed(image if image.mode in ("RGB", "CMYK") else image.convert("RGB"), profile)


def _managed(image: Image.Image, profile: bytes | None) -> Pixels:
    """RGB, CMYK or gray (L) to sRGB, by its profile where it has a usable one."""
    convert = conversion_to_srgb(profile, image.mode) if profile else None
    if convert is not None:
        return convert(np.asarray(image))
    return _array(image if image.mode == "RGB" else image.convert("RGB"))


def _over_white(colors: Pixels, alpha: Pixels) -> Pixels:
    share = alpha.astype(np.uint16)[..., None]
    return ((colors * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)


def _top(image: Image.Image) -> float:
    """The value that is white, of gray of more than 8 bits or float; it comes from the file where it says so."""
    low, high = np.inf, -np.inf
    for rows in strips(image.height, image.width):
        values = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
        if not np.isfinite(values).all():
            raise Rejection("unsupported", "float pixels that are not finite")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    top = (1.0 if high <= 1 else 255.0) if image.mode == "F" else float(2 ** min(_depth(image), 16) - 1)
    if low < 0 or high > top:
        raise Rejection("unsupported", f"gray values from {low:g} to {high:g}: their range is not known")
    return top


def _shallow(image: Image.Image, top: float, is_negative: bool) -> Image.Image:
    """Gray of values up to `top`, as 8 bits."""
    gray = np.round(np.asarray(image).astype(np.float64) * (255 / top)).astype(np.uint8)
    return Image.fromarray(255 - gray if is_negative else gray)


def _array(image: Image.Image | None) -> Pixels:
    assert image is not None
    return np.asarray(image)


@lru_cache(1)
def _srgb() -> Any:
    return ImageCms.createProfile("sRGB")


@lru_cache(1)
def _lab_to_srgb() -> Any:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB")


def conversion_to_srgb(profile: bytes, mode: str) -> Convert | None:
    """How pixels of a profile become sRGB; None when they are that already, or the profile cannot be used.

    `mode` is RGB, CMYK or L (gray). Most files with a profile carry some vendor's sRGB: one whose colors all land within three
    levels of where they were is taken for it.
    """
    return _conversion(profile, mode) if len(profile) <= _MOST_PROFILE else None


@lru_cache(16)
def _conversion(profile: bytes, mode: str) -> Convert | None:
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
        return _array(ImageCms.applyTransform(image, transform))

    if mode == "L":
        ramp = np.arange(256, dtype=np.uint8)[None]
        if np.abs(convert(ramp).astype(int) - ramp[..., None]).max() <= 3:
            return None
    if mode == "RGB":
        steps = np.linspace(0, 255, 7).astype(np.uint8)
        cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(7, 49, 3)
        if np.abs(convert(cube).astype(int) - cube).max() <= 3:
            return None
    return convert
