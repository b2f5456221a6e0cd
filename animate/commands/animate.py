"""`stillreel animate SOURCE OUT`: plan, see what is there, make the rest, and close the books.

The driver holds no picture and no sample: it writes the plan, hands out shards, counts receipts, and writes the manifest
when every planned shard has one. It may be killed at any moment; the next run starts from what lies in OUT.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence

from stillreel.animate.clips.clip import Stage
from stillreel.animate.executors import Executor, Outcome, open_executor
from stillreel.animate.extend import settle_plans
from stillreel.animate.sources import Source, open_source
from stillreel.animate.task import ShardTask, TooManyRejects, check_libraries
from stillreel.configs import DataError, RequestError
from stillreel.configs.build import AnimateSettings
from stillreel.configs.system.interrupt import stoppable
from stillreel.configs.system.lock import sole_writer
from stillreel.configs.system.progress import Progress, amount, duration, tally
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.survey import Survey, Task, survey
from stillreel.shards.format.manifest import MANIFEST, manifest_of
from stillreel.shards.format.plan import Plan, read_plans

_JUDGED_AFTER = 10_000  # samples; before, the rejects of a few bad shards say little about a large source
_BEAT_S = 1.0


def run(source_url: str, out_url: str, settings: AnimateSettings) -> int:
    """Build, or go on building, the clip shards of SOURCE in OUT; returns the exit code."""
    stage = Stage.of_settings(settings.clip())
    source = open_source(source_url, settings.source)
    folder = Folder(out_url)
    with sole_writer(folder), stoppable("finished shards are kept. Run the same command again to go on"):
        folder.remove_unfinished("shards")
        plans = settle_plans(folder, read_plans(folder), source, stage, settings)
        for plan in plans:
            check_libraries(plan.header.libraries)
        found = survey(folder, plans, full=settings.check == "full")
        _say_survey(plans, found)
        schedule = Schedule(folder, source, plans, found, settings)
        schedule.work_off()
        folder.remove_unfinished("shards")
        if schedule.set_aside:
            names = ", ".join(task.name for task in schedule.set_aside)
            raise DataError(
                f"{len(schedule.set_aside)} of {len(found.findings)} shards were set aside after {settings.attempts} "
                f"attempts: {names}. The others are finished; run the same command again to try these again"
            )
        return _finish(folder, plans)


class Schedule:
    """Hands out the shards that are not valid yet, and takes back receipts and failures."""

    def __init__(
        self, folder: Folder, source: Source, plans: Sequence[Plan], found: Survey, settings: AnimateSettings
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._sources = {plan.header.number: _source_url(plan, source) for plan in plans}
        self._total = sum(plan.samples for plan in plans)
        self._waiting = deque((task, 1) for task in found.open_tasks)
        self._running: dict[tuple[int, int], Task] = {}
        self._budget = RejectBudget(settings.max_rejects, self._total)
        self.set_aside: list[Task] = []
        for receipt in found.receipts:
            self._budget.count(receipt.planned, receipt.rejected)
        self._budget.check()

    def work_off(self) -> None:
        """Make every shard, or set it aside. DataError over the reject budget, RequestError when no worker can work."""
        if not self._waiting:
            return
        with open_executor(self._settings.ray, self._settings.workers) as executor:
            start, before = time.monotonic(), self._budget.done
            with Progress(self._total, "clips", self._settings.progress) as progress:
                progress.skip(before)
                while self._waiting or executor.busy:
                    self._hand_out(executor)
                    outcome = executor.wait(_BEAT_S)
                    if outcome is None:
                        progress.beat()
                    else:
                        progress.advance(self._take(outcome), self._budget.note())
            spent, made = time.monotonic() - start, self._budget.done - before
            _say(f"{made:,} samples in {duration(spent)}, {made / spent:,.1f}/s")

    def _hand_out(self, executor: Executor) -> None:
        while self._waiting and executor.busy < executor.capacity:
            task, attempt = self._waiting.popleft()
            number = task.plan.header.number
            self._running[number, task.shard] = task
            executor.submit(
                ShardTask(
                    out=self._folder.url,
                    plan=number,
                    plan_digest=task.plan.digest,
                    shard=task.shard,
                    source=self._sources[number],
                    attempt=attempt,
                    max_rejected=self._budget.allowed,
                )
            )

    def _take(self, outcome: Outcome) -> int:
        """Book what became of a task; returns how many samples it finished."""
        task = self._running.pop((outcome.task.plan, outcome.task.shard))
        if outcome.receipt is not None:
            self._budget.count(outcome.receipt.planned, outcome.receipt.rejected)
            self._budget.check()
            return outcome.receipt.planned
        if isinstance(outcome.error, RequestError):
            raise outcome.error
        attempt = outcome.task.attempt
        if isinstance(outcome.error, TooManyRejects):
            # It knew the budget of the time when it was handed out; there may be room for its rejects by now.
            self._budget.check(outcome.error.rejected)
            self._waiting.append((task, attempt))
            return 0
        _say(f"{task.name}: attempt {attempt} of {self._settings.attempts} failed: {_one_line(outcome.error)}")
        if attempt < self._settings.attempts:
            self._waiting.append((task, attempt + 1))
        else:
            self.set_aside.append(task)
        return 0


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

    def check(self, more: Mapping[str, int] | None = None) -> None:
        """DataError when there are too many, `more` that are not booked yet included."""
        rejected = self._rejected + Counter(more or {})
        if rejected.total() > self.allowed:
            raise DataError(
                f"stopped: {rejected.total():,} rejects ({tally(rejected)}) are more than "
                f"max_rejects={self._fraction:g} allows of {max(self.done, self._least):,} samples. Finished shards are "
                "kept, and their tables say what is wrong with each reject. Mend the source, or run again with a larger "
                "max_rejects (1: no limit)"
            )

    def note(self) -> str:
        return f"rejected {self._rejected.total():,} ({tally(self._rejected)})" if self._rejected else ""


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


def _one_line(error: Exception | None) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1] if text else ''}"


def _say(text: str) -> None:
    print(text, flush=True, file=sys.stdout)
