"""The low-pass filters of frames: which detail of a picture a frame of it can hold. Weights are small integers.

The ideal is the mean over each output pixel's square of the picture, reconstructed by Catmull-Rom splines. For a frame that
lies straight in its picture that filter is separable, and `taps` are it. For one that is turned or in perspective, `kernel`
is a Gaussian that brings a bilinear sample near it.

A strength is log2 of the scale that a filter is right for: how many picture pixels meet in an output pixel.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PHASES = 64  # positions between two pixels that are told apart
UNIT = 128  # what the taps of a position sum to; sums over (pixel - 128) then fit 16 bits
STEPS_AN_OCTAVE = 64  # of `taps`: a box within half a percent of the frame's own
_LEAST_BOX = 0.25  # pixels; a smaller one is a point


class Taps(NamedTuple):
    """`weights` int16 (PHASES, K), K even and at least 6, of pixels `first`, `first` + 1, ... from that at or before a position.

    A row belongs to the position's distance from that pixel, in parts of PHASES, and sums to UNIT.
    """

    first: int
    weights: NDArray[np.int16]


@lru_cache(1024)
def taps(strength: float) -> Taps:
    """The filter of a straight frame along one axis: a box of 2^strength pixels over the Catmull-Rom reconstruction."""
    box = max(round(2.0**strength * 2**20) / 2**20, _LEAST_BOX)  # the last bits of a power are each machine's own
    reach = math.ceil(2 + box / 2)
    pixels = np.arange(-reach, reach + 2)
    phases = np.arange(PHASES)[:, None] / PHASES
    exact = UNIT * (_integral(phases + box / 2 - pixels) - _integral(phases - box / 2 - pixels)) / box
    weights = np.rint(exact)
    # Each row keeps its sum: what rounding took or gave goes to the largest, where it shows least.
    largest = weights.argmax(axis=1)
    weights[np.arange(PHASES), largest] += UNIT - weights.sum(axis=1)
    used = np.flatnonzero(weights.any(axis=0))
    first, count = int(used[0]), int(used[-1] - used[0]) + 1
    padded = np.zeros((PHASES, max(count + count % 2, 6)), np.int16)
    padded[:, :count] = weights[:, first : first + count]
    return Taps(int(pixels[first]), padded)


def _integral(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the Catmull-Rom kernel, from 0; odd, and 1/2 from 2 on."""
    x = np.minimum(np.abs(at), 2.0)
    near = ((0.375 * x - 2.5 / 3) * x * x + 1) * x
    far = ((-0.125 * x + 2.5 / 3) * x - 2) * x * x + 2 * x - 1 / 6
    return np.asarray(np.sign(at) * np.where(x < 1, near, far))


def kernel(strength: float) -> tuple[int, float]:
    """Odd size and sigma of the Gaussian after which bilinear samples are right for a strength above 0.

    A box of s pixels has variance s^2 / 12. Bilinear sampling passes for a box of one pixel (measured on photographs:
    contrast is then the ideal's), and a Gaussian of variance (s^2 - 1) / 12 supplies the rest.
    """
    variance = (4.0**strength - 1) / 12
    if variance <= 0.5:
        # Three taps [a, 1 - 2a, a] have variance 2a; OpenCV makes them from a = e / (1 + 2e), e = exp(-1 / (2 sigma^2)).
        tap = variance / 2
        return 3, math.sqrt(-1 / (2 * math.log(tap / (1 - 2 * tap))))
    sigma = math.sqrt(variance)
    return 2 * math.ceil(3 * sigma) + 1, sigma
