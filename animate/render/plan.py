"""What the device renderer is to do for a batch of pictures, decided on the CPU, in a loader's workers: where each output
column and row lies, by which weights it is made, which pictures are filtered for which turned views. Whole numbers in tables,
of tensors that are sent as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillreel.animate.camera.recipe import Recipe
from stillreel.animate.render.cpu import Warps, are_straight, plan_warps
from stillreel.animate.render.filters import PHASES, kernel, taps

Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]
Ints = NDArray[np.int32]

TILE = 32  # pixels of a view or a filtered copy that are made together, along either axis

_SHARE = 256  # weights of a dissolve are in these parts
_PARTS = 1024  # of a pixel, in which OpenCV adds up the places of a turned view
_MARGIN = 2  # pixels around the corners of a turned view that its samples may touch
_AT_ONCE = 1 << 15  # places that are worked on together: what a core's cache holds


class Still(NamedTuple):
    """A picture uint8 (H, W, 3) and how its clip of frames (size, size) sees it: what a loader prepares."""

    picture: Pixels
    warps: Warps
    size: int


class StillBatch(NamedTuple):
    """B stills of T frames, planned. `pixels` uint8 (N,) holds their pictures one after another, as large as they are.

    A source is a picture, or a low-passed copy of one, which the device puts behind the pictures. Of V views the first B * T
    are the frames', the others those that frames dissolve into. A filter is a place in `table` and a number of taps.
    """

    size: int
    room: int  # bytes of all pictures and copies
    pixels: Tensor
    sources: Tensor  # int64 (B + C, 4): the byte of its pixel (0, 0), bytes a row, last column, last row
    table: (
        Tensor  # float16 (n,), whole numbers: of `filters.taps` in 128ths, PHASES rows a filter; of Gaussians in 256ths
    )
    copies: (
        Tensor  # int32 (C, 8): of which source, which source it is, filter, taps; left, top, right, bottom of the part
    )
    tiles: Tensor  # int32 (n, 3): copy, and its column and row at which a tile begins
    straight: Tensor  # int32 (n, 4): view, source, filter, taps
    places: Tensor  # int32 (n, 2, size): first pixel of each column's and row's taps, in parts of PHASES
    affine: Tensor  # int32 (n, 2): view, source
    affine_places: (
        Tensor  # int32 (n, 4, size): what a column adds to x and y, and a row to x and y, in 1024ths of a pixel
    )
    perspective: Tensor  # int32 (n, 2): view, source
    homographies: Tensor  # float64 (n, 9)
    fades: Tensor  # int32 (B * T, 2): the view that a frame dissolves into, or -1; and its share, in 256ths

    @property
    def frames(self) -> int:
        """Of a clip."""
        pictures = len(self.sources) - len(self.copies)
        return len(self.fades) // pictures

    @property
    def views(self) -> int:
        return len(self.straight) + len(self.affine) + len(self.perspective)

    def to(self, device: torch.device) -> StillBatch:
        """On a device, which is not waited for where this lies in pinned memory; with `room` in `pixels`."""
        pixels = torch.empty(self.room, dtype=torch.uint8, device=device)
        pixels[: len(self.pixels)].copy_(self.pixels, non_blocking=True)
        rest = (part.to(device, non_blocking=True) for part in self[3:])
        return StillBatch(self.size, self.room, pixels, *rest)


def prepare_still(recipe: Recipe, load: Callable[[int], Pixels], frames: int, size: int) -> Still:
    """What the device needs of one still; `load(level)` decodes its picture at 1 / 2^level of its size.

    ValueError when the recipe has a look: colors change on the CPU only.
    """
    if recipe.look:
        names = ", ".join(dict.fromkeys(step.transform for step in recipe.look.steps + (recipe.look.until or ())))
        raise ValueError(f"the recipe has a look ({names}), which the device renderer lacks: render on the CPU")
    level, warps = plan_warps(recipe, frames, size)
    return Still(load(level), warps, size)


def batch_stills(stills: Sequence[Still]) -> StillBatch:
    """Stills of equally many frames of one size as a batch, in the CPU's memory."""
    ends = list(accumulate(still.picture.nbytes for still in stills))
    pixels = np.empty(ends[-1], np.uint8)
    for end, still in zip(ends, stills, strict=True):
        pixels[end - still.picture.nbytes : end] = still.picture.ravel()
    shapes = np.array([still.picture.shape[:2] for still in stills])
    return plan_batch(pixels, shapes, [still.warps for still in stills], stills[0].size)


def plan_batch(pixels: Pixels, shapes: NDArray[np.int64], warps: Sequence[Warps], size: int) -> StillBatch:
    """A batch of pictures that lie in `pixels` one after another, of `shapes` (B, 2): height and width."""
    matrices, weights, strengths = (np.stack(parts) for parts in zip(*warps, strict=True))
    share = np.rint(weights.ravel() * _SHARE).astype(np.int32)
    fading = np.flatnonzero(weights)
    fades = np.stack([np.full(weights.size, -1, np.int32), share], axis=1)
    fades[fading, 0] = weights.size + np.arange(len(fading))
    owners = np.arange(weights.size) // weights.shape[1]
    owners = np.concatenate([owners, owners[fading]])
    matrices = np.concatenate([matrices[:, :, 0].reshape(-1, 3, 3), matrices[:, :, 1].reshape(-1, 3, 3)[fading]])
    strengths = np.concatenate([strengths[:, :, 0].ravel(), strengths[:, :, 1].ravel()[fading]])
    heights, widths = shapes.T
    lengths = 3 * heights * widths
    sources = np.stack([np.cumsum(lengths) - lengths, 3 * widths, widths - 1, heights - 1], axis=1)

    filters = _Filters()
    flat = are_straight(matrices)
    straight, places = _plan_straight(np.flatnonzero(flat), owners, matrices, strengths, size, filters)
    turned = np.flatnonzero(~flat)
    used, made, tiles = _plan_copies(owners[turned], matrices[turned], strengths[turned], sources, size, filters)
    upright = ~matrices[turned, 2, :2].any(axis=1)
    of_turned = np.stack([turned, used], axis=1).astype(np.int32)
    parts = (
        pixels,
        np.concatenate([sources, made.sources]),
        filters.table(),
        made.copies,
        tiles,
        straight,
        places,
        of_turned[upright],
        _affine_places(matrices[turned[upright]], size),
        of_turned[~upright],
        matrices[turned[~upright]].reshape(-1, 9),
        fades,
    )
    return StillBatch(size, made.room, *(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))


class _Filters:
    """The filters of a batch, one after another."""

    def __init__(self) -> None:
        self._rows: list[NDArray[np.float16]] = []
        self._length = 0

    def add(self, filters: Sequence[NDArray[np.float16]]) -> Ints:
        """Of filters (..., K), their places and numbers of taps, (n, 2)."""
        ends = [self._length, *accumulate((one.size for one in filters), initial=self._length)]
        self._rows += [one.ravel() for one in filters]
        self._length = ends[-1]
        return np.array([ends[1:-1], [one.shape[-1] for one in filters]], np.int32).T

    def table(self) -> NDArray[np.float16]:
        return np.concatenate([*self._rows, np.zeros(1, np.float16)])


class _Copies(NamedTuple):
    """Of C copies, their rows of `StillBatch.sources` and `.copies`; and the bytes of all sources together."""

    sources: NDArray[np.int64]
    copies: Ints
    room: int


def _plan_straight(
    chosen: NDArray[np.int64],
    owners: NDArray[np.int64],
    matrices: Array,
    strengths: Array,
    size: int,
    filters: _Filters,
) -> tuple[Ints, Ints]:
    """`StillBatch.straight` and `.places` of the chosen views."""
    used, which = np.unique(strengths[chosen], return_inverse=True)
    found = [_taps(strength) for strength in used.tolist()]
    told = filters.add([weights for _, weights in found])
    firsts = PHASES * np.array([first for first, _ in found], np.int32)[which]
    axes = np.arange(2)
    places = _on_a_line(matrices[chosen][:, axes, axes], matrices[chosen][:, axes, 2], PHASES, size)
    places += firsts[:, None, None]
    return np.column_stack([chosen, owners[chosen], told[which]]).astype(np.int32), places


def _plan_copies(
    owners: NDArray[np.int64],
    matrices: Array,
    strengths: Array,
    pictures: NDArray[np.int64],
    size: int,
    filters: _Filters,
) -> tuple[NDArray[np.int64], _Copies, Ints]:
    """The source of each turned view, the filtered copies that are made for them, and the tiles in which.

    A copy is of the part of a picture that its views see: what lies around it is never read.
    """
    used = owners.copy()
    room = int((pictures[:, 1] * (pictures[:, 3] + 1)).sum())
    soft = np.flatnonzero(strengths)
    _, samples, which = np.unique(owners[soft] * 1024.0 + strengths[soft], return_index=True, return_inverse=True)
    of = owners[soft][samples]
    used[soft] = len(pictures) + which
    boxes = _boxes(matrices[soft], which, len(of), pictures[of, 2:] + 1, size)
    told = filters.add([_gaussian(strength) for strength in strengths[soft][samples].tolist()])
    extents = boxes[:, 2:] - boxes[:, :2]
    lengths = 3 * extents.prod(axis=1)
    # Where pixel (0, 0) would be, if the copy were a whole picture.
    begins = room + np.cumsum(lengths) - lengths - 3 * (boxes[:, 1] * extents[:, 0] + boxes[:, 0])
    sources = np.column_stack([begins, 3 * extents[:, 0], pictures[of, 2:]])
    copies = np.column_stack([of, len(pictures) + np.arange(len(of)), told, boxes]).astype(np.int32)
    return used, _Copies(sources, copies, room + int(lengths.sum())), _tiles(boxes.astype(np.int32))


def _tiles(boxes: Ints) -> Ints:
    """`StillBatch.tiles` of boxes (C, 4), row by row."""
    across, down = (-(-(boxes[:, 2:] - boxes[:, :2]) // TILE)).T
    counts = across * down
    copy = np.repeat(np.arange(len(boxes), dtype=np.int32), counts)
    within = np.arange(len(copy), dtype=np.int32) - np.repeat(np.cumsum(counts, dtype=np.int32) - counts, counts)
    row, column = np.divmod(within, across[copy])
    return np.column_stack([copy, boxes[copy, 0] + TILE * column, boxes[copy, 1] + TILE * row]).astype(np.int32)


def _boxes(
    matrices: Array, which: NDArray[np.int64], copies: int, sizes: NDArray[np.int64], size: int
) -> NDArray[np.int64]:
    """Left, top, right and bottom (C, 4) of what views (n, 3, 3) see, together, of copies `which` (n,), of `sizes` (C, 2)."""
    last = size - 1.0
    seen = matrices @ np.array([[0, last, last, 0], [0, 0, last, last], [1, 1, 1, 1.0]])
    corners = seen[:, :2] / seen[:, 2:]
    boxes = np.empty((copies, 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = sizes, 0
    np.minimum.at(boxes[:, :2], which, np.floor(corners.min(axis=2)).astype(np.int64) - _MARGIN)
    np.maximum.at(boxes[:, 2:], which, np.ceil(corners.max(axis=2)).astype(np.int64) + 1 + _MARGIN)
    boxes[:, :2] = np.clip(boxes[:, :2], 0, sizes - 1)
    boxes[:, 2:] = np.clip(boxes[:, 2:], boxes[:, :2] + 1, sizes)
    return boxes


def _affine_places(matrices: Array, size: int) -> Ints:
    """`StillBatch.affine_places`, as warpAffine rounds them."""
    slopes = matrices[:, [0, 1, 0, 1], [0, 0, 1, 1]]
    begins = np.zeros_like(slopes)
    begins[:, 2:] = matrices[:, :2, 2]
    return _on_a_line(slopes, begins, _PARTS, size)


def _on_a_line(slopes: Array, begins: Array, parts: int, size: int) -> Ints:
    """slope * i + begin (n, k) for i below `size`, in parts of a pixel: int32 (n, k, size)."""
    # A power of two changes no rounding.
    slope, begin = (parts * slopes).ravel()[:, None], (parts * begins).ravel()[:, None]
    at = np.arange(float(size))
    places = np.empty((len(slope), size), np.int32)
    step = max(1, _AT_ONCE // size)
    exact = np.empty((step, size))
    for first in range(0, len(slope), step):
        mine = exact[: len(slope) - first]
        np.multiply(slope[first : first + step], at, out=mine)
        mine += begin[first : first + step]
        np.rint(mine, out=mine)
        places[first : first + step] = mine
    return places.reshape(*slopes.shape, size)


@lru_cache(1024)
def _taps(strength: float) -> tuple[int, NDArray[np.float16]]:
    """`filters.taps`, as a table has them."""
    first, weights = taps(strength)
    return first, weights.astype(np.float16)


@lru_cache(1 << 14)
def _gaussian(strength: float) -> NDArray[np.float16]:
    """OpenCV's taps of a strength, in 256ths, read off what it makes of a line."""
    count, sigma = kernel(strength)
    line = np.zeros((count, 2 * count + 1), np.uint8)
    line[:, count] = 255
    seen = cv2.GaussianBlur(line, (count, count), sigma, sigmaY=sigma, borderType=cv2.BORDER_REPLICATE)[count // 2]
    half = [round(value * 256 / 255) for value in seen[count - count // 2 : count].tolist()]
    return np.array([*half, 256 - 2 * sum(half), *half[::-1]], np.float16)
