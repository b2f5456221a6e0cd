"""One task: one shard, from reading its part of the plan to its receipt. Runs in this process or in a Ray worker, alike."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

from stillreel.animate.clips.clip import ClipMaker, Stage
from stillreel.animate.sources import source_of_plan
from stillreel.configs import DataError, RequestError
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.plan import open_plan
from stillreel.shards.format.receipt import Receipt
from stillreel.shards.format.writer import ShardWriter

# Whatever decides a byte of a tar, Parquet or idx file.
_LIBRARIES = ("albumentations", "av", "numpy", "opencv-python-headless", "pillow", "pyarrow", "simplejpeg", "stillreel")


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to know; it reads the rest from the plan. `max_rejected` is a count for the whole build."""

    out: str
    plan: int
    plan_digest: str
    shard: int
    source: str
    attempt: int
    max_rejected: int


class TooManyRejects(DataError):
    """One shard alone has more rejects than the whole build may have."""

    def __init__(self, shard: str, rejected: Mapping[str, int]) -> None:
        super().__init__(shard, dict(rejected))
        self.shard = shard
        self.rejected = dict(rejected)


def library_versions() -> dict[str, str]:
    """Versions that a plan records, and that a worker must share."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def build_shard(task: ShardTask) -> Receipt:
    """Make one shard and publish it; returns its receipt, which is small.

    Raises RequestError when this worker's libraries are not the plan's, TooManyRejects early, and whatever storage raises.
    """
    start = perf_counter()
    folder = Folder(task.out)
    plan = open_plan(folder, task.plan, task.plan_digest)
    check_libraries(plan.header.libraries)
    samples = plan.read_shard(task.shard)
    source = source_of_plan(plan.header, task.source)
    maker = ClipMaker(Stage.of_plan(plan.header))
    rejected: dict[str, int] = {}
    with ShardWriter(folder, plan, task.shard) as writer:
        pictures = source.read(samples)
        for planned in samples:
            before = perf_counter()
            data = next(pictures)
            maker.seconds["read"] += perf_counter() - before
            sample = maker.make(planned, data)
            before = perf_counter()
            if sample.members:
                writer.write(sample.record, sample.members)
            else:
                writer.reject(sample.record)
                assert sample.record.reason is not None
                rejected[sample.record.reason] = rejected.get(sample.record.reason, 0) + 1
                if sum(rejected.values()) > task.max_rejected:
                    raise TooManyRejects(plan.shard_name(task.shard), rejected)
            maker.seconds["write"] += perf_counter() - before
        seconds = {**maker.seconds, "total": perf_counter() - start}
        return writer.publish(
            library_versions(), task.attempt, {name: round(value, 3) for name, value in sorted(seconds.items())}
        )


def check_libraries(planned: Mapping[str, str]) -> None:
    """RequestError when a library here has another version than was planned with: its bytes could differ."""
    here = library_versions()
    other = [f"{name} {here.get(name)}, planned {planned[name]}" for name in planned if here.get(name) != planned[name]]
    if other:
        raise RequestError(
            f"{platform.node()} has other library versions than the plan: {'; '.join(other)}. "
            "Install those, or use another OUT"
        )
