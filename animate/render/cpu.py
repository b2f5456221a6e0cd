"""The CPU renderer, the reference: a picture through its windows, uint8 to uint8.

A frame that lies straight in its picture, as most do, is the picture's mean over each output pixel, exact for its scale
(`straight`). A frame that is turned or in perspective is one bilinear warp of a copy of the picture that a Gaussian
low-passed for the frame's scale; the frames of a clip share a few copies, fine enough apart that no step between two of them
shows, since one costs about as much as a warp.

Filters (small integers), warp (OpenCV's, in fixed point) and dissolve (weights in 256ths, exact in any float) do not depend
on threads, vector instructions or OpenCV 4.x. Their bytes are RENDERER_VERSION; OpenCV 5 warps differently and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from stillreel.animate.camera.recipe import RENDERER_VERSION, Recipe
from stillreel.animate.camera.windows import windows
from stillreel.animate.render.filters import STEPS_AN_OCTAVE, kernel
from stillreel.animate.render.looks import apply_look
from stillreel.configs import RequestError
from stillreel.configs.system.memory import PixelMemory

if TYPE_CHECKING:
    from stillreel.animate.render.straight import StraightRenderer

Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]

SAMPLES_PER_PIXEL = 1.3  # a picture is decoded at half its size only where this much detail per output pixel is left
DEEPEST_LEVEL = 3  # of 1 / 2^level, the sizes at which libjpeg decodes cheaply

_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_MOST_COPIES = 6  # filtered copies a clip
_FINEST = 1 / 7  # octaves of scale between two copies of a zoom that needs fewer
_WEAKEST = 0.04  # octaves; a filter weaker than this would not show
_LEAST = 1 / 16  # of a squared scale: a smaller box is a point
_GRID = np.linspace(0.0, 1.0, 3)  # where in a frame its scale is taken, along either axis


class Warps(NamedTuple):
    """A clip as the renderer sees it, at 1 / 2^level of the recipe's picture.

    `matrices` (T, 2, 3, 3) map output pixel indices to picture pixel indices, `weights` (T,) are those of the second view,
    `strengths` (T, 2) those of its filters: of `filters.taps` where a view is straight, else of `filters.kernel` (0: none).
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
        self._copy = PixelMemory()
        self._second = np.empty((0, 0, 0, 3), np.uint8)

    @cached_property
    def _straight(self) -> StraightRenderer:
        # Compiling takes half a second to import, and is not needed where a device renders.
        from stillreel.animate.render.straight import StraightRenderer

        return StraightRenderer()

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
        """Fill `out` (n, size, size, 3) through warps (n, 3, 3)."""
        repeats = np.zeros(len(out), bool)  # the camera stands still
        repeats[1:] = (matrices[1:] == matrices[:-1]).all(axis=(1, 2))
        straight = are_straight(matrices)
        direct = np.flatnonzero(straight & ~repeats)
        if len(direct):
            self._straight.render(picture, matrices[direct], strengths[direct], [out[t] for t in direct.tolist()])
        turned = np.flatnonzero(~straight & ~repeats)
        for strength in dict.fromkeys(strengths[turned].tolist()):
            mine = turned[strengths[turned] == strength]
            source, shifted = self._filter(picture, strength, matrices[mine], out.shape[1])
            for t, matrix in zip(mine.tolist(), shifted, strict=True):
                _warp(source, matrix, out[t])
        for t in np.flatnonzero(repeats).tolist():
            out[t] = out[t - 1]

    def _filter(self, picture: Pixels, strength: float, matrices: Array, size: int) -> tuple[Pixels, Array]:
        """The part of the picture that some warps see, low-passed, and the warps relative to that part."""
        if not strength:
            return picture, matrices
        taps, sigma = kernel(strength)
        left, top, right, bottom = _bounds(matrices, picture, size, margin=taps // 2 + 2)
        copy = self._copy.shaped(bottom - top, right - left)
        cv2.GaussianBlur(picture[top:bottom, left:right], (taps, taps), sigma, copy, sigma, cv2.BORDER_REPLICATE)
        shifted = matrices.copy()
        shifted[:, 0] -= left * matrices[:, 2]
        shifted[:, 1] -= top * matrices[:, 2]
        return copy, shifted


def _warp(source: Pixels, matrix: Array, frame: Pixels) -> None:
    size = frame.shape[:2]
    if matrix[2, 0] or matrix[2, 1]:
        cv2.warpPerspective(source, matrix, size, frame, _WARP, cv2.BORDER_REPLICATE)
    else:
        cv2.warpAffine(source, matrix[:2], size, frame, _WARP, cv2.BORDER_REPLICATE)


def are_straight(matrices: Any) -> Any:
    """Which of some warps (..., 3, 3) only move, scale and mirror; numpy or torch."""
    return (matrices[..., [0, 1, 2, 2], [1, 0, 0, 1]] == 0).all(-1)


def plan_warps(recipe: Recipe, frames: int, size: int, deepest: int = DEEPEST_LEVEL) -> tuple[int, Warps]:
    """The level, `deepest` at most, at which to decode a recipe's picture, and the warps of its clip at that level.

    ValueError when the recipe was drawn for another renderer.
    """
    if recipe.renderer != RENDERER_VERSION:
        raise ValueError(f"the recipe is for renderer version {recipe.renderer}; this stillreel has {RENDERER_VERSION}")
    views, weights = windows(recipe, frames)
    scales = _scales(views, recipe.picture, size)
    level = min(deepest, _level(scales))
    matrices = _in_pixels(views, recipe.picture, size, level)
    wanted = _boxes(scales, level)
    strengths = np.rint(wanted * STEPS_AN_OCTAVE) / STEPS_AN_OCTAVE
    turned = ~are_straight(matrices)
    if turned.any():
        turned[:, 1] &= weights > 0
        strengths[turned] = _shared(wanted[turned])
    return level, Warps(matrices, weights, strengths)


def _in_pixels(views: Array, picture: tuple[int, int], size: int, level: int) -> Array:
    width, height = picture[0] / 2**level, picture[1] / 2**level
    # Windows lie between unit squares; the centers of pixels lie at their index + 1/2.
    outer = np.array([[width, 0, -0.5], [0, height, -0.5], [0, 0, 1.0]])
    inner = np.array([[1 / size, 0, 0.5 / size], [0, 1 / size, 0.5 / size], [0, 0, 1.0]])
    # Cosines and products differ in their last bits from processor to processor; a grid of 2^-30 hides that.
    return np.asarray(np.rint(outer @ views @ inner * 2**30) / 2**30)


def _boxes(scales: Array, level: int) -> Array:
    """log2 of the boxes that are left to filter, in pixels at a level, for scales in pixels of the whole picture."""
    # Decoding at a smaller size has averaged already, over 2^level pixels.
    squared = scales**2 / 4**level - (1 - 4.0**-level)
    # The last bits of a logarithm are each machine's own.
    return np.asarray(np.rint(np.log2(np.maximum(squared, _LEAST)) / 2 * 1000) / 1000)


def _shared(wanted: Array) -> Array:
    """Strengths of Gaussians near the wanted ones (n,): none below 0, and at most _MOST_COPIES different ones."""
    wanted = np.where(wanted < _WEAKEST, 0.0, wanted)
    values = np.unique(wanted[wanted > 0])
    if len(values) <= _MOST_COPIES:
        return wanted
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
