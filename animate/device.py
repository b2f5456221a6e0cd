"""The device renderer: a batch of pictures through their windows, on a GPU or any torch device. uint8 to uint8.

It repeats the CPU renderer's integer arithmetic (its own for straight frames; OpenCV's for others: kernels in 256ths,
coordinates in 32nds of a pixel, weights in 1024ths), so its frames are the CPU's, but for a few pixels in perspective. A
loader sends a picture and twenty-one numbers a frame instead of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from animate.filters import PHASES, UNIT, kernel, taps
from animate.recipe import Recipe
from animate.render import Warps, are_straight, plan_warps

Pixels = NDArray[np.uint8]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_SHARE = 256  # weights of a dissolve are in these parts


class Still(NamedTuple):
    """A picture uint8 (H, W, 3) and how its clip sees it: what a loader prepares."""

    picture: Pixels
    warps: Warps


class StillBatch(NamedTuple):
    """B stills on one device; pictures are padded to one size by repeating their edges.

    `pictures` uint8 (B, H, W, 3), `sizes` int64 (B, 2) width and height of each, `matrices` float64 (B, T, 2, 3, 3),
    `weights` float64 (B, T), `strengths` float64 (B, T, 2): see `render.Warps`.
    """

    pictures: Tensor
    sizes: Tensor
    matrices: Tensor
    weights: Tensor
    strengths: Tensor

    def to(self, device: torch.device | str) -> StillBatch:
        return StillBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


def prepare_still(recipe: Recipe, load: Callable[[int], Pixels], frames: int, size: int) -> Still:
    """What the device needs of one still; `load(level)` decodes its picture at 1 / 2^level of its size.

    ValueError when the recipe has a look: colours change on the CPU only.
    """
    if recipe.look:
        names = ", ".join(dict.fromkeys(step.transform for step in recipe.look.steps + (recipe.look.until or ())))
        raise ValueError(f"the recipe has a look ({names}), which the device renderer lacks: render on the CPU")
    level, warps = plan_warps(recipe, frames, size)
    return Still(load(level), warps)


def batch_stills(stills: Sequence[Still]) -> StillBatch:
    """Stills of equally many frames as one batch, in the CPU's memory."""
    height = max(still.picture.shape[0] for still in stills)
    width = max(still.picture.shape[1] for still in stills)
    pictures = np.empty((len(stills), height, width, 3), np.uint8)
    for place, still in zip(pictures, stills, strict=True):
        rows, columns = still.picture.shape[:2]
        place[:rows, :columns] = still.picture
        place[:rows, columns:] = still.picture[:, -1:]
        place[rows:] = place[rows - 1]
    sizes = np.array([still.picture.shape[1::-1] for still in stills], np.int64)
    warps = [np.stack(parts) for parts in zip(*(still.warps for still in stills), strict=True)]
    return StillBatch(*(torch.from_numpy(array) for array in (pictures, sizes, *warps)))


def render_stills(batch: StillBatch, size: int) -> Tensor:
    """Frames uint8 (B, T, size, size, 3) of a batch, on its device."""
    clips, frames = batch.weights.shape
    owner = torch.arange(clips, device=batch.weights.device).repeat_interleave(frames)
    matrices, strengths = batch.matrices.flatten(0, 1), batch.strengths.flatten(0, 1)
    out = _render(batch, owner, matrices[:, 0], strengths[:, 0], size)
    fading = batch.weights.flatten().nonzero().flatten()
    if len(fading):
        other = _render(batch, owner[fading], matrices[fading, 1], strengths[fading, 1], size)
        share = (batch.weights.flatten()[fading] * _SHARE).round().float()[:, None, None, None] / _SHARE
        out[fading] = (out[fading].float() * (1 - share) + other.float() * share).round().to(torch.uint8)
    return out.view(clips, frames, size, size, 3)


def normalised(
    frames: Tensor,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Frames uint8 (..., H, W, 3) as a model eats them, (..., 3, H, W); the defaults are CLIP's."""
    scale = torch.tensor([1 / (255 * value) for value in std], device=frames.device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=frames.device)
    return (frames.float() * scale + shift).to(dtype).movedim(-1, -3)


def _render(batch: StillBatch, owner: Tensor, matrices: Tensor, strengths: Tensor, size: int) -> Tensor:
    """Frames uint8 (F, size, size, 3): frame f is picture `owner[f]` through `matrices[f]` (F, 3, 3)."""
    out = batch.pictures.new_empty((len(owner), size, size, 3))
    straight = are_straight(matrices)
    frames = straight.nonzero().flatten()
    if len(frames):
        _mix(batch, owner, matrices, strengths, frames, out)
    frames = (~straight).nonzero().flatten()
    if len(frames):
        sources, index = _sources(batch.pictures, owner[frames], strengths[frames])
        _warp(sources, index, batch.sizes[owner], matrices, frames, out)
    return out


def _mix(batch: StillBatch, owner: Tensor, matrices: Tensor, strengths: Tensor, frames: Tensor, out: Tensor) -> None:
    """Fill the straight `frames` of `out`: columns first, then rows, as `straight` does."""
    used, which = strengths[frames].unique(return_inverse=True)
    filters = [taps(strength) for strength in used.tolist()]
    weights = torch.zeros(len(filters), PHASES, max(weights.shape[1] for _, weights in filters), dtype=torch.int32)
    for place, (_, some) in zip(weights, filters, strict=True):
        place[:, : some.shape[1]] = torch.from_numpy(some)
    weights = weights.to(out.device)
    first = torch.tensor([first for first, _ in filters], device=out.device)
    size, height = out.shape[1], batch.pictures.shape[1]
    at_once = max(1, _pixels_at_once(out) // (size * height))
    for chosen, filtered in zip(frames.split(at_once), which.split(at_once), strict=True):
        across, down = (
            _straight_places(matrices[chosen], axis, size) + PHASES * first[filtered, None] for axis in (0, 1)
        )
        table = weights[filtered]
        right, bottom = (batch.sizes[owner[chosen]] - 1).unbind(1)
        columns = _add_up(batch.pictures[owner[chosen]].transpose(1, 2), table, across, right)
        out[chosen] = _add_up(columns.transpose(1, 2), table, down, bottom)


def _add_up(sources: Tensor, table: Tensor, places: Tensor, last: Tensor) -> Tensor:
    """Weighted sums of the slices (F, N, M, 3) of `sources` along N, uint8 (F, S, M, 3); see `straight`."""
    frame = torch.arange(len(sources), device=sources.device)[:, None]
    first, phase = places // PHASES, places % PHASES
    total = torch.full((*places.shape, *sources.shape[2:]), UNIT // 2, dtype=torch.int32, device=sources.device)
    for tap in range(table.shape[2]):
        at = (first + tap).clamp(min=0).minimum(last[:, None])
        total += table[frame, phase, tap][..., None, None] * sources[frame, at].int()
    return (total // UNIT).clamp(0, 255).to(torch.uint8)


def _sources(pictures: Tensor, owner: Tensor, strengths: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures and their filtered copies, uint8 (N, H, W, 3), and which of them each frame reads, (F,)."""
    sources, index = [pictures], owner.clone()
    count = len(pictures)
    for strength in strengths.unique().tolist():
        if not strength:
            continue
        mine = strengths == strength
        owners = owner[mine].unique()
        sources.append(_low_pass(pictures[owners], strength))
        index[mine] = count + torch.searchsorted(owners, owner[mine])
        count += len(owners)
    return torch.cat(sources), index


def _low_pass(pictures: Tensor, strength: float) -> Tensor:
    """uint8 (n, H, W, 3) through the Gaussian of a strength, rounded once, as OpenCV does it."""
    weights = _gaussian(strength)
    rows = _slide(pictures.int(), weights, dim=2)
    return (_slide(rows, weights, dim=1) + (1 << 15) >> 16).to(torch.uint8)


def _slide(pixels: Tensor, weights: Sequence[int], dim: int) -> Tensor:
    """The weighted sum of shifted copies along a dimension; edges are repeated."""
    length, reach = pixels.shape[dim], len(weights) // 2
    total = torch.zeros_like(pixels)
    for number, weight in enumerate(weights):
        at = torch.arange(length, device=pixels.device).add(number - reach).clamp(0, length - 1)
        total += weight * pixels.index_select(dim, at)
    return total


@lru_cache(64)
def _gaussian(strength: float) -> tuple[int, ...]:
    """OpenCV's taps of a strength, in 256ths, read off what it makes of a line."""
    count, sigma = kernel(strength)
    line = np.zeros((count, 2 * count + 1), np.uint8)
    line[:, count] = 255
    seen = cv2.GaussianBlur(line, (count, count), sigma, sigmaY=sigma, borderType=cv2.BORDER_REPLICATE)[count // 2]
    half = [round(value * 256 / 255) for value in seen[count - count // 2 : count].tolist()]
    return (*half, 256 - 2 * sum(half), *half[::-1])


def _warp(sources: Tensor, index: Tensor, sizes: Tensor, matrices: Tensor, frames: Tensor, out: Tensor) -> None:
    """Fill the `frames` (n,) of `out`: from source `index[i]` (n,) of the size, through the matrix, of frame `frames[i]`."""
    at_once = max(1, _pixels_at_once(out) // out.shape[1] ** 2)
    upright = (matrices[frames, 2, :2] == 0).all(dim=1)
    for chosen, find in ((upright, _affine_places), (~upright, _perspective_places)):
        for some in chosen.nonzero().flatten().split(at_once):
            mine = frames[some]
            out[mine] = _gather(sources, index[some], sizes[mine], *find(matrices[mine], out.shape[1]))


def _straight_places(matrices: Tensor, axis: int, size: int) -> Tensor:
    """Where output columns (axis 0) or rows (1) lie in the picture, in parts of PHASES: int64 (F, S)."""
    at = torch.arange(size, device=matrices.device, dtype=matrices.dtype)
    return ((matrices[:, axis, axis, None] * at + matrices[:, axis, 2, None]) * PHASES).round().long()


def _pixels_at_once(out: Tensor) -> int:
    """How many pixels to work on, about 100 bytes each: what a cache of a CPU likes, and what fills a GPU."""
    return 1 << 25 if out.is_cuda else 1 << 21


def _affine_places(matrices: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where output pixels lie in the picture, in 32nds of its pixels: x and y, int64 (F, S, S). As warpAffine rounds."""
    at = torch.arange(size, device=matrices.device, dtype=matrices.dtype)
    places = []
    for row in (0, 1):
        across = (matrices[:, row, 0, None] * at * 1024).round().long()
        down = ((matrices[:, row, 1, None] * at + matrices[:, row, 2, None]) * 1024).round().long()
        places.append(across[:, None, :] + down[:, :, None] + 16 >> 5)
    return places[0], places[1]


def _perspective_places(matrices: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The same through homographies, as warpPerspective rounds."""
    at = torch.arange(size, device=matrices.device, dtype=matrices.dtype)
    x, y, depth = (
        row[:, 0, None, None] * at + (row[:, 1, None] * at + row[:, 2, None])[:, :, None] for row in matrices.unbind(1)
    )
    return (x * (32 / depth)).round().long(), (y * (32 / depth)).round().long()


def _gather(sources: Tensor, index: Tensor, sizes: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear samples uint8 (F, S, S, 3) at x, y in 32nds of a pixel; edges are repeated."""
    height, width = sources.shape[1:3]
    flat = sources.view(-1, 3)
    right, bottom = (sizes - 1).unbind(1)
    left, top = x >> 5, y >> 5
    columns = [place.clamp(min=0).minimum(right[:, None, None]) for place in (left, left + 1)]
    rows = [(place.clamp(min=0).minimum(bottom[:, None, None])) * width for place in (top, top + 1)]
    base = (index * (height * width))[:, None, None]
    a, b = (x & 31).int(), (y & 31).int()
    total = torch.full((*x.shape, 3), 512, dtype=torch.int32, device=x.device)
    for row, down in zip(rows, (32 - b, b), strict=True):
        for column, across in zip(columns, (32 - a, a), strict=True):
            total += flat[base + row + column].int() * (down * across)[..., None]
    return (total >> 10).to(torch.uint8)
