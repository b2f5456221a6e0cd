"""What a picture is about, as one point: where a view would hold most of what differs from its surroundings.

    a grid of up to 24 x 24 cells -> how much the few cells about each differ in color from the many about it, at two scales
    -> the more the nearer the middle, where whoever took the picture had it -> where a view would hold most of that

All arithmetic is of integers, so that every machine finds the same point. It knows neither faces nor captions.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.int32]

_CELLS = 24  # along the longer side
_SAMPLES = 3  # of a cell along an axis: odd, so that one is its middle
_SMALL, _LARGE = (3, 9), (5, 17)  # sides of a center and its surround, in cells
_AS_LARGE = 10  # makes the small scale's sums as large as the large one's, nearly: 25 * 289 / (9 * 81)
_REACH = 0.35  # of the view that is placed, to either side of its middle, in short sides
_BITS = 12  # dropped of a contrast, and of the weights that it is given then, so that 32 bits hold sums of it


def salient_point(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """The point (x, y), in pixels, of RGB uint8 (H, W, 3); of a picture that is the same everywhere its middle."""
    height, width = pixels.shape[:2]
    step = -(-max(height, width) // (_CELLS * _SAMPLES))
    samples = pixels[step // 2 :: step].take(np.arange(step // 2, width, step), axis=1)  # in half the time of a slice
    cells = _box_sums(samples, _SAMPLES)[_SAMPLES // 2 :: _SAMPLES, _SAMPLES // 2 :: _SAMPLES]
    held = (_contrast(cells, *_SMALL) * _AS_LARGE + _contrast(cells, *_LARGE)) >> _BITS
    held = (held * _weights(*held.shape)) >> _BITS
    side = int(_REACH * min(held.shape)) | 1
    for _ in range(2):  # two boxes make a tent, and what lies beyond the edges counts as nothing
        held = _box_sums(held, side, cv2.BORDER_CONSTANT)
    if not held.any():
        return width // 2, height // 2
    row, column = divmod(int(held.argmax()), held.shape[1])
    cell = _SAMPLES * step
    return min(column * cell + cell // 2, width - 1), min(row * cell + cell // 2, height - 1)


def _contrast(cells: Cells, center: int, surround: int) -> Cells:
    """How much the mean color about each cell differs from that of its surround, times the areas of both; (rows, columns)."""
    apart = cv2.absdiff(_box_sums(cells, center) * surround**2, _box_sums(cells, surround) * center**2)
    red, green, blue = cv2.split(apart)
    return np.asarray(red + green + blue, np.int32)


def _box_sums(grid: NDArray[np.uint8] | Cells, side: int, edge: int = cv2.BORDER_REFLECT_101) -> Cells:
    """The sum of the side x side values about each; `side` is odd."""
    return np.asarray(cv2.boxFilter(grid, cv2.CV_32S, (side, side), normalize=False, borderType=edge), np.int32)


@lru_cache(256)
def _weights(rows: int, columns: int) -> Cells:
    """2^_BITS in the middle, falling as parabolas to about a quarter at the middle of an edge."""
    down, across = ((4 * n * n - 3 * (2 * np.arange(n) + 1 - n) ** 2) * 16 // (n * n) for n in (rows, columns))
    return np.outer(down, across).astype(np.int32)
