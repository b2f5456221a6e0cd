"""The device renderer: a batch of pictures through their windows, on a GPU or any torch device. uint8 to uint8.

It repeats the CPU renderer's integer arithmetic (its own for straight frames; OpenCV's for others: kernels in 256ths,
coordinates in 32nds of a pixel, weights in 1024ths), so its frames are the CPU's, but for a few pixels in perspective. A
loader sends a picture and twenty-one numbers a frame instead of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillreel.animate.camera.recipe import Recipe
from stillreel.animate.render.cpu import Warps, are_straight, plan_warps
from stillreel.animate.render.filters import PHASES, UNIT, kernel, taps

Pixels = NDArray[np.uint8]

_SHARE = 256  # weights of a dissolve are in these parts


class Still(NamedTuple):
    """A picture uint8 (H, W, 3) and how its clip sees it: what a loader prepares."""

    picture: Pixels
    warps: Warps


class StillBatch(NamedTuple):
    """B stills; pictures are padded to one size by repeating their edges.

    `pictures` uint8 (B, H, W, 3), `sizes` int64 (B, 2) width and height of each, `matrices` float64 (B, T, 2, 3, 3),
    `weights` float64 (B, T), `strengths` float64 (B, T, 2): see `render.Warps`. All but the pictures stay in the CPU's memory:
    what is to be done is decided there, so that nobody waits for a device to say it.
    """

    pictures: Tensor
    sizes: Tensor
    matrices: Tensor
    weights: Tensor
    strengths: Tensor

    def to(self, device: torch.device | str) -> StillBatch:
        """With the pictures on a device."""
        return self._replace(pictures=self.pictures.to(device, non_blocking=True))


def prepare_still(recipe: Recipe, load: Callable[[int], Pixels], frames: int, size: int) -> Still:
    """What the device needs of one still; `load(level)` decodes its picture at 1 / 2^level of its size.

    ValueError when the recipe has a look: colors change on the CPU only.
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
    """Frames uint8 (B, T, size, size, 3) of a batch, on its pictures' device. Does not wait for the device."""
    clips, count = batch.weights.shape
    weights, matrices, strengths = batch.weights.flatten(), batch.matrices.flatten(0, 1), batch.strengths.flatten(0, 1)
    owner = torch.arange(clips).repeat_interleave(count)
    fading = weights.nonzero().flatten()
    views = _Views(
        torch.cat([owner, owner[fading]]),
        torch.cat([matrices[:, 0], matrices[fading, 1]]),
        torch.cat([strengths[:, 0], strengths[fading, 1]]),
    )
    out = _render(batch, views, size)
    frames, others = out[: len(owner)], out[len(owner) :]
    if len(fading):
        at = _sent(fading, out.device)
        share = _sent((weights[fading] * _SHARE).round().float() / _SHARE, out.device)[:, None, None, None]
        frames[at] = (frames[at].float() * (1 - share) + others.float() * share).round().to(torch.uint8)
    return frames.view(clips, count, size, size, 3)


class _Views(NamedTuple):
    """F views, in the CPU's memory: view f is of picture `owner[f]`, through `matrices[f]` (3, 3), by filter `strengths[f]`."""

    owner: Tensor
    matrices: Tensor
    strengths: Tensor

    def pick(self, chosen: Tensor) -> _Views:
        """Of some views (n,), by their numbers or by a mask."""
        return _Views(*(part[chosen] for part in self))


def _render(batch: StillBatch, views: _Views, size: int) -> Tensor:
    """Frames uint8 (F, size, size, 3)."""
    out = batch.pictures.new_empty((len(views.owner), size, size, 3))
    straight = are_straight(views.matrices)
    for chosen, fill in ((straight, _mix), (~straight, _warp)):
        frames = chosen.nonzero().flatten()
        if len(frames):
            fill(batch, views.pick(frames), frames, out)
    return out


def _mix(batch: StillBatch, views: _Views, frames: Tensor, out: Tensor) -> None:
    """Fill the `frames` (n,) of `out` with straight views: columns first, then rows, as `straight` does."""
    device, size, height = out.device, out.shape[1], batch.pictures.shape[1]
    used, which = views.strengths.unique(return_inverse=True)
    filters = [taps(strength) for strength in used.tolist()]
    # 8, 16, ... taps: a few lengths for all, each compiled once.
    length = max(8, 1 << (max(weights.shape[1] for _, weights in filters) - 1).bit_length())
    table = torch.zeros(len(filters), PHASES, length, dtype=torch.int32)
    for place, (_, some) in zip(table, filters, strict=True):
        place[:, : some.shape[1]] = torch.from_numpy(some)
    first = PHASES * torch.tensor([first for first, _ in filters])[which, None]
    places = torch.stack([_straight_places(views.matrices, axis, size) + first for axis in (0, 1)])
    table, lasts = _sent(table, device), batch.sizes[views.owner].T - 1
    at_once = max(1, _pixels_at_once(out) // (size * height))
    for some in torch.arange(len(frames)).split(at_once):
        owner, mine, at = (_sent(part[some], device) for part in (views.owner, which, frames))
        across, down = _sent(places[:, some], device)
        right, bottom = _sent(lasts[:, some], device)
        columns = _add_up(batch.pictures, owner, table, mine, across, right, 2)
        out[at] = _add_up(columns, torch.arange(len(at), device=device), table, mine, down, bottom, 1)


def _warp(batch: StillBatch, views: _Views, frames: Tensor, out: Tensor) -> None:
    """Fill the `frames` (n,) of `out` with turned views, of copies that are filtered for them."""
    device, size = out.device, out.shape[1]
    copies, which = torch.stack([views.strengths, views.owner.double()], 1).unique(dim=0, return_inverse=True)
    sources = _filtered(batch.pictures, copies[:, 1].long(), copies[:, 0].tolist())
    sizes = batch.sizes[views.owner]
    upright = (views.matrices[:, 2, :2] == 0).all(dim=1)
    for chosen, find in ((upright, _affine_places), (~upright, _perspective_places)):
        for some in chosen.nonzero().flatten().split(max(1, _pixels_at_once(out) // size**2)):
            at, index, limits, matrices = (_sent(part[some], device) for part in (frames, which, sizes, views.matrices))
            out[at] = _gather(sources, index, limits, *find(matrices, size))


def _filtered(pictures: Tensor, owners: Tensor, strengths: Sequence[float]) -> Tensor:
    """Copies uint8 (n, H, W, 3): of picture `owners[i]` (n,), low-passed by strength i; 0: as it is."""
    copies = pictures.new_empty((len(owners), *pictures.shape[1:]))
    weights = [_gaussian(strength) for strength in strengths]
    # A kernel of 3, 7, 15, ... taps: a few lengths for all, each compiled once.
    lengths = torch.tensor([(1 << len(some).bit_length()) - 1 for some in weights])
    at_once = max(1, _pixels_at_once(copies) // copies[0, ..., 0].numel())
    for length in lengths.unique().tolist():
        for some in (lengths == length).nonzero().flatten().split(at_once):
            rows = [(*[0] * ((length - len(row)) // 2), *row) for row in (weights[number] for number in some.tolist())]
            table = torch.tensor([(*row, *[0] * (length - len(row))) for row in rows], dtype=torch.int32)
            at, owner, table = (_sent(part, copies.device) for part in (some, owners[some], table))
            copies[at] = _low_pass(pictures, owner, table)
    return copies


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, which is not waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _fused(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """On CUDA, compiled when it is first called: op by op, sums of integers move some hundred times the bytes of their pixels."""
    compiled = lru_cache(1)(lambda: torch.compile(function, dynamic=True))

    @wraps(function)
    def call(pixels: Tensor, *given: object) -> Tensor:
        return (compiled() if pixels.is_cuda else function)(pixels, *given)

    return call


@_fused
def _add_up(
    pixels: Tensor, index: Tensor, table: Tensor, which: Tensor, places: Tensor, last: Tensor, axis: int
) -> Tensor:
    """Weighted sums along the columns (axis 2) or rows (1) of uint8 (N, H, W, 3); see `straight`.

    Output i is of `pixels[index[i]]`, by filter `table[which[i]]`, at `places[i]` (S,) up to pixel `last[i]`.
    """
    lines = pixels.transpose(1, axis)
    first, phase = places // PHASES, places % PHASES
    total = torch.full((), UNIT // 2, dtype=torch.int32, device=pixels.device)
    for tap in range(table.shape[2]):
        at = (first + tap).clamp(min=0).minimum(last[:, None])
        total = total + table[which[:, None], phase, tap][..., None, None] * lines[index[:, None], at].int()
    return (total // UNIT).clamp(0, 255).to(torch.uint8).transpose(1, axis).contiguous()


@_fused
def _low_pass(pictures: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """`pictures[index]` uint8 (n, H, W, 3) through Gaussians of taps (n, K), rounded once, as OpenCV does it."""
    rows = _slide(pictures, index, weights, 2)
    columns = _slide(rows, torch.arange(len(rows), device=rows.device), weights, 1)
    return (columns + (1 << 15) >> 16).to(torch.uint8)


def _slide(pixels: Tensor, index: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Weighted sums int32 of `pixels[index]`, shifted along an axis; edges are repeated."""
    lines = pixels.transpose(1, axis)
    length, reach = lines.shape[1], weights.shape[1] // 2
    total = torch.zeros((), dtype=weights.dtype, device=pixels.device)
    for tap in range(weights.shape[1]):
        at = (torch.arange(length, device=pixels.device) + (tap - reach)).clamp(0, length - 1)
        total = total + weights[:, tap, None, None, None] * lines[index[:, None], at].int()
    return total.transpose(1, axis).contiguous()


@lru_cache(1 << 14)
def _gaussian(strength: float) -> tuple[int, ...]:
    """OpenCV's taps of a strength, in 256ths, read off what it makes of a line; of 0, a single one."""
    if not strength:
        return (256,)
    count, sigma = kernel(strength)
    line = np.zeros((count, 2 * count + 1), np.uint8)
    line[:, count] = 255
    seen = cv2.GaussianBlur(line, (count, count), sigma, sigmaY=sigma, borderType=cv2.BORDER_REPLICATE)[count // 2]
    half = [round(value * 256 / 255) for value in seen[count - count // 2 : count].tolist()]
    return (*half, 256 - 2 * sum(half), *half[::-1])


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


@_fused
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
