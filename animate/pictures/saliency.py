"""What a picture is about, as one point: where a view would hold most of what differs from its surroundings.

    a grid of up to 24 x 24 cells -> how much the few cells about each differ in color from the many about it
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
_CENTER, _SURROUND = 3, 11  # sides, in cells
_REACH = 0.35  # of the view that is placed, to either side of its middle, in short sides
_BITS = 4, 12  # dropped of a contrast, and of the weights that it is given then, so that 32 bits hold sums of it


def salient_point(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """The point (x, y), in pixels, of RGB uint8 (H, W, 3); of a picture that is the same everywhere its middle."""
    height, width = pixels.shape[:2]
    step = -(-max(height, width) // (2 * _CELLS))
    samples = pixels[step // 2 :: step].take(np.arange(step // 2, width, step), axis=1)  # in half the time of a slice
    rows, columns = samples.shape[0] // 2, samples.shape[1] // 2
    if not rows or not columns:  # a line of pixels
        return width // 2, height // 2
    # By halves, areas are (a + b + c + d + 2) >> 2.
    halved = cv2.resize(samples[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
    cells = np.asarray(halved, np.uint8)
    center, surround = _box_sums(cells, _CENTER), _box_sums(cells, _SURROUND)
    red, green, blue = cv2.split(cv2.absdiff(center * _SURROUND**2, surround * _CENTER**2))
    held = ((red + green + blue) >> _BITS[0]) * _weights(rows, columns) >> _BITS[1]
    side = int(_REACH * min(rows, columns)) | 1
    for _ in range(2):  # two boxes make a tent, and what lies beyond the edges counts as nothing
        held = _box_sums(held, side, cv2.BORDER_CONSTANT)
    row, column = divmod(int(held.argmax()), columns)
    if not held[row, column]:
        return width // 2, height // 2
    cell = 2 * step
    return min(column * cell + cell // 2, width - 1), min(row * cell + cell // 2, height - 1)


def _box_sums(grid: NDArray[np.uint8] | Cells, side: int, edge: int = cv2.BORDER_REFLECT_101) -> Cells:
    """The sum of the side x side values about each; `side` is odd."""
    return np.asarray(cv2.boxFilter(grid, cv2.CV_32S, (side, side), normalize=False, borderType=edge), np.int32)


@lru_cache(256)
def _weights(rows: int, columns: int) -> Cells:
    """2^12 in the middle, falling as parabolas to about a quarter at the middle of an edge."""
    down, across = ((4 * n * n - 3 * (2 * np.arange(n) + 1 - n) ** 2) * 16 // (n * n) for n in (rows, columns))
    return np.outer(down, across).astype(np.int32)
