"""Where the time of one clip goes on this machine: decode, render, normalize, the model. A few seconds, not a benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import simplejpeg
import torch
from torch import Tensor

from stillreel.animate.camera.draw import draw_recipe
from stillreel.animate.camera.recipe import Recipe
from stillreel.animate.pictures.picture import stored_pixels
from stillreel.animate.render.cpu import Renderer
from stillreel.animate.render.device import Still, batch_stills, prepare_still, render_stills
from stillreel.animate.scenes import caption_of, draw_scene, plan_scene
from stillreel.configs.grammar import load_grammar
from stillreel.configs.model import ModelSettings
from stillreel.pretrain.data.tokens import fixed_length
from stillreel.pretrain.model.adapter import image_size
from stillreel.pretrain.model.model import VideoTextModel
from stillreel.pretrain.model.normalize import normalize
from stillreel.pretrain.model.towers import build_towers, model_cfg_of

_STILLS = 8
_SECONDS = 0.4  # at least, of each step, after one call that is not counted
_BATCH_CUDA = 32  # clips; enough to fill a device


class ClipTimes(NamedTuple):
    """Milliseconds a clip: of every step; of all that a core of the loader does; of the model's forward pass.

    `captions` is how many of them each clip was compared with.
    """

    steps: dict[str, float]
    loader: float
    model: float
    captions: int


def time_clip(settings: ModelSettings, towers: Mapping[str, Any], frames: int, words: int) -> ClipTimes:
    """Time each step, forward only: pictures on one core, the model on the first CUDA device or on all cores.

    Pictures are drawn, recipes are those of the grammar `film`, and weights are random: none of it changes the time.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.device(device):
        model = VideoTextModel(build_towers(towers), settings).eval()
    size = image_size(model.clip)[0]
    clips = _BATCH_CUDA if device.type == "cuda" else 1
    pixels = torch.zeros((clips, frames, size, size, 3), dtype=torch.uint8, device=device)
    seen = normalize(pixels, dtype=torch.float32)
    steps, loader = _time_stills(frames, size, device)
    steps["normalize"] = time_call(lambda: normalize(pixels, dtype=torch.float32)) / clips
    of_model = time_call(_forward(model, seen, words)) / clips
    steps[f"model, forward, {'bf16' if seen.is_cuda else 'fp32'} on {device}"] = of_model
    return ClipTimes(steps, loader, of_model, captions=clips)


def _time_stills(frames: int, size: int, device: torch.device) -> tuple[dict[str, float], float]:
    """Steps from a stored picture to frames; and of them those that a core of the loader does, on this machine."""
    stills = [_film_still(number) for number in range(_STILLS)]
    renderer = Renderer()

    def render() -> None:
        for recipe, jpeg in stills:
            renderer.film(recipe, partial(stored_pixels, jpeg), frames, size)

    def prepare() -> list[Still]:
        return [prepare_still(recipe, partial(stored_pixels, jpeg), frames, size) for recipe, jpeg in stills]

    steps = {"decode the picture, one core": time_call(lambda: [stored_pixels(jpeg) for _, jpeg in stills]) / _STILLS}
    loader = steps["decode and render, one core"] = time_call(render) / _STILLS
    if device.type == "cuda":
        batch = batch_stills(prepare())
        loader = steps["decode and prepare for the device, one core"] = time_call(prepare) / _STILLS
        steps["render on the device"] = time_call(lambda: render_stills(batch, device)) / _STILLS
    return steps, loader


def _forward(model: VideoTextModel, seen: Tensor, words: int) -> Callable[[], Tensor]:
    """The model on clips (B, T, 3, H, W) with as many captions, each compared with each."""
    cfg = model_cfg_of(model.clip)
    ids = torch.ones((len(seen), fixed_length(cfg) or words), dtype=torch.int64, device=seen.device)
    ids[:, -1] = model.clip.vocab_size - 1
    mask = torch.ones_like(ids, dtype=torch.bool)

    def forward() -> Tensor:
        with torch.no_grad(), torch.autocast(seen.device.type, torch.bfloat16, enabled=seen.is_cuda):
            scores: Tensor = model(seen, None, ids, mask)
        return scores

    return forward


def _film_still(number: int) -> tuple[Recipe, bytes]:
    scene = plan_scene(0, number)
    picture = draw_scene(scene)
    jpeg: bytes = simplejpeg.encode_jpeg(picture, quality=90)
    height, width = picture.shape[:2]
    recipe = draw_recipe(
        "film", load_grammar("film"), None, 0, str(number), (width, height), [caption_of(scene)]
    ).recipe
    return recipe, jpeg


def time_call(step: Callable[[], object]) -> float:
    """Milliseconds of one call, on average."""
    step()
    _wait()
    calls, start = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - start < _SECONDS:
        step()
        _wait()
        calls += 1
    return 1000 * (time.perf_counter() - start) / calls


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
