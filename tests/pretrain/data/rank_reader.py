"""Runs ranks of a stream under real torchrun: as a module, a rank; imported, what starts them and gathers what they read."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from stillreel.configs import StillreelError
from stillreel.configs.stream import DataSettings
from stillreel.pretrain.data import ClipLoader, Share
from stillreel.shards.stream.stream import State, merged, open_blend
from tests.making import torchrun
from tests.streaming import digest_of

MODULE = "tests.pretrain.data.rank_reader"


@dataclass
class Ranks:
    """What became of a run: torchrun's exit code, each rank's own, when each ended, and the global batches."""

    returncode: int
    stderr: str
    codes: list[int]
    ended: list[float]
    batches: list[list[str]]
    states: list[list[int]]


def run_ranks(
    home: Path,
    data: Path | str,
    settings: DataSettings,
    *,
    batch: int,
    steps: int,
    workers: int,
    state: State | None = None,
    ranks: int = 2,
) -> Ranks:
    """Read some steps with `ranks` processes over gloo. Returns whatever they end with."""
    job = {
        "home": str(home),
        "data": str(data),
        "settings": settings.model_dump(mode="json"),
        "batch": batch,
        "steps": steps,
        "workers": workers,
        "state": None if state is None else state.to_dict(),
    }
    said = torchrun(MODULE, [json.dumps(job)], ranks, timeout=120)
    told = [json.loads((home / f"rank-{rank}.json").read_text()) for rank in range(ranks)]
    return Ranks(
        said.returncode,
        said.stderr,
        [one["code"] for one in told],
        [one["ended"] for one in told],
        [merged(shares) for shares in zip(*(one["batches"] for one in told), strict=False)],
        [one["state"] for one in told],
    )


def read_as_a_rank(job: dict[str, object], rank: int, ranks: int) -> int:
    settings = DataSettings.resolve(job["settings"])  # type: ignore[arg-type]
    blend = open_blend(str(job["data"]))
    given = job["state"]
    loader = ClipLoader(
        blend,
        settings,
        Share(int(str(job["batch"])), rank, ranks),
        workers=int(str(job["workers"])),
        steps=int(str(job["steps"])),
        state=State.from_dict(given) if isinstance(given, dict) else None,
    )
    batches: list[list[str]] = []
    code = 0
    try:
        batches += (digest_of(batch) for batch in loader)
    except StillreelError as error:
        print(f"rank {rank} stops: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    told = {"code": code, "ended": time.time(), "batches": batches, "state": list(loader.state)}
    (Path(str(job["home"])) / f"rank-{rank}.json").write_text(json.dumps(told))
    return code


if __name__ == "__main__":
    import torch.distributed as dist

    dist.init_process_group("gloo")
    sys.exit(read_as_a_rank(json.loads(sys.argv[1]), dist.get_rank(), dist.get_world_size()))
