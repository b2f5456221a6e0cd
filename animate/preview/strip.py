"""Pixels for a page: pictures as data URLs, and a clip's frames side by side in one of them."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

_MOST_FRAMES = 24
_QUALITY = 72


class Strip(NamedTuple):
    """A picture as wide as its `frames`: base.css plays it by moving it behind a window one frame wide."""

    url: str
    frames: int


def make_strip(frames: Pixels, side: int) -> Strip:
    """Of frames uint8 (T, H, W, 3) at most 24, evenly spread, as squares of `side` pixels."""
    shown = frames[_spread(len(frames), _MOST_FRAMES)]
    strip = np.concatenate([shrunk(frame, (side, side)) for frame in shown], axis=1)
    return Strip(data_url(strip, _QUALITY), len(shown))


def shrunk(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """A picture at (width, height)."""
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def data_url(pixels: Pixels, quality: int) -> str:
    """A picture as WebP, in a URL that holds it."""
    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(sink, "WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(sink.getvalue()).decode()}"


def _spread(count: int, most: int) -> list[int]:
    """Indices of at most `most` of `count` frames, evenly spread, with the first and the last."""
    return sorted({round(index) for index in np.linspace(0, count - 1, min(count, most))})
