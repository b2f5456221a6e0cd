"""The device renderer: a batch of pictures through their windows, on a GPU or any torch device. uint8 to uint8.

It repeats the CPU renderer's integer arithmetic (its own for straight frames; OpenCV's for others: kernels in 256ths,
coordinates in 32nds of a pixel, weights in 1024ths), so its frames are the CPU's, but for a few pixels in perspective. A
loader sends pictures and a plan (`plan`) instead of frames. On CUDA `kernels` carry it out; elsewhere, or where there is no
Triton, the same is done here op by op.
"""

from __future__ import annotations

import logging
import subprocess
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from stillreel.animate.render.filters import PHASES, UNIT
from stillreel.animate.render.plan import Still, StillBatch, batch_stills, prepare_still

__all__ = ["Still", "StillBatch", "batch_stills", "prepare_still", "render_normalized", "render_stills"]


_log = logging.getLogger(__name__)


def render_stills(batch: StillBatch, device: torch.device | str) -> Tensor:
    """Frames uint8 (B, T, size, size, 3) of a batch that lies in the CPU's memory. Does not wait for the device."""
    device = torch.device(device)
    if kernels := _kernels(device.type):
        sent = batch.to(device)
        with torch.cuda.device_of(sent.pixels):
            frames: Tensor = kernels.finish_frames(kernels.render_views(sent), sent)
    else:
        frames = _dissolve(_render_views(batch, device), batch).movedim(1, -1).contiguous()
    return frames.view(-1, batch.frames, *frames.shape[1:])


def render_normalized(
    batch: StillBatch, device: torch.device | str, scale: Tensor, shift: Tensor, dtype: torch.dtype
) -> Tensor:
    """The frames as a model eats them, (B, T, 3, size, size): colors times `scale` plus `shift`, (3, 1, 1) on the device."""
    device = torch.device(device)
    if kernels := _kernels(device.type):
        sent = batch.to(device)
        with torch.cuda.device_of(sent.pixels):
            views = kernels.render_views(sent)
            frames: Tensor = kernels.finish_normalized(views, sent, torch.stack([scale, shift]), dtype)
    else:
        seen = _dissolve(_render_views(batch, device), batch)
        frames = torch.addcmul(shift, seen, scale).to(dtype)
    return frames.view(-1, batch.frames, *frames.shape[1:])


@cache
def _kernels(device: str) -> ModuleType | None:
    if device != "cuda":
        return None
    try:
        import triton

        from stillreel.animate.render import kernels

        triton.runtime.driver.active.get_current_target()  # builds what launches kernels, by the system's compiler
    except (ImportError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
        _log.warning(f"frames are rendered on the device op by op, many times slower: Triton cannot be used ({error})")
        return None
    return kernels


def _dissolve(views: Tensor, batch: StillBatch) -> Tensor:
    """Frames uint8 (B * T, 3, S, S) of views (V, 3, S, S)."""
    frames = views[: len(batch.fades)]
    fading = batch.fades[:, 0].ge(0).nonzero().flatten()
    if len(fading):
        at, share = fading.to(views.device), batch.fades[fading, 1].to(views.device)[:, None, None, None]
        total = frames[at].int() * (256 - share) + views[len(batch.fades) :].int() * share
        frames[at] = (total + 127 + (total >> 8 & 1) >> 8).to(torch.uint8)  # half to even
    return frames


def _render_views(batch: StillBatch, device: torch.device) -> Tensor:
    """Views uint8 (V, 3, S, S), one by one, of a batch that lies in the CPU's memory."""
    sent = batch.to(device)
    views = sent.pixels.new_empty((batch.views, batch.size, batch.size, 3))
    _filter_copies(batch, sent)
    _mix(batch, sent, views)
    at = torch.arange(batch.size, device=device, dtype=torch.float64)
    for number, (view, source) in enumerate(batch.affine.tolist()):
        across, down = sent.affine_places[number, :2, None, :], sent.affine_places[number, 2:, :, None]
        x, y = across + down + 16 >> 5
        views[view] = _gather(sent.pixels, batch.sources[source].tolist(), x, y)
    for number, (view, source) in enumerate(batch.perspective.tolist()):
        x, y, depth = (row[0] * at + (row[1] * at + row[2])[:, None] for row in sent.homographies[number].view(3, 3))
        x, y = ((one * (32 / depth)).round().int() for one in (x, y))
        views[view] = _gather(sent.pixels, batch.sources[source].tolist(), x, y)
    return views.movedim(-1, 1)


def _filter_copies(batch: StillBatch, sent: StillBatch) -> None:
    """Through Gaussians, rounded once, as OpenCV does it."""
    for of, to, begin, taps, left, top, right, bottom in batch.copies.tolist():
        kernel = sent.table[begin : begin + taps].int()[None]
        columns, rows = (
            torch.arange(*span, device=kernel.device) - taps // 2 for span in ((left, right), (top, bottom))
        )
        turned = _sums(_picture(batch, sent, of).transpose(0, 1), columns, kernel)
        copy = _sums(turned.transpose(0, 1), rows, kernel) + (1 << 15) >> 16
        first = int(batch.sources[to, 0]) + 3 * (top * (right - left) + left)
        sent.pixels[first : first + copy.numel()] = copy.flatten()


def _mix(batch: StillBatch, sent: StillBatch, views: Tensor) -> None:
    """Straight views: columns first, then rows, as `straight` does."""
    for number, (view, source, begin, taps) in enumerate(batch.straight.tolist()):
        weights = sent.table[begin : begin + PHASES * taps].int().view(PHASES, taps)
        pixels = _picture(batch, sent, source).transpose(0, 1)
        for places in sent.places[number]:
            sums = _sums(pixels, places // PHASES, weights[places % PHASES]) + UNIT // 2
            pixels = (sums // UNIT).clamp(0, 255).to(torch.uint8).transpose(0, 1)
        views[view] = pixels.transpose(0, 1)


def _picture(batch: StillBatch, sent: StillBatch, number: int) -> Tensor:
    """uint8 (H, W, 3)."""
    begin, stride, _, bottom = batch.sources[number].tolist()
    return sent.pixels[begin : begin + stride * (bottom + 1)].view(bottom + 1, -1, 3)


def _sums(lines: Tensor, firsts: Tensor, weights: Tensor) -> Tensor:
    """Of lines (N, ...), int32 (S, ...): sum i is of lines `firsts[i]` and on by `weights[i]` (K,); ends are repeated."""
    lines = lines.contiguous()
    total = torch.zeros((len(firsts), *lines.shape[1:]), dtype=torch.int32, device=lines.device)
    for tap in range(weights.shape[1]):
        at = (firsts + tap).clamp(0, len(lines) - 1)
        total.addcmul_(weights[:, tap, None, None], lines.index_select(0, at).int())
    return total


def _gather(pixels: Tensor, source: list[int], x: Tensor, y: Tensor) -> Tensor:
    """Bilinear samples uint8 (S, S, 3) at x, y in 32nds of a pixel; edges are repeated."""
    begin, stride, right, bottom = source
    columns = [(x >> 5) + step for step in (0, 1)]
    rows = [(y >> 5) + step for step in (0, 1)]
    a, b = x & 31, y & 31
    total = torch.full((), 512, dtype=torch.int32, device=x.device)
    for row, down in zip(rows, (32 - b, b), strict=True):
        for column, across in zip(columns, (32 - a, a), strict=True):
            at = begin + row.clamp(0, bottom).long() * stride + 3 * column.clamp(0, right)
            seen = pixels.index_select(0, (at[..., None] + torch.arange(3, device=x.device)).flatten())
            total = total + seen.view(*x.shape, 3).int() * (down * across)[..., None]
    return (total >> 10).to(torch.uint8)
