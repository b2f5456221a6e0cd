"""What a run tells: metrics.jsonl, TensorBoard, and lines or a bar on stderr. Rank 0 keeps it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from stillreel.configs import RequestError
from stillreel.configs.run import RunSettings
from stillreel.configs.system.progress import Progress
from stillreel.configs.system.storage import Folder
from stillreel.pretrain.run.checkpoint import finite
from stillreel.pretrain.run.meter import Reading

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"


class MetricsLogger:
    """metrics.jsonl in a run's folder, one JSON object a line, and TensorBoard if asked. A context manager.

    It reads as of one run: what a killed run told of steps after its last checkpoint is cut off, for those steps come again.
    Numbers that are not finite are null. A full disk costs lines, and says so; it stops no run.
    """

    def __init__(self, folder: Path, settings: RunSettings, step: int) -> None:
        """`step` is that of the checkpoint that the run goes on from, 0 for a new one. RequestError without tensorboard."""
        self._board = _open_board(folder / TENSORBOARD, step) if settings.tensorboard else None
        self._path = folder / METRICS
        cut_journal(folder, step)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        if self._board is not None:
            self._board.close()

    def write(self, reading: Reading) -> None:
        """A reading of the meter."""
        self._add(reading.step, reading.record())

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Other metrics after so many steps, such as those of an evaluation."""
        self._add(step, finite(metrics))

    def _add(self, step: int, record: Mapping[str, float | None]) -> None:
        line = json.dumps({"step": step, **record}, allow_nan=False).encode() + b"\n"
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) < len(line):
                raise OSError("the disk is full")
        except OSError as error:
            os.ftruncate(self._file, size)  # no half line
            print(f"{self._path}: the line of step {step:,} is lost: {error}", file=sys.stderr, flush=True)
        if self._board is not None:
            for name, value in record.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)


def cut_journal(folder: Path, step: int) -> None:
    """Remove lines of steps after `step` from metrics.jsonl, and what is no whole line."""
    try:
        lines = (folder / METRICS).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    kept = [line for line in lines if line.endswith(b"\n") and _step_of(line) <= step]
    if len(kept) < len(lines):
        Folder(str(folder)).publish(METRICS, b"".join(kept))


def _step_of(line: bytes) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return float("inf")


def _open_board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RequestError(
            'tensorboard=true needs the package tensorboard: pip install "stillreel[tensorboard]", or leave it out'
        ) from None
    # A board leaves out what an earlier file has of these steps.
    return SummaryWriter(str(folder), purge_step=step + 1, flush_secs=30)


class Display:
    """A run on stderr: a bar on a terminal, lines in a log."""

    def __init__(self, steps: int, done: int, settings: RunSettings) -> None:
        """Of `steps` in the whole run, `done` were done before."""
        mode = settings.progress
        if mode == "auto":
            mode = "bar" if sys.stderr.isatty() else "lines"
        self._lines = mode == "lines"
        # Lines are the meter's own, every so many steps; the bar is the one of all long work.
        self._bar = Progress(steps, "steps", "bar" if mode == "bar" else "off")
        self._bar.skip(done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._bar.__exit__(*details)

    def advance(self) -> None:
        """A step is done."""
        self._bar.advance(1)

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()

    def tell(self, reading: Reading) -> None:
        self._bar.advance(0, reading.note())
        if self._lines:
            print(reading.line(), file=sys.stderr, flush=True)
