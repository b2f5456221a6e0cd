"""The perceptual hash of a picture: 64 bits of which few change when it is encoded again, resized, or cropped by a few percent.

    a grid of up to 128 x 128 pixels -> the 64 lowest frequencies of its cosine transform, but the mean -> their signs

Two pictures are near duplicates when their hashes differ in few bits; two that have nothing to do with each other differ in 32
of 64 on average. All arithmetic is of integers (in floats that hold them exactly), so that every machine finds the same bits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_MOST_POINTS = 128  # along a side
_SCALE = 127  # of a cosine: sums along a column stay below 2^24, where float32 ends to be exact
# (u, v), horizontal and vertical: waves from edge to edge are two of these.
_WAVES = sorted(
    ((u, v) for u in range(9) for v in range(9) if u or v), key=lambda wave: (wave[0] ** 2 + wave[1] ** 2, wave)
)
_CHOSEN = np.array([9 * v + u for u, v in _WAVES[:64]])


def perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    """Of RGB uint8 (H, W, 3), as a signed 64-bit integer. Sees the green channel alone, which is most of luma."""
    height, width = pixels.shape[:2]
    (down, rows, _), (across, _, columns) = _sampling(height), _sampling(width)
    grid = pixels[down // 2 :: down, across // 2 :: across, 1].astype(np.float32)
    waves = (rows @ grid).astype(np.float64) @ columns
    return int.from_bytes(np.packbits(waves.take(_CHOSEN) > 0).tobytes(), "big", signed=True)


@lru_cache(2048)
def _sampling(side: int) -> tuple[int, NDArray[np.float32], NDArray[np.float64]]:
    """Every how many pixels of a side one is taken, and the cosines (9, n) at those n points, also as (n, 9).

    They are integers that add up to 0 but for the first, lest brightness count: sums are rounded, not cosines.
    """
    step = -(-side // _MOST_POINTS)
    points = np.arange(step // 2, side, step) + 0.5
    cosines = _SCALE * np.cos(np.pi / side * np.outer(np.arange(9), points))
    cosines[1:] -= cosines[1:].mean(axis=1, keepdims=True)
    rounded = np.diff(np.round(np.cumsum(cosines, axis=1)), axis=1, prepend=0)
    return step, rounded.astype(np.float32), np.ascontiguousarray(rounded.T)
