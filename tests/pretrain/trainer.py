"""`stillreel pretrain` with a spy: as a module, a process of a run; imported, what starts one and reads what it left.

The spy writes the keys of each batch that a rank trains on, can spoil one, can kill a rank in the midst of a step, and can ask
for a stop as a scheduler would, or be slow on a rank: nothing else is changed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from tests.making import torchrun
from tests.warm import Warm

MODULE = "tests.pretrain.trainer"

# A model of milliseconds, on pictures of 64 x 48.
SMALL = {
    "batch": 8,
    "steps": 12,
    "workers": 1,
    "threads": 1,
    "device": "cpu",
    "frames": 2,
    "context_length": 8,
    "lanes": 4,
    "optimizer.warmup_steps": 4,
    "save_every": 3,
    "log_every": 1,
    "progress": "lines",
}


def words_of(data: Path | str, out: Path, **settings: object) -> list[str]:
    """The command's words; dots of names are written as two underscores."""
    given = {key.replace("__", "."): value for key, value in settings.items()}
    values = {**SMALL, "data": data, "eval.data": "", "out": out, **given}
    return ["pretrain", "demo", *(f"{key}={value}" for key, value in values.items())]


class Place(NamedTuple):
    """A rank, and a step of it."""

    rank: int
    step: int


class Slow(NamedTuple):
    """A rank whose loader sleeps before it hands over the batches of steps 2 and 3; and two reads of whose disk take as long,
    those that come first after step `LATE`."""

    rank: int
    seconds: float


LATE = 5


def _job(
    words: list[str],
    home: Path,
    spoil: Place | None = None,
    stop: int = 0,
    die: Place | None = None,
    slow: Slow | None = None,
) -> list[str]:
    home.mkdir(parents=True, exist_ok=True)
    return [json.dumps({"words": words, "home": str(home), "spoil": spoil, "stop": stop, "die": die, "slow": slow})]


def start(words: list[str], home: Path) -> Warm:
    """A run in one process, under way."""
    return Warm(MODULE, _job(words, home))


def finish(
    words: list[str],
    home: Path,
    *,
    ranks: int = 0,
    spoil: Place | None = None,
    stop: int = 0,
    die: Place | None = None,
    slow: Slow | None = None,
) -> tuple[int, str]:
    """A run, until it ends; its exit code and what it said. With `ranks` it is torchrun's, whose code is 1 for every failure.

    Rank 0 asks for a `stop` while the batch of that step is under way. `die` kills a rank there, once; torchrun may start all
    ranks again two times.
    """
    job = _job(words, home, spoil, stop, die, slow)
    alone = ranks == 0
    done = Warm(MODULE, job).finish(300) if alone else torchrun(MODULE, job, ranks, 300, restarts=2 if die else 0)
    return done.returncode, done.stderr


def losses_of(out: Path) -> dict[int, float]:
    """By step, as metrics.jsonl has them."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def keys_of(home: Path, ranks: int) -> dict[int, list[str]]:
    """The keys of each global batch, in the order of slots, by the steps that were done after it."""
    of_ranks = [
        dict(json.loads(line) for line in (home / f"keys-{rank}.jsonl").read_text().splitlines())
        for rank in range(ranks)
    ]
    return {
        step: [key for slots in zip(*(one[step] for one in of_ranks), strict=True) for key in slots]
        for step in of_ranks[0]
    }


def tensors_of(out: Path, step: int) -> dict[str, Tensor]:
    """Everything that a checkpoint holds."""
    folder = out / "checkpoints" / f"step-{step:08d}"
    return load_file(folder / "model.safetensors") | load_file(folder / "training.safetensors")


def _straggle(seconds: float) -> Callable[[], None]:
    """Have two reads from the disk of this process take so long, once what is returned was called."""
    from stillreel.configs.system.storage import Folder, Range

    left, read = 0, Folder.read_ranges

    def slowly(self: Folder, ranges: Sequence[Range], most: int = 1 << 40) -> Iterator[bytes | None]:
        nonlocal left
        if left:
            left -= 1
            time.sleep(seconds)
        return read(self, ranges, most)

    def begin() -> None:
        nonlocal left
        left = 2

    Folder.read_ranges = slowly  # type: ignore[method-assign]
    return begin


def _spied(home: Path, spoil: list[int] | None, stop: int, die: list[int] | None, slow: list[Any] | None) -> type:
    from stillreel.pretrain.engine.prefetcher import DeviceBatch, DevicePrefetcher

    rank, restarts = int(os.environ.get("RANK", "0")), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))

    delay = slow[1] if slow and slow[0] == rank else 0
    begin = _straggle(delay)

    class Spied(DevicePrefetcher):
        def __iter__(self) -> Iterator[DeviceBatch]:
            with (home / f"keys-{rank}.jsonl").open("a") as file:
                for fed in super().__iter__():
                    if delay and fed.after.steps in (2, 3):
                        time.sleep(delay)
                    if delay and fed.after.steps == LATE:
                        begin()
                    if spoil == [rank, fed.after.steps]:
                        fed.batch.frames[0, 0, 0, 0, 0] = float("nan")
                    if die == [rank, fed.after.steps] and not restarts:
                        os.kill(os.getpid(), signal.SIGKILL)
                    if rank == 0 and stop == fed.after.steps:
                        os.kill(os.getpid(), signal.SIGUSR1)
                    print(json.dumps([fed.after.steps, fed.keys]), file=file, flush=True)
                    yield fed

    return Spied


def _main(job: dict[str, Any]) -> int:
    import stillreel.cli
    from stillreel.pretrain.commands import pretrain as command

    command.DevicePrefetcher = _spied(Path(job["home"]), job["spoil"], job["stop"], job["die"], job["slow"])  # type: ignore[misc]
    return stillreel.cli.main(job["words"])


if __name__ == "__main__":
    sys.exit(_main(json.loads(sys.argv[1])))
