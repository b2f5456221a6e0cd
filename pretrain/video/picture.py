"""A picture as a clip: the same frame all the time, which is what a still is to a video model."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from stillreel.configs import DataError
from stillreel.configs.video import VideoSettings
from stillreel.pretrain.video.pixels import Fit, fitted

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\0", b"MM\0*")


def is_picture(file: Path) -> bool:
    """Whether a file begins as pictures do. A GIF is a video."""
    with file.open("rb") as handle:
        start = handle.read(12)
    return start.startswith(_STARTS) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def frames_of_picture(data: bytes, settings: VideoSettings) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Frames uint8 (T, size, size, 3) and mask (T,), cut and resized as frames of videos are. DataError for no picture."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            if opened.width * opened.height > settings.max_pixels:
                raise DataError(
                    f"the picture has {opened.width} x {opened.height} pixels; at most {settings.max_pixels:,} are read"
                )
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"no picture that can be read: {error}") from None
    frame = fitted(np.asarray(picture, np.uint8), settings.size, Fit.asked(settings))
    return np.repeat(frame[None], settings.frames, axis=0), np.ones(settings.frames, np.bool_)
