"""`stillreel animate SOURCE OUT`: plan, see what is there, make the rest, and close the books.

The driver holds no picture and no sample: it writes the plan, hands out shards, counts receipts, and writes the manifest
when every planned shard has one. It may be killed at any moment; the next run starts from what lies in OUT.
"""

from __future__ import annotations

import fcntl
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from animate.clip import Stage
from animate.executors import open_executor
from animate.extend import settle_plans
from animate.sources import Source, open_source
from animate.task import ShardTask, TooManyRejects, check_libraries
from configs import DataError, Interrupted, RequestError
from configs.build import AnimateSettings
from shards.manifest import MANIFEST, manifest_of
from shards.plan import Plan, read_plans
from shards.progress import Progress, amount, tally
from shards.storage import Folder
from shards.survey import Survey, Task, survey

_JUDGED_AFTER = 10_000  # samples; before, the rejects of a few bad shards say little about a large source
_BEAT_S = 1.0


def run(source_url: str, out_url: str, settings: AnimateSettings) -> int:
    """Build, or go on building, the clip shards of SOURCE in OUT; returns the exit code."""
    stage = Stage.of_settings(settings.clip())
    source = open_source(source_url, settings.source)
    folder = Folder(out_url)
    with _sole_writer(folder), _stoppable():
        folder.remove_unfinished("shards")
        plans = settle_plans(folder, read_plans(folder), source, stage, settings)
        for plan in plans:
            check_libraries(plan.header.libraries)
        found = survey(folder, plans, full=settings.check == "full")
        _say_survey(plans, found)
        set_aside = _build(folder, source, plans, found, settings)
        if set_aside:
            names = ", ".join(task.name for task in set_aside)
            raise DataError(
                f"{len(set_aside)} of {len(found.findings)} shards were set aside after {settings.attempts} attempts: "
                f"{names}. The others are finished; run the same command again to try these again"
            )
        return _finish(folder, plans)


def _build(
    folder: Folder, source: Source, plans: Sequence[Plan], found: Survey, settings: AnimateSettings
) -> list[Task]:
    """Make every shard that is not valid yet; returns those that were set aside."""
    total = sum(plan.samples for plan in plans)
    budget = RejectBudget(settings.max_rejects, total)
    for receipt in found.receipts:
        budget.count(receipt.planned, receipt.rejected)
    budget.check()
    waiting = deque((task, 1) for task in found.open_tasks)
    if not waiting:
        return []
    sources = {plan.header.number: _source_url(plan, source) for plan in plans}
    set_aside: list[Task] = []
    with (
        open_executor(settings.ray, settings.workers) as executor,
        Progress(total, "clips", settings.progress) as progress,
    ):
        progress.skip(budget.done)
        running: dict[tuple[int, int], Task] = {}
        while waiting or executor.busy:
            while waiting and executor.busy < executor.capacity:
                task, attempt = waiting.popleft()
                running[task.plan.header.number, task.shard] = task
                executor.submit(_shard_task(folder, task, attempt, sources, budget.allowed))
            outcome = executor.wait(_BEAT_S)
            if outcome is None:
                progress.beat()
                continue
            task = running.pop((outcome.task.plan, outcome.task.shard))
            if outcome.receipt is not None:
                budget.count(outcome.receipt.planned, outcome.receipt.rejected)
                progress.advance(outcome.receipt.planned, budget.note())
                budget.check()
            elif isinstance(outcome.error, TooManyRejects):
                budget.count(0, outcome.error.rejected)
                budget.check()
            elif isinstance(outcome.error, RequestError):
                raise outcome.error
            else:
                attempt = outcome.task.attempt
                _say(f"{task.name}: attempt {attempt} of {settings.attempts} failed: {_one_line(outcome.error)}")
                if attempt < settings.attempts:
                    waiting.append((task, attempt + 1))
                else:
                    set_aside.append(task)
    return set_aside


class RejectBudget:
    """How many samples may be rejected: a fraction of those done, judged over at least 10,000 (or all of fewer)."""

    def __init__(self, fraction: float, total: int) -> None:
        self._fraction = fraction
        self._least = min(total, _JUDGED_AFTER)
        self._rejected: Counter[str] = Counter()
        self.done = 0

    @property
    def allowed(self) -> int:
        """Rejects that are within the budget so far."""
        return int(self._fraction * max(self.done, self._least))

    def count(self, done: int, rejected: Mapping[str, int]) -> None:
        self.done += done
        self._rejected.update(rejected)

    def check(self) -> None:
        """DataError when there are more."""
        if self._rejected.total() > self.allowed:
            raise DataError(
                f"stopped: {self._rejected.total():,} rejects ({tally(self._rejected)}) are more than "
                f"max_rejects={self._fraction:g} allows of {max(self.done, self._least):,} samples. Finished shards are "
                "kept, and their tables say what is wrong with each reject. Mend the source, or run again with a larger "
                "max_rejects (1: no limit)"
            )

    def note(self) -> str:
        return f"rejected {self._rejected.total():,} ({tally(self._rejected)})" if self._rejected else ""


def _shard_task(folder: Folder, task: Task, attempt: int, sources: dict[int, str], allowed: int) -> ShardTask:
    plan = task.plan
    number = plan.header.number
    return ShardTask(folder.url, number, plan.digest, task.shard, sources[number], attempt, allowed)


def _source_url(plan: Plan, source: Source) -> str:
    """Where a plan's source lies: where the user said, if it is that one, since it may have moved; else where it was."""
    said = plan.header.source
    return source.folder.url if said["fingerprint"] == source.fingerprint() else said["url"]


def _finish(folder: Folder, plans: Sequence[Plan]) -> int:
    """Write the manifest from receipts as they now lie in OUT, and say what was made."""
    found = survey(folder, plans, full=False)
    if found.open_tasks:
        raise DataError(
            f"{len(found.open_tasks)} finished shards were changed or removed while the build ran; run it again"
        )
    manifest = manifest_of(plans, found.receipts)
    folder.publish(MANIFEST, manifest.encode())
    totals = manifest.totals
    rejected = sum(totals["rejected"].values())
    reasons = f" ({tally(totals['rejected'])})" if rejected else ""
    _say(
        f"planned {totals['planned']:,} = written {totals['written']:,} + rejected {rejected:,}{reasons}; "
        f"{totals['shards']:,} shards, {amount(totals['bytes'])}, in {folder.url}"
    )
    _say(f"prove it: stillreel verify {folder.url}    see it: stillreel preview {folder.url}")
    return 0


def _say_survey(plans: Sequence[Plan], found: Survey) -> None:
    name = plans[0].header.name
    states = ", ".join(f"{found.count(state):,} {state}" for state in ("valid", "damaged", "stale", "missing"))
    _say(
        f"plan {plans[-1].digest[:8]} of {name}: {sum(plan.samples for plan in plans):,} samples, "
        f"{len(found.findings):,} shards: {states}"
    )
    for finding in found.findings:
        if finding.why:
            _say(f"  {finding.task.name} is {finding.state}: {finding.why}; it is made again")


@contextmanager
def _sole_writer(folder: Folder) -> Iterator[None]:
    """Hold OUT for this driver, as far as the file system can tell; RequestError when another one has it."""
    if not folder.is_local:
        yield
        return
    Path(folder.path).mkdir(parents=True, exist_ok=True)
    with open(folder.locate(".lock"), "w") as file:
        if not _lock(file):
            raise RequestError(f"OUT {folder.url}: another stillreel is building it")
        yield


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: nothing can be said
    return True


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into Interrupted: finished shards stay, nothing half-made is left."""

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        terminated = interrupt.args == (signal.SIGTERM,)
        raise Interrupted(
            "stopped; finished shards are kept. Run the same command again to go on", 75 if terminated else 130
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _one_line(error: Exception | None) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1] if text else ''}"


def _say(text: str) -> None:
    print(text, flush=True, file=sys.stdout)
