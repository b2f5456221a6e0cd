"""What the build engine is told of a build of clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stillreel.animate.clips.clip import make_shard
from stillreel.animate.sources import source_of_plan
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.engine import Build
from stillreel.shards.build.hosts import Witness
from stillreel.shards.build.survey import Task
from stillreel.shards.format.plan import Plan


def build_of_clips(plans: Callable[[Folder, list[Plan]], list[Plan]], source_of: Callable[[Task], str]) -> Build:
    """A build of the plans that `plans` opens or writes; `source_of` says where a shard's source lies now."""

    def witnesses(task: Task) -> Iterator[Witness]:
        """The files that a shard's pictures are in, as they were planned."""
        source = source_of_plan(task.plan.header, source_of(task))
        for row in task.plan.read_shard(task.shard):
            name = source.relative(row.source)
            size = source.planned.get(name, -1 if source.planned else row.length)
            if row.problem is None and size >= 0:
                yield Witness(source.folder.url, name, size)

    return Build(plans, make_shard, job=source_of, unit="clips", witnesses=witnesses)
