"""How good a clip is: measured against a reference in double precision that shares no code with the renderer.

The reference reconstructs the picture by Catmull-Rom splines and averages `_SAMPLES` x `_SAMPLES` points of it over each
output pixel: the box filter, nearly exactly. Windows are upright squares here, (left, top, side) in picture pixels, so
that both steps are a matrix for the rows and one for the columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]

_SAMPLES = 8
_BORDER = 8  # output pixels at the frame's edge that are not judged: what lies outside is each method's own affair


class Box(NamedTuple):
    """An upright square window, in pixels of the picture; its left edge is the first pixel's at 0."""

    left: float
    top: float
    side: float


class Quality(NamedTuple):
    """Of one clip, or of several: `psnr` dB over a clip, `worst` its least; `jitter` rms change of the residual shift from
    frame to frame, output pixels; `sharpness` gradient energy over the reference's; `jump` the largest change of its
    logarithm between two frames."""

    psnr: float
    worst: float
    jitter: float
    sharpness: float
    jump: float


def reference(picture: NDArray[Any], box: Box, size: int, shift: tuple[float, float] = (0.0, 0.0)) -> Array:
    """The ideal frame (size, size, 3), as if the window lay `shift` output pixels to the right and down."""
    step = box.side / size
    rows = _matrix(picture.shape[0], box.top + shift[1] * step, step, size)
    columns = _matrix(picture.shape[1], box.left + shift[0] * step, step, size)
    down = np.tensordot(rows, picture.astype(np.float64), axes=(1, 0))
    return np.asarray(np.tensordot(down, columns, axes=(1, 1)).transpose(0, 2, 1))


def _matrix(length: int, start: float, step: float, size: int) -> Array:
    """Weights (size, length) of the picture's pixels in each output pixel along one axis."""
    at = start + step * (np.arange(size * _SAMPLES) + 0.5) / _SAMPLES - 0.5
    first = np.floor(at).astype(int)
    t = at - first
    weights = np.stack(
        [
            ((-0.5 * t + 1.0) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1.0,
            ((-1.5 * t + 2.0) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ]
    )
    matrix = np.zeros((size, length))
    owner = np.repeat(np.arange(size), _SAMPLES)
    for tap in range(4):
        np.add.at(matrix, (owner, np.clip(first + tap - 1, 0, length - 1)), weights[tap] / _SAMPLES)
    return matrix


def judge(picture: Pixels, boxes: list[Box], clip: Pixels) -> Quality:
    """A clip uint8 (T, size, size, 3) that should show `boxes` of a picture uint8 (H, W, 3)."""
    size = clip.shape[1]
    errors, shifts, sharp = [], [], []
    grey = picture.mean(axis=2, keepdims=True)
    inner = slice(_BORDER, size - _BORDER)
    for box, frame in zip(boxes, clip, strict=True):
        ideal = reference(picture, box, size)
        errors.append(np.mean((ideal[inner, inner] - frame[inner, inner]) ** 2))
        shifts.append(_register(grey, box, frame))
        sharp.append(_gradient_energy(frame[inner, inner]) / _gradient_energy(ideal[inner, inner]))
    steps = np.diff(np.array(shifts), axis=0)
    psnr = float(10 * np.log10(255**2 / np.mean(errors)))
    return Quality(
        psnr=psnr,
        worst=psnr,
        jitter=float(np.sqrt(np.mean(steps**2))) if len(steps) else 0.0,
        sharpness=float(np.mean(sharp)),
        jump=float(np.abs(np.diff(np.log(sharp))).max()) if len(sharp) > 1 else 0.0,
    )


def _register(grey: Array, box: Box, frame: Pixels) -> tuple[float, float]:
    """The shift (output pixels) at which the reference of a grey picture (H, W, 1) fits a frame best, by Gauss-Newton on
    shift and scale."""
    size = frame.shape[0]
    inner = slice(_BORDER, size - _BORDER)
    target = frame[inner, inner].astype(np.float64).mean(axis=2)
    shift, growth = np.zeros(2), 0.0
    ramp = (np.arange(size) + 0.5 - size / 2)[inner]
    for _ in range(4):
        side = box.side * (1 + growth)
        grown = Box(box.left + (box.side - side) / 2, box.top + (box.side - side) / 2, side)
        whole = reference(grey, grown, size, (float(shift[0]), float(shift[1])))[..., 0]
        down, right = np.gradient(whole)
        down, right, ideal = down[inner, inner], right[inner, inner], whole[inner, inner]
        slopes = np.stack([right, down, right * ramp[None] + down * ramp[:, None]], axis=-1).reshape(-1, 3)
        change = np.linalg.lstsq(slopes, (target - ideal).ravel(), rcond=None)[0]
        shift += change[:2]
        growth += float(change[2])
    return float(shift[0]), float(shift[1])


def _gradient_energy(frame: NDArray[np.generic]) -> float:
    grey = frame.astype(np.float64).mean(axis=2)
    return float(np.mean(np.diff(grey, axis=0)[:, :-1] ** 2 + np.diff(grey, axis=1)[:-1] ** 2))


def zone_plate(side: int = 1024) -> Pixels:
    """Rings whose frequency grows with the radius, to 1/2 cycle a pixel at the middle of an edge."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    rings = 127.5 + 120 * np.cos(np.pi * (x**2 + y**2) / side)
    return np.repeat(np.rint(rings)[..., None], 3, axis=2).astype(np.uint8)


def judge_zone_plate(plate: Pixels, boxes: list[Box], clip: Pixels) -> tuple[float, float]:
    """What is left of rings too fine for the output (dB, over all frames), and of those at 30 to 60 % of its Nyquist."""
    side, size = plate.shape[0], clip.shape[1]
    beyond, within = [], []
    for box, frame in zip(boxes, clip, strict=True):
        step = box.side / size
        at = (np.arange(size) + 0.5) * step
        x, y = box.left + at - side / 2, box.top + at - side / 2
        # The finer of the two directions decides; rings near the diagonals fold twice, so only near-axis ones count.
        radius = np.hypot(x[None], y[:, None])
        frequency = radius / side * step  # cycles an output pixel
        near_axis = np.minimum(np.abs(x[None]), np.abs(y[:, None])) < 0.35 * np.maximum(
            np.abs(x[None]), np.abs(y[:, None])
        )
        inside = near_axis & (radius < side / 2)
        grey = frame[..., 1].astype(np.float64) - 127.5
        fine, plain = inside & (frequency > 0.55), inside & (frequency > 0.15) & (frequency < 0.3)
        beyond += (grey[fine] ** 2).tolist()
        within += (grey[plain] ** 2).tolist()
    whole = 120**2 / 2
    return float(10 * np.log10(np.mean(beyond) / whole)), float(np.sqrt(np.mean(within) / whole))
