"""Work that ranks share in an evaluation: batch k is rank k mod R's, and all get the same whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stillreel.pretrain.objectives.gather import gather, rank_count


def gather_batches(parts: Sequence[Tensor], count: int) -> Tensor:
    """Own batches, each (B, ...), of which part k is batch k * R + rank -> the first `count` rows of all, in their order.

    All ranks must call it, with equally many parts of one shape.
    """
    own = torch.stack(list(parts))
    if own.numel() and rank_count() > 1:  # as bytes: backends differ in the types that they send
        return gather(own.contiguous().view(torch.uint8)).view(own.dtype).flatten(0, 1)[:count]
    return gather(own).flatten(0, 1)[:count]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each of its modules as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
