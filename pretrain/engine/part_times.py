"""The parts of a step by themselves on a device that is here: what `stillreel.pretrain.model.costs` puts its floors under.

Each part is computed forward and backward on numbers of its real shapes, while nothing else runs; of a tower's blocks the first
stands for all. A step overlaps some of it and adds what lies between, so the sum is near its time, not equal to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stillreel.configs.model import ModelSettings
from stillreel.configs.train import ObjectiveSettings, OptimizerSettings
from stillreel.pretrain.engine.optimizer import build_optimizer
from stillreel.pretrain.model.adapter import image_size
from stillreel.pretrain.model.costs import Step
from stillreel.pretrain.model.features import Frames, TextFeatures, VideoFeatures
from stillreel.pretrain.model.model import VideoTextModel
from stillreel.pretrain.model.normalize import normalize
from stillreel.pretrain.model.timing import time_call
from stillreel.pretrain.model.towers import build_towers, project_class_token, project_pixels
from stillreel.pretrain.objectives import Task

Outcomes = Tensor | tuple[Tensor, ...]


def time_parts(
    settings: ModelSettings, model_cfg: Mapping[str, Any], step: Step, device: torch.device
) -> dict[str, float]:
    """Milliseconds a step, by the names that `step_parts` gives; towers of OpenAI's architecture only.

    In bf16 on CUDA, else in fp32. Weights are random, which changes no time.
    """
    with torch.device(device):
        model = VideoTextModel(build_towers(model_cfg), settings).train()
        parts = dict(_parts(model, step, device))
        return {name: times * time_call(call) for name, (times, call) in parts.items()}


def _parts(
    model: VideoTextModel, step: Step, device: torch.device
) -> Iterator[tuple[str, tuple[int, Callable[[], object]]]]:
    """How often a step does each part, and what does it once."""
    visual, half = model.clip.visual, torch.bfloat16 if device.type == "cuda" else torch.float32
    block, layers = visual.transformer.resblocks[0], visual.transformer.layers
    images, tokens, width = (
        step.clips * step.frames,
        1 + visual.grid_size[0] * visual.grid_size[1],
        visual.transformer.width,
    )
    height, breadth = image_size(model.clip)

    def made(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=half).requires_grad_()

    def both(forward: Callable[[], Outcomes], *roots: Tensor) -> Callable[[], object]:
        return _there_and_back(forward, [one for one in roots if one.requires_grad], device)

    pixels = torch.randn(images, 3, height, breadth, dtype=half)
    rows, branch, heads = made(images, tokens, width), made(images, tokens, width), block.attn.num_heads
    q, k, v = (made(images, heads, tokens, width // heads) for _ in "qkv")
    hidden = made(images, tokens, block.mlp.c_fc.out_features)
    frames = _frames(model, step, tokens, half)
    yield "patch embedding", (1, both(lambda: project_pixels(visual, pixels), visual.conv1.weight))
    weights = [block.attn.in_proj_weight, block.attn.out_proj.weight]
    yield (
        "image tower: projections",
        (layers, both(lambda: _projected(block.attn, rows), rows, *weights)),
    )
    yield (
        "image tower: attention",
        (layers, both(lambda: F.scaled_dot_product_attention(q, k, v), q, k, v)),
    )
    c_fc, c_proj = block.mlp.c_fc, block.mlp.c_proj
    yield (
        "image tower: perceptron",
        (layers, both(lambda: (c_fc(rows), c_proj(hidden)), rows, hidden, c_fc.weight, c_proj.weight)),
    )
    yield (
        "image tower: norms, sums, activations",
        (layers, both(lambda: _beside(block, rows, branch, hidden), rows, branch, hidden)),
    )
    yield "image tower: projection", (1, both(lambda: project_class_token(visual, rows[:, 0]), rows, visual.proj))
    own = [*model.temporal.parameters()]
    if own:
        yield "temporal module", (1, both(lambda: model.temporal(frames), frames.features, *frames.blocks, *own))
    ids = torch.ones(step.clips, step.words, dtype=torch.int64)
    ids[:, -1] = model.clip.vocab_size - 1
    yield (
        "text tower",
        (1, both(lambda: model.encode_text(ids).pooled, *model.clip.transformer.parameters())),
    )
    video, text = _features(model, step)
    roots = [one for one in (video.frames, video.pooled, text.tokens, text.pooled) if one.requires_grad]
    yield "head, logits, loss", (1, both(lambda: model.loss(video, text), *roots))
    yield "optimizer, casts of weights", (1, _optimizer_step(model))
    seen = torch.zeros(step.clips, step.frames, height, breadth, 3, dtype=torch.uint8)
    yield "frames: copied, normalized", (1, lambda: normalize(seen, dtype=half))


def _there_and_back(forward: Callable[[], Outcomes], roots: list[Tensor], device: torch.device) -> Callable[[], object]:
    kept: list[Tensor] = []  # gradients of the outcomes, made once

    def act() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            outcome = forward()
        outcomes = [outcome] if isinstance(outcome, Tensor) else [*outcome]
        kept.extend(map(torch.ones_like, outcomes[len(kept) :]))
        torch.autograd.grad(outcomes, roots, kept, allow_unused=True)

    return act


def _projected(attn: nn.MultiheadAttention, rows: Tensor) -> Outcomes:
    """To q, k and v, and what is as wide as the outcome of attention back."""
    return F.linear(rows, attn.in_proj_weight, attn.in_proj_bias), attn.out_proj(rows)


def _beside(block: Any, rows: Tensor, branch: Tensor, hidden: Tensor) -> Outcomes:
    return block.ln_2(rows + block.ln_1(rows + branch)), block.mlp.gelu(hidden)


def _frames(model: VideoTextModel, step: Step, tokens: int, half: torch.dtype) -> Frames:
    """What the temporal module reads."""
    shape, visual = (step.clips, step.frames), model.clip.visual
    features = torch.randn(*shape, model.clip.text_projection.shape[1], dtype=half).requires_grad_()
    wide = visual.transformer.width
    blocks = tuple(torch.randn(*shape, tokens, wide, dtype=half).requires_grad_() for _ in range(model.temporal.depth))
    return Frames(features, torch.ones(shape, dtype=torch.bool), blocks, visual, None, None)


def _features(model: VideoTextModel, step: Step) -> tuple[VideoFeatures, TextFeatures]:
    width = model.clip.text_projection.shape[1]

    def made(*shape: int) -> Tensor:
        return torch.randn(step.clips, *shape, width).requires_grad_()

    def mask(count: int) -> Tensor:
        return torch.ones(step.clips, count, dtype=torch.bool)

    of_tab = [made() if model.align else None for _ in "ab"]
    return (
        VideoFeatures(made(step.frames), mask(step.frames), made(), of_tab[0]),
        TextFeatures(made(step.words), mask(step.words), made(), of_tab[1]),
    )


def _optimizer_step(model: VideoTextModel) -> Callable[[], object]:
    """On gradients of zero; with the halves that autocast makes of the weights where it does."""
    optimizer = build_optimizer(Task(model, ObjectiveSettings()), OptimizerSettings())
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]

    def act() -> None:
        for weight in weights:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        optimizer.step()

    return act
