"""The proof: planned = written + rejected, each sample once, each byte as it was written. From the bytes, not from names.

Four witnesses are held against each other: the plan, each shard's own files (shards/format/check.py), its receipt, and the
manifest, which is made anew from plans and receipts and compared field by field. An edit of any one disagrees with another.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stillreel.configs import DataError
from stillreel.configs.build import VerifySettings
from stillreel.configs.system.claims import parse_json, shortened
from stillreel.configs.system.progress import Progress, amount, tally
from stillreel.configs.system.storage import Folder, folder_that_is_there
from stillreel.shards.build.executors import ShardTask, open_executor
from stillreel.shards.build.hosts import Proof, Witness
from stillreel.shards.build.journal import EVENTS
from stillreel.shards.build.libraries import library_versions
from stillreel.shards.build.survey import Task
from stillreel.shards.build.work import ATTEMPTS, Doubtful, work_off
from stillreel.shards.format.check import Problem, ShardCheck
from stillreel.shards.format.manifest import MANIFEST, Manifest, difference, manifest_of, read_manifest
from stillreel.shards.format.plan import SCHEMA, Plan, open_plan, read_plans
from stillreel.shards.format.receipt import PARTS, Receipt, part_file, receipt_file

_SHOWN = 40
_PREVIEW = "preview.html"


@dataclass
class Verdict:
    """What was found: counts of rows, bytes that were hashed, every problem; and files in OUT that are not of the data set."""

    planned: int = 0
    written: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    hashed: int = 0
    problems: list[Problem] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)


class Job(NamedTuple):
    """A shard to check; what is `planned` is given where the plan file's layout cannot be trusted, else read from it."""

    task: Task
    planned: pa.Table | None
    expected: str | None  # digest of its receipt, as the manifest has it


class Checked(NamedTuple):
    """What was found in a shard: samples, bytes that were hashed, its receipt, and what is wrong."""

    written: int
    rejected: Counter[str]
    hashed: int
    receipt: Receipt | None
    problems: list[Problem]


def run(out: str, settings: VerifySettings) -> int:
    """`stillreel verify OUT`: print the verdict; 0 when all is well, 1 when not."""
    verdict = verify(folder_that_is_there(out, "OUT"), settings)
    for problem in verdict.problems[:_SHOWN]:
        print(f"PROBLEM {problem}")
    count = len(verdict.problems)
    if count > _SHOWN:
        print(f"... and {count - _SHOWN:,} more problems")
    if verdict.strangers:
        print(f"not looked at, for they are no part of the data set: {', '.join(verdict.strangers[:_SHOWN])}")
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
    manifest, why_not = _read_manifest(folder)
    expected = {line.name: line.receipt for line in manifest.shards} if manifest else {}
    jobs = [job for plan in plans for job in _jobs(plan, manifest, expected)]
    _check_listing(folder, [job.task for job in jobs], verdict)
    own = {MANIFEST, EVENTS, _PREVIEW, *(plan.file for plan in plans)}
    verdict.strangers = [shortened(name) for name in folder.sizes() if name not in own]
    receipts: dict[str, Receipt] = {}
    with Progress(len(jobs), "shards", settings.progress) as progress:
        for check in (_on_threads if settings.ray == "off" else _on_ray)(jobs, settings, progress):
            verdict.written += check.written
            verdict.rejected.update(check.rejected)
            verdict.hashed += check.hashed
            verdict.problems += check.problems
            if check.receipt is not None:
                receipts[check.receipt.shard] = check.receipt
    verdict.planned = sum(plan.samples for plan in plans)
    troubles = _compare_plans(plans, manifest, receipts) or _compare_manifest(folder, plans, receipts, why_not)
    verdict.problems = [*troubles, *verdict.problems]
    return verdict


def _on_threads(jobs: Sequence[Job], settings: VerifySettings, progress: Progress) -> Iterator[Checked]:
    problems = 0
    with ThreadPoolExecutor(settings.workers or os.cpu_count() or 1) as pool:
        for checked in pool.map(_check, jobs):
            problems += len(checked.problems)
            progress.advance(1, f"{problems} problems" if problems else "")
            yield checked


def _on_ray(jobs: Sequence[Job], settings: VerifySettings, progress: Progress) -> list[Checked]:
    """In order, as on threads. DataError where a shard could not be checked."""
    plans = {job.task.plan.file: job.task.plan for job in jobs}.values()
    seen = tuple(Witness(plan.folder.url, plan.file, plan.folder.size(plan.file) or 0) for plan in plans)
    proof = Proof(library_versions(("stillreel",)), witnesses=seen)
    by_place = {(job.task.plan.header.number, job.task.shard): job for job in jobs}
    found: dict[tuple[int, int], Checked] = {}
    problems = 0
    workers = min(settings.workers, len(jobs))
    with open_executor(check_shard, settings.ray, workers, proof, settings.task) as executor:
        names = {place: job.task.name for place, job in by_place.items()}
        for end in work_off(executor, map(_task_of, jobs), lambda task: names[task.plan, task.shard], progress.beat):
            if end.error is not None:
                name = names[end.task.plan, end.task.shard]
                raise DataError(f"{name} could not be checked in {ATTEMPTS} attempts: {end.error}")
            checked: Checked = end.receipt
            problems += len(checked.problems)
            found[end.task.plan, end.task.shard] = checked
            progress.advance(1, f"{problems} problems" if problems else "")
    return [found[place] for place in by_place]


def _task_of(job: Job) -> ShardTask:
    plan, shard = job.task
    where = plan.folder.url, plan.header.number, plan.digest, shard
    return ShardTask(
        *where, 1, 0, (job.planned, job.expected), rows=plan.locate(shard) if job.planned is None else None
    )


def check_shard(task: ShardTask) -> Checked:
    """Runs on a host. Doubtful where there are problems."""
    planned, expected = task.job
    plan = open_plan(Folder(task.out), task.plan, task.plan_digest, task.rows)
    checked = _check(Job(Task(plan, task.shard), planned, expected))
    if checked.problems:
        raise Doubtful(checked)
    return checked


def _check(job: Job) -> Checked:
    task = job.task
    planned, damage = job.planned, ""
    if planned is None:
        try:
            (planned,) = task.plan.read_places([task.shard])
        except DataError as error:
            planned, damage = SCHEMA.empty_table(), str(error)
    check = ShardCheck(task.plan.folder, task, planned, job.expected)
    check.run()
    if damage:
        check.problems.insert(0, Problem(task.name, None, damage))
    return Checked(check.written, check.rejected, check.hashed, check.receipt, check.problems)


def _read_manifest(folder: Folder) -> tuple[Manifest | None, str]:
    """The manifest, or why it cannot be believed."""
    try:
        return read_manifest(folder), ""
    except DataError as error:
        return None, str(error)


def _compare_plans(plans: Sequence[Plan], manifest: Manifest | None, receipts: Mapping[str, Receipt]) -> list[Problem]:
    """What the manifest has of other plans than those that lie here; a plan that receipts agree with was not edited."""
    if manifest is None:
        return []
    built = {receipt.plan for receipt in receipts.values()}
    known = {line.file: line.sha256 for line in manifest.plans}
    found = []
    for plan in plans:
        said = known.pop(plan.file, "")
        if not said:
            what = "not in the manifest: its build did not finish; run `stillreel animate` again"
            found.append(Problem(plan.file, None, what))
        elif said != plan.digest and plan.digest not in built:
            what = "differs from the plan that was built: it was edited or damaged"
            found.append(Problem(plan.file, None, what))
    return found + [Problem(shortened(file), None, "in the manifest, but missing") for file in known]


def _compare_manifest(
    folder: Folder, plans: Sequence[Plan], receipts: Mapping[str, Receipt], why_not: str
) -> list[Problem]:
    """The first field in which the manifest is not what plans and receipts make it; of shards without one nothing is known."""
    rebuilt = manifest_of(plans, list(receipts.values()))
    is_whole = len(receipts) == sum(plan.shards for plan in plans)
    try:
        data = folder.read(MANIFEST)
        if is_whole and data == rebuilt.encode():
            return [Problem(MANIFEST, None, why_not)] if why_not else []
        said, expected = parse_json(data), parse_json(rebuilt.encode())
        if not is_whole:
            lines = {line["name"]: line for line in said.pop("shards")}
            said["shards"] = [lines.get(name) for name in receipts]
            said["totals"] = expected["totals"]
        what = difference(said, expected) or ("it is spelled otherwise than it was written" if is_whole else why_not)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        what = why_not
    return [Problem(MANIFEST, None, what)] if what else []


def _jobs(plan: Plan, manifest: Manifest | None, expected: Mapping[str, str]) -> Iterator[Job]:
    """Each shard of a plan. One that is as built is read shard by shard; any other is read whole, and sorted by its
    shard column, since nothing about its layout can be trusted."""
    if manifest is not None and any(line.sha256 == plan.digest for line in manifest.plans):
        for shard in plan.shard_numbers:
            yield Job(Task(plan, shard), None, expected.get(plan.shard_name(shard)))
        return
    by_shard: dict[int, list[pa.Table]] = {}
    for table in plan.read_places():
        shards = table["shard"].to_numpy()
        numbers, firsts = np.unique(np.sort(shards), return_index=True)
        for shard, rows in zip(numbers.tolist(), np.split(np.argsort(shards, kind="stable"), firsts[1:]), strict=True):
            by_shard.setdefault(shard, []).append(table.take(rows))
    for shard, tables in sorted(by_shard.items()):
        yield Job(Task(plan, shard), pa.concat_tables(tables), expected.get(plan.shard_name(shard)))


def _check_listing(folder: Folder, tasks: Sequence[Task], verdict: Verdict) -> None:
    expected = {receipt_file(task.name) for task in tasks}
    expected |= {part_file(task.name, part) for task in tasks for part in PARTS}
    for name in folder.sizes("shards"):
        if name not in expected:
            what = "no plan knows this file; readers of shards/ would take it for data"
            verdict.problems.append(Problem(name, None, what))
