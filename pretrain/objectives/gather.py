"""Every rank's rows on every rank, with the gradient that belongs to them.

Ranks hold the slots of a batch in turn, as the loader deals them: slot s is row s // R of rank s mod R. What is gathered is
in the order of slots, so that it is the same for every number of ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stillreel.pretrain.model.features import Features


def rank_count() -> int:
    """R, the ranks that share a batch; 1 without torch.distributed."""
    return int(dist.get_world_size()) if dist.is_available() and dist.is_initialized() else 1


def own_slots(rows: int, device: torch.device) -> Tensor:
    """Slots (rows,) in the global batch of this rank's rows."""
    ranks = rank_count()
    return torch.arange(rows, device=device) * ranks + (dist.get_rank() if ranks > 1 else 0)


def gather(rows: Tensor) -> Tensor:
    """Rows (b, ...) of each rank -> (b * R, ...) in the order of slots. All ranks must call it, with equal shapes.

    The gradient of a row is the sum of what all ranks ask of it: right for losses whose mean over ranks is meant. Taking the
    own rank's part only, as is often published, divides it by R, but not that of weights used behind the gathering.
    """
    ranks = rank_count()
    if ranks == 1:
        return rows
    if rows.numel() == 0:  # nothing to send
        return torch.cat([rows] * ranks)
    if rows.dtype == torch.bool:  # which not every backend sends
        return gather(rows.to(torch.uint8)).bool()
    gathered: Tensor = _Gather.apply(rows)
    return gathered


def gather_features(features: Features) -> Features:
    """`gather` of each field."""
    return type(features)._make(None if field is None else gather(field) for field in features)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.stack(parts, dim=1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, asked: Tensor) -> Tensor:
        # A reduce-scatter would send half as much, but gloo has none in the oldest torch that is supported.
        total = asked.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[dist.get_rank() :: dist.get_world_size()].contiguous()
