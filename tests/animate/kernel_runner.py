"""Run by test_kernels.py in a process of its own, where Triton interprets: kernels against `device`'s own path."""

from __future__ import annotations

import json

import torch

from stillreel.animate.pictures.picture import stored_pixels
from stillreel.animate.render import device, kernels
from stillreel.animate.render.cpu import plan_warps
from stillreel.animate.render.plan import TILE, Still, StillBatch, batch_stills
from tests.animate.test_device import recipe_of
from tests.making import jpeg

_SIZE = 40  # no multiple of a tile
_SHAPES = [(180, 60), (64, 320), (70, 64), (300, 225), (32, 32), (420, 300)]


def batch_of(grammar: str, frames: int, deepest: int, key: str) -> StillBatch:
    """Of recipes by a key, and pictures that are decoded at 1 / 2^deepest of their sizes at the least."""
    stills = []
    for number, shape in enumerate(_SHAPES):
        data = jpeg(number, *shape)
        recipe = recipe_of(grammar, f"{key} {number}", data)
        level, warps = plan_warps(recipe, frames, _SIZE, deepest)
        stills.append(Still(stored_pixels(data, level), warps, _SIZE))
    return batch_stills(stills)


def compare(batch: StillBatch) -> dict[str, int]:
    """How many values differ; and what the batch had."""
    cpu = torch.device("cpu")
    sent = batch.to(cpu)
    views = kernels.render_views(sent)
    scale, shift = torch.tensor([[0.01, 0.02, 0.03], [-1.0, -2.0, 0.5]]).view(2, 3, 1, 1)
    frames = kernels.finish_frames(views, sent)
    normal = kernels.finish_normalized(views, sent, torch.stack([scale, shift]), torch.float32)
    whole = device.render_stills(batch, cpu)
    expected = device.render_normalized(batch, cpu, scale, shift, torch.float32)
    reach = (batch.places.amax(2) - batch.places.amin(2)) >> 6
    return {
        "views": int((views != device._render_views(batch, cpu)).sum()),
        "frames": int((frames.view(whole.shape) != whole).sum()),
        "normal": int(((normal.view(expected.shape) - expected).abs() > 1e-6).sum()),
        "straight": len(batch.straight),
        "affine": len(batch.affine),
        "perspective": len(batch.perspective),
        "copies": len(batch.copies),
        "fading": int((batch.fades[:, 0] >= 0).sum()),
        "mirrored": int((batch.places[:, 0, 0] > batch.places[:, 0, -1]).sum()),
        "several rounds": int((reach * TILE > 2 * kernels.SPAN * _SIZE).sum()),
        "widest kernel": int(batch.copies[:, 3].amax()) if len(batch.copies) else 0,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([compare(batch_of("film", 3, 3, "36")), compare(batch_of("film-1shot", 1, 0, "0"))]))
