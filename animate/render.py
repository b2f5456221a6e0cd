"""The CPU renderer, the reference: a picture through its windows, uint8 to uint8.

Each frame is one bilinear warp of a copy of the picture that was low-pass filtered for the frame's scale. A box of s
source pixels, the right filter where s of them meet in one output pixel, has variance s^2 / 12; bilinear sampling
already blurs by about 1/6; a Gaussian supplies the rest. Filter (8-bit fixed point in OpenCV), warp (5-bit fractions) and
dissolve are integer arithmetic: the bytes do not depend on threads, vector instructions or OpenCV 4.x. They are
RENDERER_VERSION 1; OpenCV 5 warps differently and is refused.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from animate.camera import windows
from animate.looks import apply_look
from animate.recipe import RENDERER_VERSION, Recipe
from configs import RequestError

Pixels = NDArray[np.uint8]

_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_BILINEAR_VARIANCE = 1 / 6  # of bilinear interpolation, averaged over sub-pixel positions
_VARIANCE_STEP = 0.06  # frames whose filters differ by less share one
_HALVE_ABOVE = 4.0  # source pixels per output pixel in the sharpest frame: beyond it the whole clip starts from half
_WIDEST_KERNEL = 31


class Renderer:
    """Renders clips one after another; keeps its buffers, since fresh memory costs as much as a warp."""

    def __init__(self) -> None:
        if not cv2.__version__.startswith("4."):
            raise RequestError(
                f"OpenCV {cv2.__version__} warps pictures differently; install opencv-python-headless>=4.10,<5"
            )
        cv2.setNumThreads(1)  # clips are the unit of parallel work
        self._filtered: dict[int, Pixels] = {}
        self._spare: list[Pixels] = []
        self._second = np.empty(0, np.uint8)

    def render(self, recipe: Recipe, picture: Pixels, frames: int, size: int) -> Pixels:
        """Frames uint8 (T, size, size, 3) of a picture uint8 (H, W, 3), RGB.

        ValueError when the recipe was drawn for another renderer: its bytes would not be those of the data set.
        """
        if recipe.renderer != RENDERER_VERSION:
            raise ValueError(
                f"the recipe is for renderer version {recipe.renderer}; this stillreel has {RENDERER_VERSION}"
            )
        matrices, weights = windows(recipe, frames)
        clip: Pixels = np.empty((frames, size, size, 3), np.uint8)
        picture, warps = self._prepare(picture, matrices, size)
        try:
            for t in range(frames):
                self._warp(picture, warps[t, 0], clip[t])
                if weights[t]:
                    self._dissolve(picture, warps[t, 1], float(weights[t]), clip[t])
        finally:
            self._spare += self._filtered.values()
            self._filtered.clear()
        return apply_look(recipe.look, clip) if recipe.look else clip

    def _prepare(self, picture: Pixels, matrices: NDArray[np.float64], size: int) -> tuple[Pixels, NDArray[np.float64]]:
        """The picture, halved while every frame shrinks it much, and the warps from output to its pixel indices."""
        warps = _in_pixels(matrices, picture, size)
        while min(_scale(warp, size) for warp in warps[:, 0]) > _HALVE_ABOVE:
            half = (max(1, picture.shape[1] // 2), max(1, picture.shape[0] // 2))
            picture = cv2.resize(picture, half, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
            warps = _in_pixels(matrices, picture, size)
        return picture, warps

    def _warp(self, picture: Pixels, warp: NDArray[np.float64], out: Pixels) -> None:
        size = out.shape[0]
        source = self._filter(picture, _scale(warp, size))
        if warp[2, 0] or warp[2, 1]:
            cv2.warpPerspective(source, warp, (size, size), dst=out, flags=_WARP, borderMode=cv2.BORDER_REPLICATE)
        else:
            cv2.warpAffine(source, warp[:2], (size, size), dst=out, flags=_WARP, borderMode=cv2.BORDER_REPLICATE)

    def _dissolve(self, picture: Pixels, warp: NDArray[np.float64], weight: float, out: Pixels) -> None:
        """Blend a second view into `out`, its weight in 256ths."""
        if self._second.shape != out.shape:
            self._second = np.empty_like(out)
        self._warp(picture, warp, self._second)
        share = round(256 * weight)
        out[:] = (out.astype(np.uint16) * (256 - share) + self._second.astype(np.uint16) * share + 128) >> 8

    def _filter(self, picture: Pixels, scale: float) -> Pixels:
        """The picture low-passed for `scale` of its pixels per output pixel."""
        step = round((scale * scale / 12 - _BILINEAR_VARIANCE) / _VARIANCE_STEP)
        if step <= 0:
            return picture
        if step not in self._filtered:
            spare = self._spare.pop() if self._spare else np.empty(0, np.uint8)
            if spare.shape != picture.shape:
                spare = np.empty_like(picture)
            self._filtered[step] = spare
            size, sigma = _kernel(step * _VARIANCE_STEP)
            cv2.GaussianBlur(picture, (size, size), sigma, dst=spare, sigmaY=sigma, borderType=cv2.BORDER_REPLICATE)
        return self._filtered[step]


def _kernel(variance: float) -> tuple[int, float]:
    """Odd size and sigma of the Gaussian kernel whose sampled taps have this variance."""
    if variance <= 0.5:
        # Three taps [a, 1 - 2a, a] have variance 2a; OpenCV makes them from a = e / (1 + 2e), e = exp(-1 / (2 sigma^2)).
        tap = variance / 2
        return 3, math.sqrt(-1 / (2 * math.log(tap / (1 - 2 * tap))))
    sigma = math.sqrt(variance)
    return min(_WIDEST_KERNEL, 2 * math.ceil(3 * sigma) + 1), sigma


def _in_pixels(matrices: NDArray[np.float64], picture: Pixels, size: int) -> NDArray[np.float64]:
    """Windows between unit squares -> warps from output indices to picture indices, whose centres lie at + 1/2."""
    height, width = picture.shape[:2]
    outer = np.array([[width, 0, -0.5], [0, height, -0.5], [0, 0, 1.0]])
    inner = np.array([[1 / size, 0, 0.5 / size], [0, 1 / size, 0.5 / size], [0, 0, 1.0]])
    warps: Any = outer @ matrices @ inner
    return warps  # type: ignore[no-any-return]


def _scale(warp: NDArray[np.float64], size: int) -> float:
    """Picture pixels per output pixel in the middle of the frame: the root of the Jacobian's determinant there."""
    middle = (size - 1) / 2
    depth = warp[2, 0] * middle + warp[2, 1] * middle + warp[2, 2]
    return math.sqrt(abs(float(np.linalg.det(warp))) / abs(depth) ** 3)
