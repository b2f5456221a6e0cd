"""The backward pass of a step, whole or in chunks: the contrast of a large batch on a small device.

Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (GradCache, arXiv 2101.06983):

    1. each chunk forward without a graph     -> features
    2. losses of all features                 -> their gradients, by feature and by weight used there
    3. each chunk forward again, same draws   -> backward from its features' gradients, summed into the weights'

A third more arithmetic; memory is one chunk's, beside the features of own rows and of the batch. The draws of dropout are the
same both times by their nature: they are functions of sample and step (pretrain/model/dropout.py), so no state is replayed.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stillreel.configs import RequestError
from stillreel.pretrain.engine.parallel import unreduced
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures
from stillreel.pretrain.objectives import Batch, Encoded, Losses, Task


def backpropagate(wrapped: nn.Module, batch: Batch, *, micro_batch: int = 0) -> Losses:
    """Add the gradients of a step to the weights' own, reduced over ranks once. `micro_batch` clips at a time; 0: all at once.

    Returns the losses of own rows, without gradient; those of the batch are the means over ranks.
    `wrapped` is a Task, sharded by FSDP2 or not, or one in DistributedDataParallel (`parallelize` gives it). All ranks must
    call it, with equal batch and micro-batch sizes.
    """
    if micro_batch < 0:
        raise RequestError(f"micro_batch={micro_batch}: give a number of clips, or 0 for all at once")
    task = wrapped.module if isinstance(wrapped, DistributedDataParallel) else wrapped
    assert isinstance(task, Task), type(task)
    if not micro_batch or micro_batch >= len(batch.frames):
        losses = task.compare(wrapped(batch), batch.identity, batch.classes)
        losses.total.backward()
        return losses._replace(total=losses.total.detach())
    return _in_chunks(wrapped, task, batch, micro_batch)


def _in_chunks(wrapped: nn.Module, task: Task, batch: Batch, micro_batch: int) -> Losses:
    chunks = [batch.rows(slice(start, start + micro_batch)) for start in range(0, len(batch.frames), micro_batch)]
    with torch.no_grad():
        features = [_fields(task(rows)) for rows in chunks]
    cached = [_leaf(parts) for parts in zip(*features, strict=True)]
    losses, gradients, of_weights = _compare(task, cached, batch)
    for number, rows in enumerate(chunks):
        last = number == len(chunks) - 1
        with nullcontext() if last else unreduced(wrapped):
            again = _fields(wrapped(rows))
            part = slice(number * micro_batch, (number + 1) * micro_batch)
            pairs = [
                (one, gradient[part])
                for one, gradient in zip(again, gradients, strict=True)
                if one is not None and one.requires_grad and gradient is not None
            ]
            # What weights got behind the features joins the last chunk: the reduction waits for each weight, once.
            pairs += of_weights if last else []
            if pairs:  # where all towers are frozen, only the last chunk has something
                torch.autograd.backward([one for one, _ in pairs], [gradient for _, gradient in pairs])
    return losses


def _compare(
    task: Task, cached: list[Tensor | None], batch: Batch
) -> tuple[Losses, list[Tensor | None], list[tuple[Tensor, Tensor]]]:
    """The losses; the gradient of each cached field, None where there is none; and those of weights used in comparing."""
    losses = task.compare(_encoded(cached), batch.identity, batch.classes)
    places = [place for place, field in enumerate(cached) if field is not None and field.requires_grad]
    weights = [weight for weight in task.parameters() if weight.requires_grad]
    roots = [cached[place] for place in places] + weights
    gradients = torch.autograd.grad(losses.total, roots, allow_unused=True)
    asked: list[Tensor | None] = [None] * len(cached)
    for place, gradient in zip(places, gradients, strict=False):
        asked[place] = gradient
    of_weights = zip(weights, gradients[len(places) :], strict=True)
    total = losses._replace(total=losses.total.detach())
    return total, asked, [(weight, gradient) for weight, gradient in of_weights if gradient is not None]


def _fields(encoded: Encoded) -> list[Tensor | None]:
    return [*encoded.video, *encoded.text, *(encoded.classes or ())]


def _encoded(fields: list[Tensor | None]) -> Encoded:
    video, text = len(VideoFeatures._fields), len(TextFeatures._fields)
    classes = fields[video + text :]
    return Encoded(
        VideoFeatures(*fields[:video]),
        TextFeatures(*fields[video : video + text]),
        TextFeatures(*classes) if classes else None,
    )


def _leaf(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    """A field of all chunks, as the root of a graph of its own if it has gradients."""
    if parts[0] is None:
        return None
    whole = torch.cat(parts)
    return whole.requires_grad_(whole.is_floating_point())
