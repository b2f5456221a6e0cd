"""What tests of a run's folder make: a small task that has taken steps, and checkpoints of it."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field
from torch.optim import AdamW

from stillreel.configs.run import RunSettings
from stillreel.configs.train import ObjectiveSettings, OptimizerSettings
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.engine.optimizer import build_optimizer
from stillreel.pretrain.objectives import Task
from stillreel.pretrain.run import RunFolder, take_snapshot
from stillreel.shards.stream.stream import State
from tests.pretrain.zoo import tiny

BINDING = {"seed", "width"}


class ToySettings(RunSettings):
    """Of a run that stands in for a whole preset's."""

    seed: int = 0
    width: int = 4
    optimizer: OptimizerSettings = OptimizerSettings()
    curriculum: dict[int, int] = Field({})


def toy_settings(*, seed: int = 0, width: int = 4, lr: float = 4e-6, **run: object) -> ToySettings:
    return ToySettings.resolve({"keep_last": 3, **run, "seed": seed, "width": width, "optimizer": {"lr": lr}})


def toy_task() -> tuple[Task, AdamW]:
    """With a weight of its own (the sigmoid's bias), and rates in several groups."""
    task = Task(tiny("seq"), ObjectiveSettings(sigmoid=0.5))
    return task, build_optimizer(task, OptimizerSettings(lr=1e-3, lr_new=1e-2, layer_decay=0.9))


def take_steps(task: Task, optimizer: AdamW, steps: int) -> None:
    """With made-up gradients, which depend on the weights: what differs once differs for ever."""
    for _ in range(steps):
        for weight in task.parameters():
            weight.grad = (weight.detach() * 3 + 0.1).sin()
        optimizer.step()


def state_at(step: int) -> State:
    return State(samples=8 * step, steps=step, fingerprint=1 << 62)


def folder_at(out: Path, settings: ToySettings) -> RunFolder:
    return RunFolder(str(out), settings, Together(1, 10), rank=0)


def run_to(out: Path, *steps: int, metrics: dict[int, float] | None = None, **settings: object) -> None:
    """A run that goes on if it can, and saves after these steps."""
    chosen = toy_settings(**settings)  # type: ignore[arg-type]
    task, optimizer = toy_task()
    with folder_at(out, chosen) as folder:
        folder.begin(chosen, BINDING)
        for step in steps:
            told = {"score": metrics[step]} if metrics and step in metrics else None
            folder.save(task.model, take_snapshot(task, optimizer), state_at(step), told)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def saved_steps(out: Path) -> list[str]:
    """All that lies among the checkpoints, hidden files included."""
    return sorted(path.name for path in (out / "checkpoints").iterdir())
