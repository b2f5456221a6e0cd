"""The proof: planned = written + rejected, each sample once, each byte as it was written. From the bytes, not from names.

Four witnesses are held against each other: the plan, each shard's own files (shards/format/check.py), its receipt, and the
manifest. An edit of any one of them disagrees with another.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from stillreel.configs import DataError
from stillreel.configs.build import VerifySettings
from stillreel.configs.system.progress import Progress, amount, tally
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.survey import Task
from stillreel.shards.format.check import Problem, ShardCheck
from stillreel.shards.format.manifest import MANIFEST, Manifest, read_manifest
from stillreel.shards.format.plan import Plan, PlannedSample, read_plans
from stillreel.shards.format.receipt import PARTS, part_file, receipt_file

_SHOWN = 40


@dataclass
class Verdict:
    """What was found: counts of rows, bytes that were hashed, and every problem."""

    planned: int = 0
    written: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    hashed: int = 0
    problems: list[Problem] = field(default_factory=list)


class Job(NamedTuple):
    """A shard to check; `rows` are given where the plan file's layout cannot be trusted, else read from it."""

    task: Task
    rows: list[PlannedSample] | None


def run(out: str, settings: VerifySettings) -> int:
    """`stillreel verify OUT`: print the verdict; 0 when all is well, 1 when not."""
    verdict = verify(Folder(out), settings)
    for problem in verdict.problems[:_SHOWN]:
        print(f"PROBLEM {problem}")
    count = len(verdict.problems)
    if count > _SHOWN:
        print(f"... and {count - _SHOWN:,} more problems")
    rejected = verdict.rejected.total()
    reasons = f" ({tally(verdict.rejected)})" if rejected else ""
    sign = "=" if verdict.planned == verdict.written + rejected else "!="
    print(f"planned {verdict.planned:,} {sign} written {verdict.written:,} + rejected {rejected:,}{reasons}")
    print(f"{amount(verdict.hashed)} read and hashed; {f'{count:,} problems' if count else 'all is well'}", flush=True)
    return 1 if count else 0


def verify(folder: Folder, settings: VerifySettings) -> Verdict:
    """Check a whole data set. Raises DataError when there is nothing to check."""
    plans = read_plans(folder)
    if not plans:
        raise DataError(f"{folder.url} holds no plan: it is not a data set of stillreel's, or its plan was removed")
    verdict = Verdict()
    manifest = _check_manifest(folder, plans, verdict)
    jobs = [job for plan in plans for job in _jobs(plan, manifest)]
    _check_listing(folder, [job.task for job in jobs], verdict)
    receipts = {line["name"]: line["receipt"] for line in manifest.shards} if manifest else {}
    threads = settings.workers or os.cpu_count() or 1
    with Progress(len(jobs), "shards", settings.progress) as progress, ThreadPoolExecutor(threads) as pool:
        for check in pool.map(partial(_check, folder, receipts), jobs):
            verdict.written += check.written
            verdict.rejected.update(check.rejected)
            verdict.hashed += check.hashed
            verdict.problems += check.problems
            progress.advance(1, f"{len(verdict.problems)} problems" if verdict.problems else "")
    verdict.planned = sum(plan.samples for plan in plans)
    if manifest is not None:
        _check_totals(manifest, verdict)
    return verdict


def _check(folder: Folder, receipts: dict[str, str], job: Job) -> ShardCheck:
    task = job.task
    rows = task.plan.read_shard(task.shard) if job.rows is None else job.rows
    check = ShardCheck(folder, task, rows, receipts.get(task.name))
    check.run()
    return check


def _check_manifest(folder: Folder, plans: Sequence[Plan], verdict: Verdict) -> Manifest | None:
    try:
        manifest = read_manifest(folder)
    except DataError as error:
        verdict.problems.append(Problem(MANIFEST, None, str(error)))
        return None
    known = {line["file"]: line["sha256"] for line in manifest.plans}
    for plan in plans:
        if plan.file not in known:
            what = "not in the manifest: its build did not finish; run `stillreel animate` again"
            verdict.problems.append(Problem(plan.file, None, what))
        elif known.pop(plan.file) != plan.digest:
            what = "differs from the plan that was built: it was edited or damaged"
            verdict.problems.append(Problem(plan.file, None, what))
    verdict.problems += [Problem(file, None, "in the manifest, but missing") for file in known]
    return manifest


def _jobs(plan: Plan, manifest: Manifest | None) -> Iterator[Job]:
    """Each shard of a plan. One that is as built is read shard by shard; any other is read whole, and sorted by its
    shard column, since nothing about its layout can be trusted."""
    if manifest is not None and any(line["sha256"] == plan.digest for line in manifest.plans):
        yield from (Job(Task(plan, shard), None) for shard in plan.shard_numbers)
        return
    by_shard: dict[int, list[PlannedSample]] = {}
    for rows in plan.read_all():
        for row in rows:
            by_shard.setdefault(row.shard, []).append(row)
    yield from (Job(Task(plan, shard), rows) for shard, rows in sorted(by_shard.items()))


def _check_listing(folder: Folder, tasks: Sequence[Task], verdict: Verdict) -> None:
    expected = {receipt_file(task.name) for task in tasks}
    expected |= {part_file(task.name, part) for task in tasks for part in PARTS}
    for name in folder.sizes("shards"):
        if name not in expected:
            what = "no plan knows this file; readers of shards/ would take it for data"
            verdict.problems.append(Problem(name, None, what))


def _check_totals(manifest: Manifest, verdict: Verdict) -> None:
    found = {"planned": verdict.planned, "written": verdict.written, "rejected": dict(verdict.rejected)}
    for name, value in found.items():
        said = manifest.totals.get(name)
        if said != value:
            verdict.problems.append(Problem(MANIFEST, None, f"says {name} {said}, the shards hold {value}"))
