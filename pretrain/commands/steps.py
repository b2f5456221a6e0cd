"""What `stillreel doctor` tells of a training step: its parts, their floors on a device, their times here, a rank's memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from stillreel.configs import RequestError
from stillreel.configs.doctor import DoctorSettings
from stillreel.configs.system.hardware import ACCELERATORS, Accelerator, accelerator_of
from stillreel.configs.system.progress import amount
from stillreel.pretrain.engine.memory import RankMemory, rank_memory
from stillreel.pretrain.engine.part_times import time_parts
from stillreel.pretrain.model.adapter import is_openais
from stillreel.pretrain.model.costs import Part, Step, frame_bytes, step_parts
from stillreel.pretrain.run.opening import Described

_CLIPS = {"cpu": 2}  # of a step where nobody says; elsewhere 256


class StepReport(NamedTuple):
    """What is known of a step."""

    model: str
    step: Step
    device: Accelerator | None  # None: the CPU, of which no floor is known
    parts: list[Part]
    milliseconds: dict[str, float]  # that parts take here; empty where it is not this machine's device
    frame_bytes: int
    ranks: int
    memory: dict[str, RankMemory]  # by `parallel`

    @property
    def floor(self) -> float | None:
        """Seconds."""
        return sum(part.floor(self.device) for part in self.parts) if self.device else None

    def as_json(self) -> dict[str, Any]:
        return {
            "shape": self.step._asdict(),
            "device": self.device and self.device._asdict(),
            "parts": {
                part.name: {
                    "flops": part.flops,
                    "bytes": part.bytes,
                    "floor_ms": 1000 * part.floor(self.device) if self.device else None,
                    "measured_ms": self.milliseconds.get(part.name),
                }
                for part in self.parts
            },
            "floor_clips_per_s": self.floor and self.step.clips / self.floor,
            "ranks": self.ranks,
            "memory": {name: one._asdict() for name, one in self.memory.items()},
        }

    def render(self) -> Iterator[str]:
        """A page to read."""
        on = "this CPU, in fp32"
        if self.device:
            on = f"{self.device.name}, bf16: {self.device.peak / 1e12:,.0f} TFLOP/s, {self.device.bandwidth / 1e12:.3g} TB/s"
        yield f"\na training step of {self.step.clips:,} clips, {self.model}, forward and backward, on {on}"
        yield f"  {'':<40}{'GFLOP':>12}{'GB':>9}{'floor, ms':>12}{'measured, ms':>14}"
        for part in self.parts:
            floor = 1000 * part.floor(self.device) if self.device else None
            yield _line(part.name, part.flops, part.bytes, floor, self.milliseconds.get(part.name))
        flops, moved = (sum(each) for each in zip(*((part.flops, part.bytes) for part in self.parts), strict=True))
        measured = sum(self.milliseconds.values()) or None
        yield _line("all parts", flops, moved, self.floor and 1000 * self.floor, measured)
        if self.floor and self.device:
            link = 1000 * self.frame_bytes / self.device.link
            reached = f"{self.step.clips * 1000 / measured:,.0f} by the parts' times" if measured else "unmeasured here"
            yield f"  at most {self.step.clips / self.floor:,.0f} clips/s; {reached}"
            yield f"  ready frames from the host: {amount(self.frame_bytes)} a step, {link:.1f} ms of the link, beside the step"
        yield from self._render_memory()

    def _render_memory(self) -> Iterator[str]:
        if not self.memory:
            return
        yield f"\nmemory of a rank of {self.ranks:,}, as autograd keeps it, without checkpointing"
        names = [*self.memory]
        yield f"  {'':<40}" + "".join(f"{'parallel=' + name:>18}" for name in names)
        for field in RankMemory._fields:
            held = "".join(f"{amount(getattr(self.memory[name], field)):>18}" for name in names)
            yield f"  {field.replace('_', ' '):<40}{held}"
        yield f"  {'together':<40}" + "".join(f"{amount(one.total):>18}" for one in self.memory.values())


def tell_step(model: Described, settings: DoctorSettings) -> StepReport | None:
    """None where nobody asks for a device, and this machine has none that is known."""
    here = accelerator_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    asked = here if settings.device == "auto" else settings.device
    if asked is None:
        if settings.ranks > 1:
            raise RequestError(f"ranks={settings.ranks}: say of which device, such as device=h100")
        return None
    step = Step(settings.batch or _CLIPS.get(asked, 256), settings.frames, settings.context_length)
    times = {}
    if settings.measure and asked in (here, "cpu") and is_openais(model.towers):
        times = time_parts(model.settings, model.towers, step, torch.device("cpu" if asked == "cpu" else "cuda"))
    memory = {}
    if asked != "cpu":
        for parallel in ("ddp", "fsdp") if settings.ranks > 1 else ("ddp",):
            memory[parallel] = rank_memory(model.settings, model.towers, step, settings.ranks, parallel)
    parts = step_parts(model.settings, model.towers, step)
    return StepReport(
        settings.model,
        step,
        ACCELERATORS.get(asked),
        parts,
        times,
        frame_bytes(model.towers, step),
        settings.ranks,
        memory,
    )


def _line(name: str, flops: int, moved: int, floor: float | None, measured: float | None) -> str:
    told = [f"{one:,.2f}" if one is not None else "-" for one in (floor, measured)]
    return f"  {name:<40}{flops / 1e9:>12,.2f}{moved / 1e9:>9,.2f}{told[0]:>12}{told[1]:>14}"
