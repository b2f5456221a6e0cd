"""Frames that lie straight in their picture, each in two passes of compiled code: columns first, then rows.

A row of output is a weighted sum of whole rows of pixels, which processors do 32 values at a time; so the picture is
turned once a clip, and what the first pass leaves is turned back for the second. This is the box filter over the
picture's reconstruction, mostly for less than a bilinear warp costs (benchmarks/renderer.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np
from numba import int16, njit
from numpy.typing import NDArray

from stillreel.animate.render.filters import PHASES, UNIT, taps
from stillreel.configs.system.memory import PixelMemory

Pixels = NDArray[np.uint8]

_BITS = UNIT.bit_length() - 1
_PHASE_BITS = PHASES.bit_length() - 1
_MIDDLE = 128
# Sums are of weight x (pixel - 128): they fit 16 bits where sums of weight x pixel do not, and overflow on the way is undone.
_START = UNIT // 2 - UNIT * _MIDDLE


class StraightRenderer:
    """Renders the straight frames of one clip after another; keeps its buffers."""

    def __init__(self) -> None:
        self._turned, self._columns, self._rows = PixelMemory(), PixelMemory(), PixelMemory()

    def render(
        self, picture: Pixels, matrices: NDArray[np.float64], strengths: NDArray[np.float64], out: Iterable[Pixels]
    ) -> None:
        """Fill the frames uint8 (S, S, 3) of `out` from a picture uint8 (H, W, 3), RGB.

        Through `matrices` (n, 3, 3), which only move, scale and mirror, and `taps` of `strengths` (n,).
        """
        frames = list(out)
        size = len(frames[0])
        filters = [taps(strength) for strength in strengths.tolist()]
        firsts = np.array([first for first, _ in filters])
        counts = np.array([weights.shape[1] for _, weights in filters])
        across, down = (_places(matrices, axis, size, firsts) for axis in (0, 1))
        lefts, rights = _spans(across, counts, picture.shape[1])
        tops, bottoms = _spans(down, counts, picture.shape[0])
        left, top, right, bottom = int(lefts.min()), int(tops.min()), int(rights.max()), int(bottoms.max())
        turned = self._turned.shaped(right - left, bottom - top)
        cv2.transpose(picture[top:bottom, left:right], turned)
        across -= left << _PHASE_BITS
        down -= tops[:, None] << _PHASE_BITS
        starts, heights = (3 * (tops - top)).tolist(), (bottoms - tops).tolist()
        for frame, (_, weights), x, y, start, height in zip(
            frames, filters, across, down, starts, heights, strict=True
        ):
            mix: Callable[..., None] = _MIXES.get(weights.shape[1], _mix_pairs)
            columns, rows = self._columns.shaped(size, height), self._rows.shaped(height, size)
            mix(_flat(turned), start, x, weights, _flat(columns))
            cv2.transpose(columns, rows)
            mix(_flat(rows), 0, y, weights, _flat(frame))


def _places(matrices: NDArray[np.float64], axis: int, size: int, firsts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first pixel that each output column (axis 0) or row (1) reads, in parts of PHASES, int64 (n, S)."""
    exact = matrices[:, axis, axis, None] * np.arange(size) + matrices[:, axis, 2, None]
    return np.rint(exact * PHASES).astype(np.int64) + firsts[:, None] * PHASES


def _spans(
    places: NDArray[np.int64], counts: NDArray[np.int64], length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first pixel that each frame's taps read along an axis, and the one after the last, int64 (n,); at least one."""
    ends = places[:, [0, -1]] >> _PHASE_BITS
    firsts = np.clip(ends.min(axis=1), 0, length - 1)
    return firsts, np.clip(ends.max(axis=1) + counts, firsts + 1, length)


def _flat(pixels: Pixels) -> Pixels:
    return pixels.reshape(len(pixels), -1)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use, once for all processes where a cache can be kept."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(nogil=True)(function)


def _mixer(count: int) -> Callable[..., None]:
    """The sum of six or eight rows, all in one loop: it takes a third of the time of pair after pair."""

    @_compiled
    def mix(source, start, places, weights, out):  # type: ignore[no-untyped-def]
        """Each row of `out` uint8 (S, n) is a weighted sum of rows of `source` uint8 (N, m), from byte `start` of each on.

        Row i takes `count` rows from number `places[i]` >> 6 on, by the `weights` (PHASES, count) of phase `places[i]` & 63;
        outside, the first and last rows are repeated.
        """
        last, end = len(source) - 1, start + out.shape[1]
        for i in range(len(places)):
            at = places[i] >> _PHASE_BITS
            a = source[min(max(at, 0), last), start:end]
            b = source[min(max(at + 1, 0), last), start:end]
            c = source[min(max(at + 2, 0), last), start:end]
            d = source[min(max(at + 3, 0), last), start:end]
            e = source[min(max(at + 4, 0), last), start:end]
            f = source[min(max(at + 5, 0), last), start:end]
            g = source[min(max(at + 6, 0), last), start:end]
            h = source[min(max(at + 7, 0), last), start:end]
            taps = weights[places[i] & (PHASES - 1)]
            q, r, s, t, u, v, w, x = taps[0], taps[1], taps[2], taps[3], taps[4], taps[5], taps[-2], taps[-1]
            row = out[i]
            for j in range(len(row)):
                total = int16(int16(int16(_START) + int16(a[j] * q)) + int16(b[j] * r))
                total = int16(int16(total + int16(c[j] * s)) + int16(d[j] * t))
                total = int16(int16(total + int16(e[j] * u)) + int16(f[j] * v))
                if count == 8:  # known when this is compiled
                    total = int16(int16(total + int16(g[j] * w)) + int16(h[j] * x))
                row[j] = min(max(int16(total >> int16(_BITS)) + int16(_MIDDLE), int16(0)), int16(255))

    return mix


@_compiled
def _mix_pairs(source, start, places, weights, out):  # type: ignore[no-untyped-def]
    """What `_mixer` makes, for any even number of rows."""
    last, end = len(source) - 1, start + out.shape[1]
    sums = np.empty(out.shape[1], np.int16)
    for i in range(len(places)):
        at = places[i] >> _PHASE_BITS
        taps = weights[places[i] & (PHASES - 1)]
        sums[:] = _START
        for k in range(0, len(taps), 2):
            a = source[min(max(at + k, 0), last), start:end]
            b = source[min(max(at + k + 1, 0), last), start:end]
            t, u = taps[k], taps[k + 1]
            for j in range(len(sums)):
                sums[j] = int16(sums[j] + int16(int16(a[j] * t) + int16(b[j] * u)))
        row = out[i]
        for j in range(len(row)):
            row[j] = min(max(int16(sums[j] >> int16(_BITS)) + int16(_MIDDLE), int16(0)), int16(255))


_MIXES = {6: _mixer(6), 8: _mixer(8)}  # enough for boxes of up to 5 pixels
