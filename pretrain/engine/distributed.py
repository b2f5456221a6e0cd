"""The processes that train together: one alone, or as many as torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist

from stillreel.configs import RequestError

_PATIENCE = timedelta(minutes=15)  # for a collective: longer than a loader may take


class Ranks(NamedTuple):
    """This process among those of a run."""

    rank: int
    ranks: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this one writes and prints what is everybody's."""
        return self.rank == 0


@contextmanager
def init_distributed(device: Literal["auto", "cpu", "cuda"]) -> Iterator[Ranks]:
    """Join the others, as torchrun's environment says, and leave them in the end. Without torchrun there are none.

    RequestError where the device is not there, or where a machine has more ranks than devices.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    found = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if ranks == 1:
        yield Ranks(0, 1, found)
        return
    # Control goes over CPU sockets, gradients over NCCL where there is CUDA.
    backend = "cpu:gloo,cuda:nccl" if found.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Ranks(dist.get_rank(), ranks, found)
    finally:
        dist.destroy_process_group()


def _device(asked: str, local: int) -> torch.device:
    there = torch.cuda.device_count()
    if asked == "cpu" or (asked == "auto" and not there):
        return torch.device("cpu")
    if local >= there:
        raise RequestError(
            f"device={asked}: rank {local} of this machine needs a CUDA device of its own, and there are {there}; "
            "start fewer ranks a machine (torchrun --nproc-per-node), or use device=cpu"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
