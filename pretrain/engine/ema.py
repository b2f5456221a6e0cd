"""Averages of weights: over the steps of a run, and with the weights it started from.

    ModelEma      an exponential moving average, updated after each step, swapped in to be evaluated
    wise_ft     WiSE-FT: what a run learned, and what CLIP knew, by one number

Both are tensors by name. Under FSDP2 each rank averages its own part of every weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from stillreel.configs import DataError, RequestError
from stillreel.configs.train import EmaSettings
from stillreel.pretrain.engine.parallel import reshard
from stillreel.pretrain.engine.state import Rows, gather_tensors, set_tensors
from stillreel.pretrain.objectives import Task


def decay_at(step: int, settings: EmaSettings) -> float:
    """What is kept of the average in step `step` >= 0. With warm-up at most (1 + step) / (10 + step), as TensorFlow has it."""
    return min(settings.decay, (1 + step) / (10 + step)) if settings.warmup else settings.decay


class ModelEma:
    """The exponential moving average of the weights that a task trains. It begins as the weights are when it is made.

    Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging (1992), with forgetting. To be made behind
    `parallelize`. Logit scale and bias are averaged too, as the scores of the averaged model are compared by them.
    """

    def __init__(self, task: Task, settings: EmaSettings) -> None:
        if not settings.decay:
            raise RequestError("ema.decay=0 keeps no average of weights; give it a decay such as 0.999")
        self._task = task
        self._settings = settings
        self._averages = {name: weight.detach().clone() for name, weight in self._weights().items()}

    def update(self, step: int) -> None:
        """Take in the weights after step `step`."""
        share = 1 - decay_at(step, self._settings)
        with torch.no_grad():
            weights = self._weights()
            averages = [_local(self._averages[name]) for name in weights]
            torch._foreach_lerp_(averages, [_local(weight) for weight in weights.values()], share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the task has the averaged weights, in the same tensors; afterwards its own again, to the bit."""
        kept = {name: _local(weight).detach().clone() for name, weight in self._weights().items()}
        self._set(self._averages)
        try:
            yield
        finally:
            self._set(kept)

    @property
    def averages(self) -> Mapping[str, Tensor]:
        """By the task's names, as they lie on this rank."""
        return self._averages

    def gather(self) -> dict[str, Tensor] | None:
        """Whole averages by the task's names on the CPU of rank 0, None on the others. All ranks must call it."""
        return gather_tensors(self._averages)

    def load(self, averages: Mapping[str, Tensor | Rows]) -> None:
        """Go on from averages that were gathered, in any layout. DataError for names or shapes that are not the task's."""
        set_tensors(self._averages, averages)

    def _weights(self) -> dict[str, Tensor]:
        reshard(self._task)
        return {name: weight for name, weight in self._task.named_parameters() if weight.requires_grad}

    def _set(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self._weights().items():
                _local(weight).copy_(_local(tensors[name]))


def wise_ft(start: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """(1 - share) of the start's weights and `share` of the trained ones, name by name; weights that have no start stay trained.

    Wortsman et al., Robust fine-tuning of zero-shot models (WiSE-FT, arXiv 2109.01903), whose alpha is `share`. Plain tensors;
    halves are mixed in fp32. DataError where the start has another weight, or another shape, than the trained model.
    """
    if not 0 <= share <= 1:
        raise RequestError(f"trained={share}: give a share from 0, the start, to 1, the trained weights")
    for name, tensor in start.items():
        if name not in trained or trained[name].shape != tensor.shape:
            found = tuple(trained[name].shape) if name in trained else "absent"
            raise DataError(f"{name} is {tuple(tensor.shape)} in the start and {found} in what was trained from it")
    return {name: _mixed(start[name], own, share) if name in start else own.clone() for name, own in trained.items()}


def _mixed(start: Tensor, trained: Tensor, share: float) -> Tensor:
    if not trained.is_floating_point():
        return trained.clone()
    exact = torch.promote_types(trained.dtype, torch.float32)
    return start.to(exact).lerp(trained.to(exact), share).to(trained.dtype)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
