"""What a rank holds in a step, counted on tensors that have no storage: before anyone pays for the machines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from stillreel.configs.model import ModelSettings
from stillreel.configs.train import ObjectiveSettings
from stillreel.pretrain.engine.parallel import sharded_blocks
from stillreel.pretrain.model.adapter import image_size
from stillreel.pretrain.model.costs import Step
from stillreel.pretrain.model.model import VideoTextModel
from stillreel.pretrain.model.towers import build_towers
from stillreel.pretrain.objectives import Batch, Encoded, Identity, Task

_WHOLE = 4  # bytes of an fp32 number
_IDENTITY = 16  # bytes that tell a row's caption and picture from others


class RankMemory(NamedTuple):
    """Bytes of one rank; of FSDP2 the rank that has the most."""

    weights: int
    gradients: int
    moments: int
    gathered_weights: (
        int  # whole at once, beside its own part: what no block has, and two blocks, one of them fetched ahead
    )
    activations: int  # kept for the backward pass, without checkpointing
    gathered_features: int  # of all ranks' rows, a step; never frames

    @property
    def total(self) -> int:
        return sum(self)


def rank_memory(
    settings: ModelSettings, model_cfg: Mapping[str, Any], step: Step, ranks: int, parallel: Literal["ddp", "fsdp"]
) -> RankMemory:
    """Of InfoNCE with AdamW, in bf16 with weights in fp32; `step` is one rank's. Allocators and NCCL's buffers come on top."""
    with torch.device("meta"):
        model = VideoTextModel(build_towers(model_cfg), settings)
    task = Task(model, ObjectiveSettings(), autocast=torch.bfloat16).train()
    parts = ranks if parallel == "fsdp" else 1
    weights = [(_part_of(one, parts), one.requires_grad) for one in task.parameters()]
    trained = _WHOLE * sum(count for count, trains in weights if trains)
    activations, encoded = _encode(task, step)
    rows = sum(_bytes(one) for fields in (encoded.video, encoded.text) for one in fields if one is not None)
    return RankMemory(
        weights=_WHOLE * sum(count for count, _ in weights),
        gradients=trained,
        moments=2 * trained,
        gathered_weights=_gathered_weights(task) if parts > 1 else 0,
        activations=activations,
        gathered_features=ranks * (rows + _IDENTITY * step.clips),
    )


def _part_of(weight: Tensor, parts: int) -> int:
    """Numbers of the first of so many parts, split along the first axis; FSDP2 leaves scalars whole."""
    if weight.ndim == 0:
        return 1
    return math.ceil(len(weight) / parts) * (weight.numel() // max(len(weight), 1))


def _gathered_weights(task: Task) -> int:
    blocks = [sum(one.numel() for one in block.parameters()) for block in sharded_blocks(task)]
    rest = sum(one.numel() for one in task.parameters()) - sum(blocks)
    return _WHOLE * (rest + sum(sorted(blocks)[-2:]))


def _encode(task: Task, step: Step) -> tuple[int, Encoded]:
    """Bytes that encoding a rank's rows keeps for the backward pass, weights not among them, and what it gives.

    By the CPU's autocast, which keeps norms in bf16; CUDA's keeps a copy of their inputs in fp32, which is added.
    """
    height, breadth = image_size(task.model.clip)
    kept: dict[int, Tensor] = {}  # by storage: views of one are kept once
    of_norms = []

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    def count(_: nn.Module, given: tuple[Tensor]) -> None:
        of_norms.append((_WHOLE - given[0].element_size()) * given[0].numel())

    for module in task.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(count)
    with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        task._apply(lambda one: torch.empty(one.shape, dtype=one.dtype))  # type: ignore[no-untyped-call]
        ids, rows = torch.empty(step.clips, step.words).long(), torch.empty(step.clips).long()
        frames = torch.empty(step.clips, step.frames, 3, height, breadth, dtype=torch.bfloat16)
        encoded = task(Batch(frames, None, ids, None, Identity(rows, rows, rows.double(), rows)))
        own = {one.untyped_storage()._cdata for one in (*task.parameters(), *task.buffers())}
    return sum(of_norms) + sum(_bytes(one) for place, one in kept.items() if place not in own), encoded


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
