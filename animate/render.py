"""The CPU renderer, the reference: a picture through its windows, uint8 to uint8.

Each frame is one bilinear warp of a copy of the picture that was low-pass filtered for the frame's scale. A box of s
source pixels, the right filter where s of them meet in one output pixel, has variance s^2 / 12. Bilinear sampling passes for
a box of one pixel (measured on photographs: contrast is then the ideal's), and a Gaussian of variance (s^2 - 1) / 12
supplies the rest; a picture at its own size stays itself. The frames of a clip share a few filtered copies, fine enough apart
that no step between two of them shows; one costs about as much as a warp.

Filter (8-bit fixed point in OpenCV), warp and dissolve (weights in 256ths, exact in any float) do not depend on threads,
vector instructions or OpenCV 4.x. Their bytes are RENDERER_VERSION 1; OpenCV 5 warps differently and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from animate.camera import windows
from animate.looks import apply_look
from animate.recipe import RENDERER_VERSION, Recipe
from configs import RequestError

Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]

SAMPLES_PER_PIXEL = 1.3  # a picture is decoded at half its size only where this much detail per output pixel is left
DEEPEST_LEVEL = 3  # of 1 / 2^level, the sizes at which libjpeg decodes cheaply

_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_MOST_COPIES = 6  # filtered copies a clip
_FINEST = 1 / 7  # octaves of scale between two copies of a zoom that needs fewer
_WEAKEST = 0.04  # octaves; a filter weaker than this would not show
_GRID = np.linspace(0.0, 1.0, 3)  # where in a frame its scale is taken, along either axis


class Warps(NamedTuple):
    """A clip as the renderer sees it, at 1 / 2^level of the recipe's picture.

    `matrices` (T, 2, 3, 3) map output pixel indices to picture pixel indices, `weights` (T,) are those of the second view,
    `strengths` (T, 2) those of the filters (0: none; see `kernel`).
    """

    matrices: Array
    weights: Array
    strengths: Array


class Renderer:
    """Renders clips one after another; keeps its buffers, since fresh memory costs as much as a warp."""

    def __init__(self) -> None:
        if not cv2.__version__.startswith("4."):
            raise RequestError(
                f"OpenCV {cv2.__version__} warps pictures differently; install opencv-python-headless>=4.10,<5"
            )
        cv2.setNumThreads(1)  # clips are the unit of parallel work
        self._copy = np.empty(0, np.uint8)
        self._second = np.empty((0, 0, 0, 3), np.uint8)

    def film(
        self, recipe: Recipe, load: Callable[[int], Pixels], frames: int, size: int, out: Pixels | None = None
    ) -> Pixels:
        """Frames uint8 (T, size, size, 3) of the picture that `load(level)` decodes at 1 / 2^level of its size.

        The level is 0 but for clips that shrink the picture in every frame. `out`, if given, is filled and returned: a
        maker of many clips saves the cost of fresh memory. ValueError when the recipe was drawn for another renderer.
        """
        level, warps = plan_warps(recipe, frames, size)
        return self._render(recipe, load(level), warps, size, out)

    def render(self, recipe: Recipe, picture: Pixels, frames: int, size: int) -> Pixels:
        """Frames uint8 (T, size, size, 3) of a picture uint8 (H, W, 3), RGB, in the size that the recipe was drawn for.

        What `film` makes, but for clips that shrink the whole picture so much that `film` would decode it smaller.
        """
        _, warps = plan_warps(recipe, frames, size, deepest=0)
        return self._render(recipe, picture, warps, size, None)

    def _render(self, recipe: Recipe, picture: Pixels, warps: Warps, size: int, out: Pixels | None) -> Pixels:
        clip: Pixels = np.empty((len(warps.weights), size, size, 3), np.uint8) if out is None else out
        assert clip.shape == (len(warps.weights), size, size, 3) and clip.flags.c_contiguous, clip.shape
        self._shoot(picture, warps.matrices[:, 0], warps.strengths[:, 0], clip)
        fading = np.flatnonzero(warps.weights)
        if len(fading):
            self._second.resize((len(fading), size, size, 3), refcheck=False)
            self._shoot(picture, warps.matrices[fading, 1], warps.strengths[fading, 1], self._second)
            for frame, second, weight in zip(fading, self._second, warps.weights[fading].tolist(), strict=True):
                share = round(256 * weight) / 256
                cv2.addWeighted(clip[frame], 1 - share, second, share, 0.0, clip[frame])
        return apply_look(recipe.look, clip) if recipe.look else clip

    def _shoot(self, picture: Pixels, matrices: Array, strengths: Array, out: Pixels) -> None:
        """Fill `out` (n, size, size, 3) through warps (n, 3, 3); frames by strength, one filtered copy at a time."""
        size = out.shape[1]
        repeats = [False, *(matrices[1:] == matrices[:-1]).all(axis=(1, 2)).tolist()]
        upright = (matrices[:, 2, :2] == 0).all(axis=1).tolist()
        for strength in dict.fromkeys(strengths.tolist()):
            mine = np.flatnonzero(strengths == strength)
            source, shifted = self._filter(picture, strength, matrices[mine], size)
            for t, matrix in zip(mine.tolist(), shifted, strict=True):
                if repeats[t]:  # the camera stands still
                    out[t] = out[t - 1]
                elif upright[t]:
                    cv2.warpAffine(source, matrix[:2], (size, size), out[t], _WARP, cv2.BORDER_REPLICATE)
                else:
                    cv2.warpPerspective(source, matrix, (size, size), out[t], _WARP, cv2.BORDER_REPLICATE)

    def _filter(self, picture: Pixels, strength: float, matrices: Array, size: int) -> tuple[Pixels, Array]:
        """The part of the picture that some warps see, low-passed, and the warps relative to that part."""
        if not strength:
            return picture, matrices
        taps, sigma = kernel(strength)
        left, top, right, bottom = _bounds(matrices, picture, size, margin=taps // 2 + 2)
        height, width = bottom - top, right - left
        if len(self._copy) < height * width * 3:
            self._copy = np.empty(height * width * 3, np.uint8)
        copy = self._copy[: height * width * 3].reshape(height, width, 3)
        cv2.GaussianBlur(picture[top:bottom, left:right], (taps, taps), sigma, copy, sigma, cv2.BORDER_REPLICATE)
        shifted = matrices.copy()
        shifted[:, 0] -= left * matrices[:, 2]
        shifted[:, 1] -= top * matrices[:, 2]
        return copy, shifted


def kernel(strength: float) -> tuple[int, float]:
    """Odd size and sigma of the Gaussian of a strength, which is log2 of the scale s that it is right for."""
    variance = (4.0**strength - 1) / 12
    if variance <= 0.5:
        # Three taps [a, 1 - 2a, a] have variance 2a; OpenCV makes them from a = e / (1 + 2e), e = exp(-1 / (2 sigma^2)).
        tap = variance / 2
        return 3, math.sqrt(-1 / (2 * math.log(tap / (1 - 2 * tap))))
    sigma = math.sqrt(variance)
    return 2 * math.ceil(3 * sigma) + 1, sigma


def plan_warps(recipe: Recipe, frames: int, size: int, deepest: int = DEEPEST_LEVEL) -> tuple[int, Warps]:
    """The level, `deepest` at most, at which to decode a recipe's picture, and the warps of its clip at that level.

    ValueError when the recipe was drawn for another renderer.
    """
    if recipe.renderer != RENDERER_VERSION:
        raise ValueError(f"the recipe is for renderer version {recipe.renderer}; this stillreel has {RENDERER_VERSION}")
    views, weights = windows(recipe, frames)
    scales = _scales(views, recipe.picture, size)
    level = min(deepest, _level(scales))
    return level, Warps(_in_pixels(views, recipe.picture, size, level), weights, _strengths(scales, weights, level))


def _in_pixels(views: Array, picture: tuple[int, int], size: int, level: int) -> Array:
    width, height = picture[0] / 2**level, picture[1] / 2**level
    # Windows lie between unit squares; the centres of pixels lie at their index + 1/2.
    outer = np.array([[width, 0, -0.5], [0, height, -0.5], [0, 0, 1.0]])
    inner = np.array([[1 / size, 0, 0.5 / size], [0, 1 / size, 0.5 / size], [0, 0, 1.0]])
    # Cosines and products differ in their last bits from processor to processor; a grid of 2^-30 hides that.
    return np.asarray(np.rint(outer @ views @ inner * 2**30) / 2**30)


def _strengths(scales: Array, weights: Array, level: int) -> Array:
    """Strengths of the filters (T, 2) for scales in pixels of the whole picture: at most _MOST_COPIES of them."""
    # Decoding at a smaller size has averaged already: a box of 2^level pixels, of which one pixel's box is the start.
    squared = scales**2 / 4**level - (1 - 4.0**-level)
    wanted = np.log2(np.maximum(squared, 1)) / 2
    wanted[:, 1] *= weights > 0
    wanted = np.rint(wanted * 1000) / 1000  # the last bits of a logarithm are each machine's own
    wanted[wanted < _WEAKEST] = 0
    values = np.unique(wanted[wanted > 0])
    if len(values) <= _MOST_COPIES:
        return np.asarray(wanted)
    lowest, span = values[0], values[-1] - values[0]
    copies = min(_MOST_COPIES, math.ceil(span / _FINEST))
    place = np.minimum(np.floor((wanted - lowest) / span * copies), copies - 1)
    return np.where(wanted > 0, lowest + (place + 0.5) * span / copies, 0.0)


def _scales(views: Array, picture: tuple[int, int], size: int) -> Array:
    """Picture pixels per output pixel of windows (T, 2, 3, 3): the root mean square over the frame, (T, 2).

    In perspective the scale differs from pixel to pixel, by at most a sixth to either side of this at the steepest angle
    of `film`: one filter serves the frame.
    """
    unit = picture[0] * picture[1] / size**2
    if not views[..., 2, :2].any():
        area = views[..., 0, 0] * views[..., 1, 1] - views[..., 0, 1] * views[..., 1, 0]
        return np.asarray(np.sqrt(np.abs(area) * unit))
    # The Jacobian's determinant at a point is the matrix's over the cube of the point's depth.
    across, down, middle = views[..., 2, 0], views[..., 2, 1], views[..., 2, 2]
    depths = (across[..., None] * _GRID)[..., None] + (down[..., None] * _GRID)[..., None, :] + middle[..., None, None]
    area = np.abs(_determinants(views)) * (np.abs(depths) ** -3.0).mean(axis=(-2, -1))
    return np.asarray(np.sqrt(area * unit))


def _determinants(m: Array) -> Any:
    """Of (..., 3, 3); plain products, whose rounding no linear algebra library decides."""
    return (
        m[..., 0, 0] * (m[..., 1, 1] * m[..., 2, 2] - m[..., 1, 2] * m[..., 2, 1])
        - m[..., 0, 1] * (m[..., 1, 0] * m[..., 2, 2] - m[..., 1, 2] * m[..., 2, 0])
        + m[..., 0, 2] * (m[..., 1, 0] * m[..., 2, 1] - m[..., 1, 1] * m[..., 2, 0])
    )


def _level(scales: Array) -> int:
    """How often the picture may be halved while it is decoded."""
    spare = float(scales.min()) / SAMPLES_PER_PIXEL
    return int(math.log2(spare)) if spare >= 2 else 0


def _bounds(matrices: Array, picture: Pixels, size: int, margin: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the part of a picture that warps (n, 3, 3) read, and a margin around it."""
    last = size - 1.0
    corners = matrices @ np.array([[0, last, last, 0], [0, 0, last, last], [1, 1, 1, 1.0]])
    x, y = corners[:, 0] / corners[:, 2], corners[:, 1] / corners[:, 2]
    height, width = picture.shape[:2]
    return (
        max(0, math.floor(x.min()) - margin),
        max(0, math.floor(y.min()) - margin),
        min(width, math.ceil(x.max()) + 1 + margin),
        min(height, math.ceil(y.max()) + 1 + margin),
    )
