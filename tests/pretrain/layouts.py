"""Runs of one layout (a process alone, DDP, FSDP2): under real torchrun as a module, or in this process.

torchrun ... layouts WORD HOME [CASE ...]    WORD: gradients, or save or load and NAME of the state
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from stillreel.configs.train import EmaSettings, EngineSettings, OptimizerSettings
from stillreel.pretrain.engine.accumulation import backpropagate
from stillreel.pretrain.engine.ema import ModelEma
from stillreel.pretrain.engine.optimizer import build_optimizer, freeze_towers
from stillreel.pretrain.engine.parallel import clip_gradients, gathered, parallelize
from stillreel.pretrain.engine.state import State, gather_state, set_state
from stillreel.pretrain.objectives import Task
from stillreel.pretrain.objectives.gather import rank_count
from tests.pretrain.gradients import build_task, share_of, whole_batch, worst_error

MODULE = "tests.pretrain.layouts"
RATES = OptimizerSettings(lr=1e-3, lr_new=1e-3)
AVERAGE = EmaSettings(decay=0.9)
CASE = "clip2video, all"
Layout = Literal["ddp", "fsdp", "hsdp"]
SHARDS: dict[str, Layout] = {"ddp": "ddp", "fsdp": "fsdp"}
MOVES = [("alone", "fsdp"), ("ddp", "fsdp"), ("fsdp", "ddp")]
# On several machines.
TWO_LEVELS: dict[str, Layout] = {"hsdp": "hsdp"}
TWO_LEVEL_MOVES = [("alone", "hsdp"), ("hsdp", "fsdp")]


class Run:
    """A task in its layout, with everything that follows its steps."""

    def __init__(self, case: str = CASE, **engine: Any) -> None:
        self.task: Task = build_task(case)
        freeze_towers(self.task, RATES)
        self.wrapped: nn.Module = parallelize(self.task, EngineSettings(**engine))
        self.optimizer: AdamW = build_optimizer(self.task, RATES)
        self.average = ModelEma(self.task, AVERAGE)

    def backward(self, chunk: int = 0) -> float:
        rank = dist.get_rank() if rank_count() > 1 else 0
        self.optimizer.zero_grad()
        return backpropagate(self.wrapped, share_of(whole_batch(), rank, rank_count()), micro_batch=chunk).total.item()

    def step(self, number: int, chunk: int = 0) -> None:
        self.backward(chunk)
        clip_gradients(self.task, 0.5)
        self.optimizer.step()
        self.task.clamp_scale()
        self.average.update(number)

    def save(self, path: Path) -> None:
        state, average = gather_state(self.task, self.optimizer), self.average.gather()
        assert (state is None) == (average is None)
        if state is not None:
            torch.save({**state._asdict(), "average": average}, path)

    def load(self, path: Path) -> None:
        found = torch.load(path, weights_only=True)
        self.average.load(found.pop("average"))
        set_state(self.task, self.optimizer, State(**found))


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def measure(home: Path, case: str, shard: str, chunk: int) -> dict[str, Any]:
    """The worst error of gradients, the names of weights, and what clipping says and does."""
    run = Run(case, parallel=shard, activation_checkpointing=True)
    if shard == "fsdp":  # evaluation may come before the first step
        with gathered(run.task), torch.no_grad():
            run.task.model.encode_video(whole_batch().frames[:2])
    before = torch.get_rng_state()
    run.backward(chunk)
    drew = not torch.equal(torch.get_rng_state(), before)
    found = {name: whole(one.grad) for name, one in run.task.named_parameters() if one.grad is not None}
    right = torch.load(home / f"{case}.pt", weights_only=True, mmap=True)
    error, worst = worst_error(found, right)
    length = torch.stack([one.norm() for one in right.values()]).norm().item()
    norm = clip_gradients(run.task, length / 3).item()
    clipped = {name: whole(one.grad) for name, one in run.task.named_parameters() if one.grad is not None}
    cut = worst_error(clipped, {name: one / 3 for name, one in right.items()})[0]
    return {"error": error, "worst": worst, "norm": norm / length - 1, "cut": cut, "drew": drew}


def move(home: Path) -> None:
    """Save after two steps in each layout; load each, and what `alone` saved, in another one, and go on for two steps."""
    several = dist.get_world_size() > int(os.environ["LOCAL_WORLD_SIZE"])
    for name, shard in (TWO_LEVELS if several else SHARDS).items():
        run = Run(parallel=shard)
        for number in range(2):
            run.step(number, chunk=3 * number)
        run.save(home / name)
    dist.barrier()
    for start, end in TWO_LEVEL_MOVES if several else MOVES:
        run = Run(parallel=(SHARDS | TWO_LEVELS)[end])
        run.load(home / start)
        for number in (2, 3):
            run.step(number, chunk=3 * (number - 2))
        run.save(home / f"{start}-{end}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    _home, *_cases = sys.argv[1:]
    _several = dist.get_world_size() > int(os.environ["LOCAL_WORLD_SIZE"])
    if not _cases:
        move(Path(_home))
    else:
        _told = {
            f"{_layout}, {_case}, chunk {_chunk}": measure(Path(_home), _case, _shard, _chunk)
            for _layout, _shard in (TWO_LEVELS if _several else SHARDS).items()
            for _case in _cases
            for _chunk in (0, 3)
        }
        (Path(_home) / f"{dist.get_rank()}.json").write_text(json.dumps(_told))
    dist.destroy_process_group()
