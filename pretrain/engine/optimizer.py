"""AdamW over groups of weights, each with its rate and its decay, and the rates' way over the steps.

    part     CLIP's towers have `lr`, a block below another `layer_decay` times its lr; all the rest has `lr_new`
    decay    of matrices and kernels; none of norms, biases, embeddings, logit_scale and the sigmoid's bias

Rates are a function of the step, so there is no schedule to save.
"""

from __future__ import annotations

import math
import re
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from stillreel.configs import RequestError
from stillreel.configs.train import OptimizerSettings
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.adapter import text_of
from stillreel.pretrain.objectives import Task

# Embeddings that are bare parameters. Vectors and scalars need no name: they are never decayed.
_EMBEDDINGS = ("positional_embedding", "time_embedding", "positions", "types")
_BLOCK = re.compile(r"(?:transformer\.resblocks|trunk\.blocks)\.(\d+)\.")
_FIRST = (
    "visual.conv1.",
    "visual.class_embedding",
    "visual.positional_embedding",
    "visual.ln_pre.",
    "visual.trunk.patch_embed.",
    "visual.trunk.pos_embed",
    "visual.trunk.cls_token",
    "token_embedding.",
    "positional_embedding",
)


def build_optimizer(task: Task, settings: OptimizerSettings) -> AdamW:
    """AdamW (Loshchilov and Hutter, 2019) over what is trained. Each group has its `peak` rate and a `name`.

    To be called behind `parallelize`, which may put other weights in the place of those there were. Towers whose rate is 0 are
    frozen. RequestError if nothing is left to train.
    """
    freeze_towers(task, settings)
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    peaks: dict[str, float] = {}
    embeddings = {id(one.weight) for one in task.modules() if isinstance(one, nn.Embedding)}
    for name, weight in task.named_parameters():
        group, peak = _place(name, task.model, settings)
        if not weight.requires_grad:
            continue
        bare = name.rpartition(".")[2] in _EMBEDDINGS
        decayed = weight.ndim > 1 and not bare and id(weight) not in embeddings
        groups.setdefault((group, decayed), []).append(weight)
        peaks[group] = peak
    if not groups:
        raise RequestError(
            f"optimizer.lr={settings.lr} and optimizer.lr_new={settings.lr_new} leave nothing to train; raise one of them"
        )
    listed = [
        {
            "params": weights,
            "name": name if decayed else f"{name}, no decay",
            "peak": peaks[name],
            "lr": peaks[name],
            "weight_decay": settings.weight_decay if decayed else 0.0,
        }
        for (name, decayed), weights in groups.items()
    ]
    return AdamW(listed, betas=settings.betas, eps=settings.eps, fused=True)


def freeze_towers(task: Task, settings: OptimizerSettings) -> None:
    """Take what has a rate of 0 out of training (`requires_grad`). Call it before the task is wrapped: DDP counts gradients."""
    for name, weight in task.named_parameters():
        if not _place(name, task.model, settings)[1]:
            weight.requires_grad_(False)


def lr_at(step: int, steps: int, settings: OptimizerSettings) -> float:
    """What step 0 <= `step` < `steps` has of the peak rate: up evenly over the warm-up, down half a cosine to `min_lr_ratio`.

    The first step has the first part of the warm-up, not zero; the last step of all has `min_lr_ratio`.
    """
    warmup = settings.warmup(steps)
    if step < warmup:
        return (step + 1) / warmup
    way = (step - warmup) / max(steps - 1 - warmup, 1)
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * (1 + math.cos(math.pi * min(way, 1.0))) / 2


def set_lr(optimizer: Optimizer, share: float) -> None:
    """Give each group this share of its peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = share * group["peak"]


def _place(name: str, model: VideoTextModel, settings: OptimizerSettings) -> tuple[str, float]:
    """The group of a weight of the task, by name, and its peak rate."""
    prefix = "model.clip."
    if not name.startswith(prefix):
        return "new", settings.lr_new
    if settings.layer_decay == 1:
        return "towers", settings.lr
    name = name.removeprefix(prefix)
    tower, module = ("vision", model.clip.visual) if name.startswith("visual.") else ("text", text_of(model.clip))
    name, count = name.removeprefix("text."), _depth(tower, module, settings)
    layer = _layer(name, count)
    return f"{tower} {layer}", settings.lr * settings.layer_decay ** (count + 1 - layer)


def _depth(tower: str, module: Any, settings: OptimizerSettings) -> int:
    """Blocks of a tower: open_clip's, or those of timm's ViTs."""
    blocks = getattr(getattr(module, "transformer", None), "resblocks", None)
    blocks = blocks or getattr(getattr(module, "trunk", None), "blocks", None)
    if not blocks:
        raise RequestError(
            f"optimizer.layer_decay={settings.layer_decay} goes by the blocks of a tower, and the {tower} tower has no row of "
            "them; set it to 1"
        )
    return len(blocks)


def _layer(name: str, count: int) -> int:
    """0 what the first block reads, 1 to `count` the blocks, above them projections, last norms and logit_scale."""
    block = _BLOCK.search(name)
    if block:
        return 1 + int(block[1])
    return 0 if name.startswith(_FIRST) else count + 1
