"""Tries inputs, in processes of their own: what crashes or hangs one is counted, and the next goes on."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection, wait
from pathlib import Path

PATIENCE_S = 60.0  # an input that takes longer hangs
_MEMORY = 6 << 30
_TRIES = 1000  # inputs of one process


class Bench:
    """Whole files of each target, made once, and one that is changed."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def try_one(self, name: str, number: int) -> str:
        """What became of an input: "fine", or the kind of failure and what it was."""
        from stillreel.configs import StillreelError
        from tests.fuzz.targets import TARGETS, mutate_of

        target, dice = TARGETS[name], random.Random(f"{name} {number}")
        whole, case = self._home / name / "whole", self._home / name / "case"
        if not whole.exists():
            whole.mkdir(parents=True)
            target.make(whole)
        shutil.rmtree(self._home / name / "catalog", ignore_errors=True)
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(whole, case)
        files = sorted(path for path in case.rglob("*") if path.is_file() and not path.name.startswith("."))
        path = dice.choice(files)
        data = path.read_bytes()
        changed = mutate_of(path)(data, dice)
        if changed == data:
            return "fine"
        path.write_bytes(changed)
        if name == "data set" and dice.random() < 0.3:  # a build that goes on, from what lies there
            (case / "manifest.json").unlink(missing_ok=True)
        before = self._outside()
        is_well: bool | None = None
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                is_well = target.read(case)
        except StillreelError:
            pass
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            return (
                f"traceback: {type(error).__name__}: {str(error)[:150]} ({path.name}, {place.filename}:{place.lineno})"
            )
        if self._outside() != before:
            return f"outside: {sorted(self._outside() - before)[:3]} ({path.name})"
        return f"wrong OK: {path.relative_to(case)}" if is_well else "fine"

    def _outside(self) -> set[str]:
        """Everything but the case's own files, and the catalog that is made beside it."""
        found = set()
        for root, folders, files in os.walk(self._home):
            folders[:] = [one for one in folders if one not in ("case", "catalog", "whole")]
            found |= {os.path.join(root, one) for one in (*files, *folders)}
        return found


def serve(pipe: Connection) -> None:
    """A worker: inputs come by the pipe, and what became of them goes back."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    logging.disable(logging.CRITICAL)
    home = Path(tempfile.mkdtemp(prefix="fuzz-"))
    bench = Bench(home / "home" / "inner")
    try:
        while (asked := pipe.recv()) is not None:
            pipe.send(bench.try_one(*asked))
    finally:
        shutil.rmtree(home, ignore_errors=True)


class Worker:
    """A process that tries inputs, and is replaced when it crashes or hangs."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.input: tuple[str, int] | None = None
        self.tried = 0
        self.deadline = 0.0

    def give(self, name: str, number: int) -> None:
        self.input, self.deadline = (name, number), time.monotonic() + PATIENCE_S
        self.pipe.send(self.input)

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def fuzz(seconds: float, seed: int, workers: int, only: str = "") -> tuple[Counter[str], dict[str, str]]:
    """Counts of inputs by target and of failures by kind; and the failures, the first of each sort, by input."""
    from tests.fuzz.targets import TARGETS

    names = [name for name in TARGETS if only in ("", name)]
    counts: Counter[str] = Counter()
    failures: dict[str, str] = {}
    at, end = 0, time.monotonic() + seconds
    pool = [Worker() for _ in range(workers)]
    try:
        while True:
            for place, worker in enumerate(pool):
                if worker.input is None and time.monotonic() < end:
                    worker.give(names[at % len(names)], seed * 10_000_000 + at // len(names))
                    at += 1
                elif worker.input is not None:
                    outcome = _outcome(worker)
                    if outcome is None:
                        continue
                    name, number = worker.input
                    counts["inputs"] += 1
                    counts[name] += 1
                    worker.input = None
                    worker.tried += 1
                    if outcome != "fine":
                        counts[outcome.partition(":")[0]] += 1
                        failures[f"{name} {number}"] = outcome
                        print(f"{name} {number}: {outcome}", flush=True)
                    # An address space that has held thousands of inputs is in pieces, and its limit is met by none of them.
                    if outcome.startswith(("crash", "hang")) or worker.tried == _TRIES:
                        worker.end()
                        pool[place] = Worker()
            if time.monotonic() >= end and all(worker.input is None for worker in pool):
                return counts, failures
            wait([worker.pipe for worker in pool if worker.input is not None], 0.2)
    finally:
        for worker in pool:
            worker.end()


def _outcome(worker: Worker) -> str | None:
    try:
        if worker.pipe.poll():
            return str(worker.pipe.recv())
    except (EOFError, OSError):
        worker.process.join()
        return f"crash: exit {worker.process.exitcode}"
    return "hang: no answer" if time.monotonic() > worker.deadline else None
