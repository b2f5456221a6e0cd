"""A run in shards that saves and goes on, under real torchrun: each rank writes what it saw to HOME/WORD-RANK.json.

WORD: save SHARD OUT           two steps, a checkpoint, two steps more
      go-on SHARD OUT          from its latest checkpoint, two steps
      full SHARD OUT           the last rank's disk is full
      die SHARD OUT            the last rank is killed while it writes its part
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from stillreel.configs import StillreelError
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.engine.state import gather_tensors
from stillreel.pretrain.objectives.gather import rank_count
from stillreel.pretrain.run import RunFolder, restore_snapshot, take_parts, take_snapshot
from tests.pretrain.layouts import Run
from tests.pretrain.run.making import BINDING, equal, state_at, toy_settings

MODULE = "tests.pretrain.run.part_runner"
CASE = "clip2video"


def losses_of(run: Run, steps: range) -> list[float]:
    """Of the whole batch, in each step before it is taken."""
    found = []
    for number in steps:
        loss = torch.tensor(run.backward(), dtype=torch.float64)
        if rank_count() > 1:
            dist.all_reduce(loss)
        found.append(loss.item() / rank_count())
        run.step(number)
    return found


def go_on(out: Path, shard: str, together: Together, rank: int) -> list[float]:
    run = Run(CASE, parallel=shard)
    with RunFolder(str(out), toy_settings(), together, rank) as folder:
        found = folder.begin(toy_settings(), BINDING)
        assert found is not None and found.step == 2
        snapshot = found.read()
        restore_snapshot(snapshot, run.task, run.optimizer)
        run.average.load(snapshot.group("ema"))
        back = take_parts(run.task, run.optimizer, {"ema": run.average.averages})
        whole = gather_tensors(back.training)
        if whole is not None:
            assert equal(whole, {name: one[:] if one.shape else one for name, one in snapshot.training.items()})
    return losses_of(run, range(2, 4))


def save(out: Path, shard: str, together: Together, rank: int) -> dict[str, Any]:
    run = Run(CASE, parallel=shard)
    losses_of(run, range(2))
    with RunFolder(str(out), toy_settings(), together, rank) as folder:
        folder.begin(toy_settings(), BINDING)
        folder.save(run.task.model, take_parts(run.task, run.optimizer, {"ema": run.average.averages}), state_at(2))
        ways = take_snapshot(run.task, run.optimizer)
        if ways is not None:
            torch.save(ways.weights, out.parent / f"{out.name}-weights.pt")
    return {"losses": losses_of(run, range(2, 4))}


def fail(out: Path, shard: str, together: Together, rank: int, dies: bool) -> dict[str, Any]:
    run = Run(CASE, parallel=shard)
    losses_of(run, range(3))
    told = ""
    with RunFolder(str(out), toy_settings(), together, rank) as folder:
        folder.begin(toy_settings(), BINDING)
        parts = take_parts(run.task, run.optimizer, {"ema": run.average.averages})
        if rank == dist.get_world_size() - 1:
            if dies:  # by the system, at the byte that goes too far
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        try:
            folder.save(run.task.model, parts, state_at(3))
        except StillreelError as error:
            told = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return {"told": told}


def main(home: Path, jobs: list[str]) -> None:
    rank = dist.get_rank()
    together = Together(dist.get_world_size(), 60)
    for job in jobs:
        word, shard, out = job.split(":")
        told: dict[str, Any]
        if word == "save":
            told = save(home / out, shard, together, rank)
        elif word == "go-on":
            told = {"losses": go_on(home / out, shard, together, rank)}
        else:
            told = fail(home / out, shard, together, rank, dies=word == "die")
        (home / f"{word}-{shard}-{out}-{dist.get_world_size()}-{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    main(Path(sys.argv[1]), sys.argv[2:])
    dist.destroy_process_group()
