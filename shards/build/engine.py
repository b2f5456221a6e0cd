"""The run of a build, whatever its shards are made of: plan, see what is there, make the rest, and close the books.

The driver holds no sample: it writes the plan, hands out shards, counts receipts, and writes the manifest when every planned
shard has one. It may be killed at any moment; the next run starts from what lies in OUT.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, NamedTuple

from stillreel.configs import DataError, RequestError, StorageRefused
from stillreel.configs.build import BuildSettings
from stillreel.configs.system.claims import read_parquet
from stillreel.configs.system.interrupt import stoppable
from stillreel.configs.system.lock import sole_writer
from stillreel.configs.system.progress import Progress, amount, duration, tally
from stillreel.configs.system.storage import Folder, writing
from stillreel.shards.build.executors import Executor, MakeShard, Outcome, ShardTask, open_executor
from stillreel.shards.build.hosts import Proof, Witness, proof_in
from stillreel.shards.build.isolated import GUILTY
from stillreel.shards.build.journal import Journal, one_line
from stillreel.shards.build.late import LateShards
from stillreel.shards.build.libraries import check_libraries
from stillreel.shards.build.metrics import BuildMetrics
from stillreel.shards.build.survey import Survey, Task, receipt_left, survey
from stillreel.shards.format.manifest import MANIFEST, Manifest, manifest_of
from stillreel.shards.format.plan import Plan, read_plans
from stillreel.shards.format.receipt import PARTS, Receipt, part_file, receipt_file
from stillreel.shards.format.record import CHOSEN
from stillreel.shards.format.writer import TooManyRejects

_log = logging.getLogger(__name__)
_JUDGED_AFTER = 10_000  # samples; before, the rejects of a few bad shards say little about a large source
_BEAT_S = 1.0


def _no_witnesses(_task: Task) -> Iterable[Witness]:
    return ()


class Build(NamedTuple):
    """What is built. `open_or_write_plans` is given OUT and the plans that lie in it, and returns those to follow;
    `make_shard` makes and publishes a shard, in any process; `job` is what it is told of one beside the plan; `unit` is what
    samples are called; `witnesses` are files that a shard is made from, for hosts to show that they see them."""

    open_or_write_plans: Callable[[Folder, list[Plan]], list[Plan]]
    make_shard: MakeShard
    job: Callable[[Task], Any]
    unit: str
    witnesses: Callable[[Task], Iterable[Witness]] = _no_witnesses


def run_build(folder: Folder, build: Build, settings: BuildSettings) -> Manifest:
    """Build, or go on building, a data set in OUT. DataError when shards failed or too much was rejected."""
    with sole_writer(folder), stoppable("finished shards are kept. Run the same command again to go on"):
        for place in ("", "shards"):
            folder.remove_unfinished(place)
        try:
            with writing(folder.url):
                there = read_plans(folder)
            plans = build.open_or_write_plans(folder, there)
        except StorageRefused as error:
            raise RequestError(str(error)) from None
        for plan in plans:
            check_libraries(plan.header.libraries)
        with writing(folder.url):
            found = survey(folder, plans, full=settings.check == "full")
        _tell_survey(plans, found)
        if not found.open_tasks:
            _log.info("nothing to do: every planned shard is finished")
        with Journal(folder) as journal:
            schedule = Schedule(folder, build, plans, found, settings, journal)
            try:
                schedule.work_off()
            finally:
                with suppress(Exception):  # what is left is removed by the next run
                    folder.remove_unfinished("shards")
            schedule.check_failed()
            with writing(folder.url):
                return _publish_manifest(folder, plans, schedule.receipts)


def describe_totals(manifest: Manifest, folder: Folder) -> str:
    """What was made, in a line."""
    totals = manifest.totals
    rejected = sum(totals.rejected.values())
    reasons = f" ({tally(totals.rejected)})" if rejected else ""
    return (
        f"planned {totals.planned:,} = written {totals.written:,} + rejected {rejected:,}{reasons}; "
        f"{totals.shards:,} shards, {amount(totals.bytes)}, in {folder.url}"
    )


class Turn(NamedTuple):
    """A shard that waits to be made: which attempt it will be, and whether its samples are kept from the worker."""

    task: Task
    attempt: int = 1
    isolated: bool = False


class Schedule:
    """Hands out the shards that are not valid yet, and takes back receipts and failures."""

    def __init__(
        self,
        folder: Folder,
        build: Build,
        plans: Sequence[Plan],
        found: Survey,
        settings: BuildSettings,
        journal: Journal,
    ) -> None:
        self._folder = folder
        self._build = build
        self._libraries = plans[-1].header.libraries
        self._settings = settings
        self._total = sum(plan.samples for plan in plans)
        self._plans = plans
        self._journal = journal
        self._metrics = BuildMetrics(plans[0].header.name)
        self._shards = [finding.task.name for finding in found.findings]
        self._receipts = {receipt.shard: receipt for receipt in found.receipts}
        self._waiting = deque(Turn(task) for task in found.open_tasks)
        self._running: dict[tuple[int, int], Task] = {}
        self._late = LateShards()
        self._left_out: set[str] = set()
        self._budget = RejectBudget(settings.max_rejects, self._total)
        self.failed: list[tuple[Task, str]] = []  # and what of
        for receipt in self._receipts.values():
            self._budget.count(receipt.planned, receipt.rejected)
        self._budget.check()

    @property
    def receipts(self) -> list[Receipt]:
        """Of the finished shards, in order."""
        return [self._receipts[name] for name in self._shards if name in self._receipts]

    def check_failed(self) -> None:
        """DataError when shards failed, which names them."""
        if not self.failed:
            return
        reasons: dict[str, list[str]] = {}
        for task, reason in self.failed:
            reasons.setdefault(reason, []).append(task.name)
        named = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
        raise DataError(
            f"{len(self.failed)} of {len(self._shards)} shards failed after {self._settings.attempts} "
            f"attempts: {named}. The others are finished; run the same command again to try these again"
        )

    def work_off(self) -> None:
        """Make every shard, or set it aside. DataError over the reject budget, RequestError when no worker can work."""
        if not self._waiting:
            return
        self._journal.begin(
            plans={plan.file: plan.digest for plan in self._plans},
            shards=len(self._shards),
            finished=len(self._receipts),
            samples=self._total,
            samples_finished=self._budget.done,
            ray=self._settings.ray,
            host=socket.gethostname(),
            process=os.getpid(),
        )
        with self._proof() as proof, self._open_executor(proof) as executor:
            self._metrics.open()
            start, before = time.monotonic(), self._budget.done
            with Progress(self._total, self._build.unit, self._settings.progress) as progress:
                progress.skip(before)
                while self._waiting or executor.busy:
                    self._hand_out(executor)
                    outcome = executor.wait(_BEAT_S)
                    self._tell_left_out(executor)
                    self._journal.beat()
                    if outcome is None:
                        progress.beat()
                    else:
                        progress.advance(self._take(outcome), self._budget.note())
                    for plan, shard, how in self._late.new():
                        name = self._running[plan, shard].name
                        _log.warning(f"{name} {how}, {executor.whereabouts(plan, shard)}")
            spent, made = time.monotonic() - start, self._budget.done - before
            _log.info(f"{made:,} samples in {duration(spent)}, {made / spent:,.1f}/s")

    def _open_executor(self, proof: Proof) -> Executor:
        workers = min(self._settings.workers, len(self._waiting))
        how = self._settings.ray, workers, proof, self._settings.task
        return open_executor(self._build.make_shard, *how, self._receipt_left)

    def _receipt_left(self, task: ShardTask) -> Receipt | None:
        """Whoever ends between a shard's receipt and the telling of it has made it."""
        return receipt_left(self._folder, self._running[task.plan, task.shard])

    def _proof(self) -> AbstractContextManager[Proof]:
        """What hosts have to show, where there may be others than this one."""
        if self._settings.ray in ("off", "inline"):
            return nullcontext(Proof())
        first = {turn.task.plan.header.number: turn.task for turn in reversed(self._waiting)}.values()
        return proof_in(self._folder, self._libraries, map(self._build.witnesses, first))

    def _hand_out(self, executor: Executor) -> None:
        while self._waiting and executor.busy < executor.capacity:
            task, attempt, isolated = self._waiting.popleft()
            number = task.plan.header.number
            self._running[number, task.shard] = task
            self._late.begin(number, task.shard)
            where, job = (self._folder.url, number, task.plan.digest, task.shard), self._build.job(task)
            rows = task.plan.locate(task.shard)
            executor.submit(ShardTask(*where, attempt, self._budget.allowed, job, isolated, rows))

    def _take(self, outcome: Outcome) -> int:
        """Book what became of a task; returns how many samples it finished."""
        task = self._running.pop((outcome.task.plan, outcome.task.shard))
        self._late.end(outcome.task.plan, outcome.task.shard, made=outcome.receipt is not None)
        receipt: Receipt | None = receipt_left(self._folder, task) if outcome.died else outcome.receipt
        if receipt is not None:
            if GUILTY & receipt.rejected.keys():
                self._tell_guilty(task)
            self._receipts[receipt.shard] = receipt
            self._journal.shard(receipt, outcome.host)
            self._metrics.shard(receipt, len(self._shards) - len(self._receipts))
            self._budget.count(receipt.planned, receipt.rejected)
            self._budget.check()
            return receipt.planned
        if isinstance(outcome.error, (RequestError, StorageRefused)):
            raise outcome.error
        attempt, isolated = outcome.task.attempt, outcome.task.isolated
        if isinstance(outcome.error, TooManyRejects):
            # It knew the budget of the time when it was handed out; there may be room for its rejects by now.
            self._budget.check(outcome.error.rejected)
            self._waiting.append(Turn(task, attempt, isolated))
            return 0
        reason = one_line(outcome.error)
        self._journal.attempt_failed(task.name, attempt, reason, outcome.host)
        self._metrics.attempt_failed()
        reason += f", on {outcome.host}" if outcome.host else ""
        _log.warning(f"{task.name}: attempt {attempt} of {self._settings.attempts} failed: {reason}")
        # The attempt that finds a deadly sample is due to every shard.
        if attempt < self._settings.attempts or (outcome.died and not isolated):
            self._waiting.append(Turn(task, attempt + 1, isolated or outcome.died))
        else:
            self.failed.append((task, reason))
        return 0

    def _tell_left_out(self, executor: Executor) -> None:
        for host, why in executor.left_out().items():
            if host not in self._left_out:
                self._left_out.add(host)
                self._journal.host_left_out(host, why)

    def _tell_guilty(self, task: Task) -> None:
        """Name the samples of a shard that ended processes; its table does so, too."""
        with suppress(OSError):
            for row in read_parquet(self._folder.read(part_file(task.name, "parquet"))).to_pylist():
                if row["reason"] in GUILTY:
                    _log.warning("{source}: {source_key} is rejected: {reason}: {detail}".format_map(row))


class RejectBudget:
    """How many samples may be rejected: a fraction of those done, judged over at least 10,000 (or all of fewer)."""

    def __init__(self, fraction: float, total: int) -> None:
        self._fraction = fraction
        self._least = min(total, _JUDGED_AFTER) if fraction < 1 else total
        self._rejected: Counter[str] = Counter()
        self.done = 0

    @property
    def allowed(self) -> int:
        """Rejects that are within the budget so far."""
        return int(self._fraction * max(self.done, self._least))

    def count(self, done: int, rejected: Mapping[str, int]) -> None:
        self.done += done
        self._rejected.update({reason: count for reason, count in rejected.items() if reason not in CHOSEN})

    def check(self, more: Mapping[str, int] | None = None) -> None:
        """DataError when there are too many, `more` that are not booked yet included."""
        rejected = self._rejected + Counter(
            {reason: count for reason, count in (more or {}).items() if reason not in CHOSEN}
        )
        if rejected.total() > self.allowed:
            raise DataError(
                f"stopped: {rejected.total():,} rejects ({tally(rejected)}) are more than "
                f"max_rejects={self._fraction:g} allows of {max(self.done, self._least):,} samples. Finished shards are "
                "kept, and their tables say what is wrong with each reject. Fix the source, or run again with a larger "
                "max_rejects (1: no limit)"
            )

    def note(self) -> str:
        return f"rejected {self._rejected.total():,} ({tally(self._rejected)})" if self._rejected else ""


def _publish_manifest(folder: Folder, plans: Sequence[Plan], receipts: Sequence[Receipt]) -> Manifest:
    """The manifest of the receipts that were read or made in this run, whose files must lie in OUT as they say."""
    sizes = folder.sizes("shards")
    changed = [receipt for receipt in receipts if not _lies_in(sizes, receipt)]
    if changed:
        raise DataError(f"{len(changed)} finished shards were changed or removed while the build ran; run it again")
    manifest = manifest_of(plans, receipts)
    data = manifest.encode()
    if not folder.exists(MANIFEST) or folder.read(MANIFEST) != data:
        folder.publish(MANIFEST, data)
    return manifest


def _lies_in(sizes: Mapping[str, int], receipt: Receipt) -> bool:
    parts = (sizes.get(part_file(receipt.shard, part)) == receipt.files[part].bytes for part in PARTS)
    return receipt_file(receipt.shard) in sizes and all(parts)


def _tell_survey(plans: Sequence[Plan], found: Survey) -> None:
    name = plans[0].header.name
    states = ", ".join(f"{found.count(state):,} {state}" for state in ("valid", "damaged", "stale", "missing"))
    _log.info(
        f"plan {plans[-1].digest[:8]} of {name}: {sum(plan.samples for plan in plans):,} samples, "
        f"{len(found.findings):,} shards: {states}"
    )
    for finding in found.findings:
        if finding.why:
            _log.info(f"  {finding.task.name} is {finding.state}: {finding.why}; it is made again")
