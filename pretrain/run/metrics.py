"""What a run tells: metrics.jsonl, trackers, and a bar or lines of the log. Rank 0 keeps it."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from stillreel.configs.run import RunSettings
from stillreel.configs.system.claims import parse_json
from stillreel.configs.system.progress import Progress
from stillreel.configs.system.storage import Folder
from stillreel.pretrain.run.checkpoint import finite
from stillreel.pretrain.run.meter import Reading
from stillreel.pretrain.run.trackers import open_trackers

METRICS = "metrics.jsonl"
_log = logging.getLogger(__name__)


class MetricsLogger:
    """metrics.jsonl in a run's folder, one JSON object a line, and the trackers that are asked for. A context manager.

    It reads as of one run: what a killed run told of steps after its last checkpoint is cut off, for those steps come again.
    Numbers that are not finite are null. A full disk costs lines, a tracker that fails what it would have had, and it is said;
    neither stops a run.
    """

    def __init__(self, folder: Path, settings: RunSettings, step: int) -> None:
        """`step` is that of the checkpoint that the run goes on from, 0 for a new one. RequestError from a tracker."""
        self._trackers = open_trackers(folder, settings, step)
        self._path = folder / METRICS
        cut_journal(folder, step)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        for tracker in self._trackers:
            try:
                tracker.close(error)
            except Exception as failure:
                _log.warning(f"{type(tracker).__name__} failed at the end: {_in_words(failure)}")

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
            _log.warning(f"{self._path}: the line of step {step:,} is lost: {error}")
        known = {name: value for name, value in record.items() if value is not None}
        for tracker in [*self._trackers]:
            # A tracker is another's program: whatever breaks in it, such as a process of its own that is killed, the run goes on.
            try:
                tracker.log(step, known)
            except Exception as error:
                self._trackers.remove(tracker)
                _log.warning(
                    f"{type(tracker).__name__} failed at step {step:,}, and is told no more: {_in_words(error)}"
                )


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
        return int(parse_json(line)["step"])
    except (ValueError, TypeError, KeyError):
        return float("inf")


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class Display:
    """A run as it goes: a bar on a terminal, else lines of the log."""

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

    def tell(self, reading: Reading) -> None:
        self._bar.advance(0, reading.note())
        if self._lines:
            _log.info(reading.line())
