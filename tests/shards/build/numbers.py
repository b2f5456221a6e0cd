"""A data set that knows no pixels, to build: a sample is a number of the plan, and its one member is the number in words.

What a test wants to go wrong is said in the job that shards are told; files beside OUT remember how often it has.
(A module of its own, so that workers import little.)
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from stillreel.configs import RequestError
from stillreel.configs.build import BuildSettings
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.engine import Build, run_build
from stillreel.shards.build.executors import ShardTask
from stillreel.shards.build.libraries import library_versions
from stillreel.shards.build.survey import Task
from stillreel.shards.format.manifest import Manifest
from stillreel.shards.format.plan import Listed, Plan, PlanHeader, write_plan
from stillreel.shards.format.receipt import Receipt
from stillreel.shards.format.record import REJECTED, WRITTEN, Record
from stillreel.shards.format.writer import ShardWriter

PATIENCE_S = 60.0
WAIT_S = 6.0  # longer than making a shard takes


class NumberJob(NamedTuple):
    """What goes wrong: these numbers are rejected; the shard of this number fails in its first attempts, in this way."""

    rejected: frozenset[int] = frozenset()
    fails: int = -1
    times: int = 0
    way: str = "raises"
    notes: str = ""


def make_shard(task: ShardTask) -> Receipt:
    plan, job = task.open_plan(), task.job
    with ShardWriter(plan, task.shard, task.max_rejected) as writer:
        if task.shard == job.fails:
            _fail(job)
        for planned in plan.read_shard(task.shard):
            if planned.offset in job.rejected:
                writer.reject(Record.of(planned, REJECTED, "corrupt", "this number is not wanted"))
            else:
                writer.write(Record.of(planned, WRITTEN), {"txt": f"number {planned.offset}".encode()})
        return writer.publish(task.attempt, {"total": 0.0})


def _fail(job: NumberJob) -> None:
    before = list(Path(job.notes).glob("failed-*"))
    if len(before) >= job.times:
        return
    (Path(job.notes) / f"failed-{len(before)}").touch()
    if job.way == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.way == "refuses":
        raise RequestError("this host cannot make it")
    if job.way == "waits":
        time.sleep(WAIT_S)
        return
    if job.way == "hangs":
        time.sleep(PATIENCE_S)
    raise OSError("no luck\nthis time")


def open_or_write_plans(folder: Folder, plans: list[Plan], count: int, size: int) -> list[Plan]:
    if plans:
        return plans
    libraries = library_versions(["pyarrow", "stillreel"])
    header = PlanHeader(0, "numbers", {"shard_size": size}, {}, libraries, {}, first_shard=0, first_position=0)
    return [write_plan(folder, header, [Listed("all", str(one), one, 1, ()) for one in range(count)], {})]


def run(out: Path, job: NumberJob | None = None, count: int = 12, size: int = 4, **how: object) -> Manifest:
    """Build the numbers below `count` in OUT."""
    told = (job or NumberJob())._replace(notes=str(out.parent))

    def job_of(task: Task) -> NumberJob:
        return told

    plans = partial(open_or_write_plans, count=count, size=size)
    settings = BuildSettings.resolve({"ray": "off", "progress": "off", **how})
    return run_build(Folder(str(out)), Build(plans, make_shard, job_of, "numbers"), settings)
