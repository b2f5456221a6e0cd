"""Work that ranks share in an evaluation: batch k is rank k mod R's, and all get the same whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stillreel.pretrain.model.features import Features
from stillreel.pretrain.objectives.gather import gather, rank_count


def own_rank() -> int:
    """Which of the ranks this process is."""
    return dist.get_rank() if rank_count() > 1 else 0


def own_parts(count: int, size: int) -> Iterator[slice]:
    """This rank's parts of `count` rows, `size` each; as many as every other rank's, so that the last ones may be empty."""
    for number in range(-(-count // (size * rank_count()))):
        start = (number * rank_count() + own_rank()) * size
        yield slice(start, start + size)


def gather_batches(parts: Sequence[Tensor], size: int, count: int) -> Tensor:
    """Own batches, each of `size` rows or fewer, of which part k is batch k * R + rank -> the `count` rows of all, in order.

    All ranks must call it, with equally many parts.
    """
    own = torch.stack([_padded(part, size) for part in parts])
    if own.numel() and rank_count() > 1:  # as bytes: backends differ in the types that they send
        return gather(own.contiguous().view(torch.uint8)).view(own.dtype).flatten(0, 1)[:count]
    return gather(own).flatten(0, 1)[:count]


def gather_features(parts: Sequence[Features], size: int, count: int) -> Features:
    """`gather_batches` of each field."""
    columns = zip(*parts, strict=True)
    return type(parts[0])(*(None if one[0] is None else gather_batches(one, size, count) for one in columns))


def gather_words(own: Sequence[str]) -> tuple[str, ...]:
    """What any rank says, once each, sorted."""
    said: list[Sequence[str]] = [own]
    if rank_count() > 1:
        said = [()] * rank_count()
        dist.all_gather_object(said, own)
    return tuple(sorted({word for one in said for word in one}))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode and without gradients; afterwards each of its modules as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _padded(rows: Tensor, size: int) -> Tensor:
    """Rows (b, ...) and zeros to make them `size`."""
    return rows if len(rows) == size else torch.cat([rows, rows.new_zeros(size - len(rows), *rows.shape[1:])])
