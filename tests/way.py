"""The way of a picture into a shard, and of a batch into the loss: the files of stillreel that a reader passes, in their order.

    python -m tests.way picture      `stillreel animate` of CLIPS pictures, one shard, in this process
    python -m tests.way batch        one step of `stillreel pretrain demo`, reading included
    python -m tests.way loop         the same with the preset's own batch and worker, which reads in another process

What is counted, by sys.settrace on the main thread:
    call      of a Python function, or a generator that goes on, whose code lies in the package (stillreel.*), in this process
    way       the files of these calls in their order; calls in the file of the call before them count nothing
    files     that are on the way, in the order in which each is first met
    returns   how often the way comes to a file that it has met before
A step is the second of a run, so that what is made once has been made: from the loop's second wish for a batch to its third.
It is of the preset as it is, but for a set of small pictures without held-out clips; and `batch` has workers=0, and CLIPS
clips a batch: most of its calls are of a sample, so its returns grow with them. Those of `loop` do not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, NamedTuple

from stillreel.cli import main
from tests.making import ROOT, animate, picture_folder
from tests.streaming import write_set

CLIPS = 8
_ROOMS = {"stillreel", "configs", "shards", "animate", "pretrain", "finetune"}
_ASKS_FOR_A_BATCH = ("pretrain/engine/prefetcher.py", "__iter__")


class Way(NamedTuple):
    """Files by their paths in the repository."""

    met: list[str]  # no two neighbors are equal

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys(self.met))

    @property
    def returns(self) -> int:
        return len(self.met) - len(self.files)


@contextmanager
def _told_of_calls(hear: Callable[[str, str], None]) -> Iterator[None]:
    """Within it, `hear` is told the file and the name of every function of the package that is called."""

    @cache
    def own(file: str) -> str:
        path = Path(file).resolve()
        inside = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path()
        return str(inside) if inside.parts and inside.parts[0] in _ROOMS else ""

    def trace(frame: FrameType, _event: str, _given: Any) -> None:
        if file := own(frame.f_code.co_filename):
            hear(file, frame.f_code.co_name)

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def way_of_a_batch(home: Path) -> Way:
    """Of a step of CLIPS clips that reads for itself, in a run that is made in `home`."""
    return _way_of_a_step(home, batch=CLIPS, workers=0)


def way_of_the_loop(home: Path) -> Way:
    """Of a step of the preset's, in the process that trains."""
    return _way_of_a_step(home)


def _way_of_a_step(home: Path, **settings: int) -> Way:
    met: list[str] = []
    data, wishes = write_set(home / "clips", [4 * CLIPS]), 0

    def hear(file: str, name: str) -> None:
        nonlocal wishes
        wishes += (file, name) == _ASKS_FOR_A_BATCH
        if wishes == 2 and met[-1:] != [file]:
            met.append(file)

    words = {"data": data, "out": home / "run", "eval.data": "", "steps": 3, **settings}
    words |= {"optimizer.warmup_steps": 1, "log_every": 100, "progress": "off", "device": "cpu"}
    with _told_of_calls(hear):
        assert main(["pretrain", "demo", *(f"{key}={value}" for key, value in words.items())]) == 0
    return Way(met)


def way_of_a_picture(home: Path) -> Way:
    """Of all pictures of a small folder, from the command to the finished data set."""
    met: list[str] = []
    source = picture_folder(home / "stills", CLIPS)

    def hear(file: str, _name: str) -> None:
        if met[-1:] != [file]:
            met.append(file)

    with _told_of_calls(hear):
        assert animate(source, home / "clips") == 0
    return Way(met)


if __name__ == "__main__":
    with TemporaryDirectory() as _home:
        _kinds = {"picture": way_of_a_picture, "batch": way_of_a_batch, "loop": way_of_the_loop}
        _way = _kinds[sys.argv[1]](Path(_home))
    print("\n".join(_way.files))
    print(f"{len(_way.files)} files, {_way.returns} returns")
