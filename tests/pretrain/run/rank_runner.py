"""What ranks of a run do together, under real torchrun: each writes what it saw to HOME/rank-N.json."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from stillreel.configs import StillreelError
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.run import Meter, PreemptionHandler, RunFolder, StepValues, restore_snapshot, take_snapshot
from tests.pretrain.run.making import BINDING, equal, state_at, take_steps, toy_settings, toy_task

MODULE = "tests.pretrain.run.rank_runner"


def message_of(work: object) -> str:
    """The error of a call, with its exit code."""
    try:
        work()  # type: ignore[operator]
    except StillreelError as error:
        return f"{error.exit_code} {error}"
    return ""


def save_and_go_on(home: Path, rank: int, together: Together) -> dict[str, object]:
    settings = toy_settings()
    task, optimizer = toy_task()
    take_steps(task, optimizer, 2)
    snapshot = take_snapshot(task, optimizer)
    told: dict[str, object] = {}
    with RunFolder(str(home / "out"), settings, together, rank) as folder:
        told["begun"] = folder.begin(settings, BINDING) is None
        folder.save(task.model, snapshot, state_at(2))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if rank == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        told["full"] = message_of(lambda: folder.save(task.model, snapshot, state_at(3)))
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with RunFolder(str(home / "out"), settings, together, rank) as folder:
        found = folder.begin(settings, BINDING)
        told["found"] = None if found is None else [found.step, str(found.path), found.stream]
        other = toy_settings(seed=1)
        told["refused"] = message_of(lambda: folder.begin(other, BINDING))
    return told


def cut_and_join(together: Together) -> dict[str, object]:
    """A run whose weights and optimizer's state lie in shards, saved and restored."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    whole, its_optimizer = toy_task()
    take_steps(whole, its_optimizer, 2)
    expected = together.hear(take_snapshot(whole, its_optimizer))
    task, optimizer = toy_task()
    for name, weight in list(task.named_parameters()):
        if weight.ndim:
            parent, _, last = name.rpartition(".")
            cut = torch.nn.Parameter(distribute_tensor(weight.detach(), mesh, [Shard(0)]))
            for group in optimizer.param_groups:
                group["params"] = [cut if one is weight else one for one in group["params"]]
            setattr(task.get_submodule(parent), last, cut)
    restore_snapshot(expected, task, optimizer)
    found = together.hear(take_snapshot(task, optimizer))
    local = sum(one.to_local().nbytes if hasattr(one, "to_local") else one.nbytes for one in task.parameters())
    return {
        "weights": equal(found.weights, expected.weights),
        "training": equal(found.training, expected.training),
        "share": local / sum(one.nbytes for one in whole.parameters()),
    }


def stop(rank: int, together: Together) -> dict[str, object]:
    """Only the last rank is asked, in the middle of step 3."""
    with PreemptionHandler() as wish:
        for step in range(1, 10):
            if rank == dist.get_world_size() - 1 and step == 3:
                os.kill(os.getpid(), signal.SIGUSR1)
            if code := wish.agreed(together):
                return {"stopped": [step, code]}
    return {}


def read(rank: int) -> dict[str, object]:
    loss = torch.tensor(float(rank + 1))
    values = StepValues(loss, {"infonce": loss * 2}, torch.tensor(1.0), torch.tensor(14.0), 0.5)
    meter = Meter(torch.device("cpu"), 10, 100)
    meter.count(8, 0.0)
    return {"values": dict(meter.read(state_at(1), values).values)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    _home, _rank = Path(sys.argv[1]), dist.get_rank()
    _together = Together(dist.get_world_size(), 60)
    _told = {
        **save_and_go_on(_home, _rank, _together),
        **cut_and_join(_together),
        **stop(_rank, _together),
        **read(_rank),
    }
    (_home / f"rank-{_rank}.json").write_text(json.dumps(_told))
    dist.destroy_process_group()
