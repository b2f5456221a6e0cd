"""What a GPU day is asked for, and a phase of it under way. Imports no torch: processes that draw pictures load this too."""

from __future__ import annotations

import math
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PHASES = ("smoke", "race", "stream", "renderer", "profile")  # in their order; shards are made beside the first one


class Size(NamedTuple):
    """A model, what its clips are, and how many of them a step has at most."""

    name: str
    towers: str
    frames: int
    pixels: int
    batch: int
    clip_gb: float  # of activations, in eager steps in bf16


SIZES = {
    "b32": Size("ViT-B/32", "ViT-B-32-quickgelu", 12, 224, 320, 0.32),
    "b16": Size("ViT-B/16", "ViT-B-16-quickgelu", 12, 224, 96, 1.25),  # 197 tokens a frame for 50
    "tiny": Size("tiny", "tiny", 4, 64, 4, 0.001),
}


class Options(NamedTuple):
    """What the command says."""

    folder: Path | None
    device: str
    size: Size
    batch: int  # clips of a step; 0: as many as the card's memory holds
    phases: tuple[str, ...]
    compile: bool
    grammar: str
    out: Path
    shards: Path  # where they are made
    rounds: int
    steps: int
    warmup: int
    workers: int
    seconds: int
    stream_seconds: int
    pictures: int

    @property
    def on_cuda(self) -> bool:
        return self.device == "cuda"


_NUMBERS = {"rounds": 3, "steps": 8, "warmup": 3, "workers": 16, "seconds": 360, "stream_seconds": 20}


def read_options(words: list[str]) -> Options:
    """SystemExit where a word is unknown, or names an unknown size or phase."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    folders = [Path(word) for word in words if "=" not in word]
    device = given.pop("device", "cuda")
    usual = _NUMBERS | {"pictures": 512 if device == "cuda" else 32}
    numbers = {name: int(given.pop(name, value)) for name, value in usual.items()}
    name, phases = given.pop("size", "b32"), tuple(given.pop("phases", ",".join(PHASES)).split(","))
    wrong = [f"size={name}"] * (name not in SIZES) + [f"phases={one}" for one in phases if one not in PHASES]
    compiled, grammar, out = given.pop("compile", "on"), given.pop("grammar", "film"), Path(given.pop("out", "gpu-day"))
    batch = int(given.pop("batch", 0))
    wrong += [f"{key}={value}" for key, value in given.items()]
    wrong += [f"compile={compiled}"] * (compiled not in ("on", "off")) + [f"device={device}"] * (
        device not in ("cuda", "cpu")
    )
    wrong += [str(one) for one in folders[1:]]
    if wrong:
        raise SystemExit(f"unknown: {' '.join(wrong)}; see the first lines of benchmarks/gpu_pretrain.py")
    folder, home = folders[0] if folders else None, Path()
    return Options(folder, device, SIZES[name], batch, phases, compiled == "on", grammar, out, home, **numbers)


class Overdue(BaseException):
    """The time of a section is up. No Exception, so that no compiler takes it for an error of what it compiles."""


class Phase:
    """A part of the day in a process of its own: what it tells, what time is left to it, and what failed in it."""

    def __init__(self, options: Options, end: float) -> None:
        """`end` is by `time.monotonic`, which is one clock for all processes."""
        self._file = options.out / "results.txt"
        self._end = end
        self.failed: list[str] = []

    def tell(self, line: str) -> None:
        """Print a line, and have it on disk before anything else can go wrong."""
        print(line, flush=True)
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def left(self) -> float:
        return self._end - time.monotonic()

    def allows(self, section: str, needed: float = 1.0) -> bool:
        """Whether there are so many seconds; what is left out is named."""
        if self.left() >= needed:
            return True
        self.tell(f"  {section:<10} left out: {max(self.left(), 0):.0f} s are left")
        return False

    def fail(self, section: str) -> None:
        """Tell of the exception that is being handled."""
        self.tell(f"  {section:<10} failed:\n{traceback.format_exc().rstrip()}")
        self.failed.append(section)

    def attempt(self, section: str, act: Callable[[], object], seconds: float | None = None) -> bool:
        """Call `act`, in the main thread; whether it came to its end.

        Whatever goes wrong in it is told with its traceback. After `seconds` (None: all that are left, less two) it is
        interrupted, and that is told.
        """
        limit = min(self.left() - 2, seconds or math.inf)
        if limit <= 0:
            self.allows(section, 3)
            return False
        before = signal.signal(signal.SIGALRM, _ring)
        # Again and again: what is raised while something is being freed goes lost.
        signal.setitimer(signal.ITIMER_REAL, limit, 0.5)
        try:
            act()
            return True
        except Overdue:
            self.tell(f"  {section:<10} left out: not done within {limit:.0f} s")
        except Exception:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.fail(section)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return False


def _ring(_signal: int, _frame: object) -> None:
    raise Overdue
