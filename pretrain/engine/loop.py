"""The loop of training, from top to bottom: wait for a batch, take a step, tell, evaluate, save, stop.

It does not know what it is told on or where batches are from, so finetuning runs the same one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stillreel.configs import DataError, Interrupted
from stillreel.configs.run import RunSettings
from stillreel.configs.train import OptimizerSettings
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.engine.accumulation import backpropagate
from stillreel.pretrain.engine.ema import ModelEma
from stillreel.pretrain.engine.optimizer import lr_at, set_lr
from stillreel.pretrain.engine.parallel import clip_gradients, is_sharded
from stillreel.pretrain.engine.prefetcher import DeviceBatch
from stillreel.pretrain.objectives import Batch, Losses, Task
from stillreel.pretrain.objectives.gather import rank_count
from stillreel.pretrain.run import (
    Display,
    Meter,
    MetricsLogger,
    Parts,
    PreemptionHandler,
    RunFolder,
    Snapshot,
    StepValues,
    take_parts,
    take_snapshot,
)
from stillreel.shards.stream.stream import State

Metrics = Mapping[str, float]

_log = logging.getLogger(__name__)


class Schedule(NamedTuple):
    """How long a run is, and what is due when. Steps are counted from the run's first one."""

    steps: int
    evaluate_every: int
    run: RunSettings

    def evaluates_after(self, step: int) -> bool:
        return step % self.evaluate_every == 0 or step == self.steps

    def saves_after(self, step: int) -> bool:
        """With `best_metric` also what was evaluated, so that the best one is there to be taken."""
        known = bool(self.run.best_metric) and self.evaluates_after(step)
        return self.run.saves_after(step) or known or step == self.steps

    def tells_after(self, step: int) -> bool:
        return step % self.run.log_every == 0 or step == self.steps


@dataclass
class TrainState:
    """What a step changes, and how."""

    task: Task
    wrapped: nn.Module  # the task as a step calls it
    optimizer: Optimizer
    settings: OptimizerSettings
    micro_batch: int
    ema: ModelEma | None

    def take_step(self, batch: Batch, step: int, steps: int) -> StepValues:
        """Step 0 <= `step` < `steps`. Does not wait for the device."""
        share = lr_at(step, steps, self.settings)
        set_lr(self.optimizer, share)
        losses: Losses = backpropagate(self.wrapped, batch, micro_batch=self.micro_batch)
        norm = clip_gradients(self.task, self.settings.grad_clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.task.clamp_scale()
        if self.ema is not None:
            self.ema.update(step)
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        return StepValues(losses.total, losses.parts, norm, self.task.model.clip.logit_scale.detach().exp(), lr)


@dataclass
class Records:
    """Where a run is told of and kept."""

    folder: RunFolder
    journal: MetricsLogger | None  # of rank 0
    display: Display | None  # of rank 0
    meter: Meter
    together: Together


def train(
    state: TrainState,
    feed: Iterable[DeviceBatch],
    schedule: Schedule,
    records: Records,
    preemption: PreemptionHandler,
    *,
    flops: Callable[[Batch], float],
    evaluate: Callable[[], Metrics] | None,
) -> None:
    """Go on through `feed` to the last step. All ranks call it.

    `flops` are those of a step of all ranks; `evaluate` is called on all of them. Interrupted once a stop is wished for and the
    run is saved; DataError when a gradient is not finite: on all ranks, within a step, and nothing is saved of it.
    """
    guard = NonFiniteGuard()
    for batch, data, _ in _timed(feed, records.meter):
        step = data.steps
        values = state.take_step(batch, step - 1, schedule.steps)
        guard.watch(values.grad_norm, step)
        records.meter.count(len(batch.frames) * rank_count(), flops(batch))
        if records.display:
            records.display.advance()
        if schedule.tells_after(step):
            _tell(records, data, values)
        stop = preemption.agreed(records.together)
        metrics: Metrics = {}
        if evaluate and schedule.evaluates_after(step):
            guard.check()
            metrics = tell_evaluation(records, step, evaluate)
        if stop or schedule.saves_after(step):
            guard.check()
            _save(records, state, data, metrics)
        if stop and step < schedule.steps:
            raise Interrupted(f"stopped after step {step:,} of {schedule.steps:,}, saved; run again to go on", stop)


def _timed(feed: Iterable[DeviceBatch], meter: Meter) -> Iterator[DeviceBatch]:
    """Waiting for a batch is the data's time."""
    waiting = iter(feed)
    while True:
        with meter.waiting():
            batch = next(waiting, None)
        if batch is None:
            return
        yield batch


def _tell(records: Records, data: State, values: StepValues) -> None:
    reading = records.meter.read(data, values)
    if records.journal:
        records.journal.write(reading)
    if records.display:
        records.display.tell(reading)


def tell_evaluation(records: Records, step: int, evaluate: Callable[[], Metrics]) -> Metrics:
    """Evaluate after so many steps, and tell what came of it."""
    with records.meter.aside():
        metrics = evaluate()
    if records.journal:
        records.journal.add(step, metrics)
    if records.display:
        _log.info(f"step {step:,}, held out: " + "  ".join(f"{name} {one:.4g}" for name, one in metrics.items()))
    return metrics


def _save(records: Records, state: TrainState, data: State, metrics: Metrics) -> None:
    with records.meter.aside():
        taken: Snapshot | Parts | None
        if is_sharded(state.task):
            own = {} if state.ema is None else {"ema": state.ema.averages}
            taken = take_parts(state.task, state.optimizer, own)
        else:
            groups = {} if state.ema is None else {"ema": state.ema.gather()}
            taken = take_snapshot(state.task, state.optimizer, groups)
        records.folder.save(state.task.model, taken, data, metrics)


class NonFiniteGuard:
    """Finds a gradient that is not finite without holding up the device: on CUDA one step later, when its length has come over.

    The length is that of the gradient over all ranks, so all of them find it in the same step.
    """

    def __init__(self) -> None:
        self._norm: Tensor | None = None
        self._step = 0
        self._there: torch.cuda.Event | None = None

    def watch(self, norm: Tensor, step: int) -> None:
        """The length of the gradient of a step that is under way."""
        self.check()
        self._step = step
        if norm.is_cuda:
            self._norm = torch.empty((), dtype=norm.dtype, pin_memory=True).copy_(norm, non_blocking=True)
            self._there = torch.cuda.Event()
            self._there.record()
        else:
            self._norm = norm
            self.check()

    def check(self) -> None:
        """DataError if the last one that was watched is not finite."""
        if self._norm is None:
            return
        if self._there is not None:
            self._there.synchronize()
        length, self._norm = float(self._norm), None
        if not torch.isfinite(torch.tensor(length)):
            raise DataError(
                f"step {self._step:,}: the gradient's length is {length}, so the loss is no longer finite. Nothing of this step "
                "was saved; the last checkpoint is from before. Go on from it with a lower optimizer.lr or a longer "
                "optimizer.warmup_steps, or look at the data of this step: stillreel stream DATA keys=true start="
                f"{self._step - 1} steps=1"
            )
