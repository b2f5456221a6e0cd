"""How fast a run is and where its time goes, without holding up the device: it is asked only when a line is due."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from stillreel.configs.system.hardware import dense_peak, peak_memory
from stillreel.configs.system.progress import amount, duration
from stillreel.pretrain.objectives.gather import rank_count
from stillreel.pretrain.run.checkpoint import finite
from stillreel.shards.stream.stream import State

_WIDTH = 100  # columns of a line of the log


class StepValues(NamedTuple):
    """What a rank's step came to. Tensors () stay on the device until a line is due."""

    loss: Tensor  # of own rows; the mean over ranks is told
    parts: Mapping[str, Tensor]  # each objective's
    grad_norm: Tensor
    logit_scale: Tensor
    lr: float


class Reading(NamedTuple):
    """Of all ranks, since the reading before. Rates leave out what was done aside."""

    step: int  # steps that were done
    steps: int  # in the whole run
    clips: int  # that the run has consumed
    epoch: float
    values: Mapping[str, float]  # of the last step: loss, loss.PART, grad_norm, logit_scale, lr
    clips_per_s: float
    mfu: float | None  # share of the devices' dense peak; None where that is not known
    data_wait: float  # share of time, of the rank that waited longest
    idle: float | None  # share of time in which a CUDA device had no step to take, of the one that idled longest
    memory: int  # bytes at the peak: of a CUDA device's tensors, on a CPU of the process; of the rank that has most
    left_s: float

    def record(self) -> dict[str, float | None]:
        """As metrics.jsonl has it."""
        told = finite({**self.values, "clips_per_s": self.clips_per_s, "data_wait": self.data_wait})
        told |= {} if self.idle is None else {"idle": self.idle}
        return {"clips": self.clips, "epoch": self.epoch, **told, "mfu": self.mfu, "memory": self.memory}

    def line(self) -> str:
        """As the log has it: what is asked for most comes first, and what no terminal has room for is in metrics.jsonl alone."""
        values = self.values
        parts = (
            f"{self.clips_per_s:,.0f} clips/s" if self.clips_per_s >= 100 else f"{self.clips_per_s:.1f} clips/s",
            f"{duration(self.left_s)} left",
            f"lr {values['lr']:.2e}",
            f"wait {self.data_wait:.1%}" + ("" if self.idle is None else f" (device idle {self.idle:.1%})"),
            *(() if self.mfu is None else (f"MFU {self.mfu:.1%}",)),
            amount(self.memory),
            f"grad_norm {values['grad_norm']:.3g}",
            f"logit_scale {values['logit_scale']:.3g}",
        )
        line = f"step {self.step:,}/{self.steps:,}  loss {values['loss']:.4f}"
        for part in parts:
            if len(line) + 2 + len(part) > _WIDTH:
                break
            line += f"  {part}"
        return line

    def note(self) -> str:
        """As a bar has it."""
        return f"loss {self.values['loss']:.3f}, {self.clips_per_s:,.1f} clips/s, data wait {self.data_wait:.1%}"


class Meter:
    """A loop feeds it; all ranks read it after the same steps.

        with meter.waiting():
            batch = next(batches)
        ...                                             the step
        meter.count(clips, flops)
        if step % log_every == 0:
            journal.write(meter.read(loader.state, values))

    Waiting is the host's: where the device is still busy meanwhile, less of it is lost than is told. What is lost is told beside
    it: the time on the device's own clock from the end of a step to when the next one's batch is there.
    """

    def __init__(self, device: torch.device, steps: int, clips_an_epoch: int) -> None:
        """`steps` are those of the whole run, `clips_an_epoch` the samples of all its data sets."""
        peak = dense_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self._peak = None if peak is None else peak * rank_count()
        self._device = device
        self._steps = steps
        self._clips_an_epoch = clips_an_epoch
        self._restart()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """For data."""
        start, ended = time.perf_counter(), self._mark()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - start
            begun = self._mark()
            if ended is not None and begun is not None:
                self._gaps.append((ended, begun))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Evaluating and saving: time that is not the steps'. The device should have done its steps before."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._aside += time.perf_counter() - start

    def count(self, clips: int, flops: float) -> None:
        """A step is under way: of `clips` of all ranks, whose model costs `flops` of operations, forward and backward."""
        self._counted += 1
        self._clips += clips
        self._flops += flops

    def read(self, state: State, values: StepValues) -> Reading:
        """Waits for the device, and tells all since the last reading. All ranks must call it."""
        told = self._told(values)
        seconds = max(time.perf_counter() - self._start - self._aside, 1e-9)
        idle = sum(ended.elapsed_time(begun) for ended, begun in self._gaps) / 1000 / seconds
        wait, idle, memory = self._most([self._waited / seconds, idle, float(self._memory())])
        reading = Reading(
            step=state.steps,
            steps=self._steps,
            clips=state.samples,
            epoch=state.samples / self._clips_an_epoch,
            values=told,
            clips_per_s=self._clips / seconds,
            mfu=None if self._peak is None else self._flops / seconds / self._peak,
            data_wait=min(wait, 1.0),
            idle=min(idle, 1.0) if self._gaps else None,
            memory=int(memory),
            left_s=(self._steps - state.steps) * seconds / max(self._counted, 1),
        )
        self._restart()
        return reading

    def _restart(self) -> None:
        self._start = time.perf_counter()
        self._waited = self._aside = self._flops = 0.0
        self._clips = self._counted = 0
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def _mark(self) -> torch.cuda.Event | None:
        """Behind what the device was given to do until now."""
        if self._device.type != "cuda":
            return None
        mark = torch.cuda.Event(enable_timing=True)
        mark.record(torch.cuda.current_stream(self._device))
        return mark

    def _told(self, values: StepValues) -> dict[str, float]:
        """Means over the ranks, in one sum and one copy from the device."""
        parts = {f"loss.{name}": one for name, one in values.parts.items()}
        tensors = {"loss": values.loss, **parts, "grad_norm": values.grad_norm, "logit_scale": values.logit_scale}
        sums = torch.stack([one.detach().to(self._device, torch.float64) for one in tensors.values()])
        if rank_count() > 1:
            dist.all_reduce(sums)
        return {**dict(zip(tensors, (sums / rank_count()).tolist(), strict=True)), "lr": values.lr}

    def _most(self, values: list[float]) -> list[float]:
        """The largest of any rank."""
        if rank_count() == 1:
            return values
        largest = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return [float(one) for one in largest.tolist()]

    def _memory(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return peak_memory()
