"""`stillreel select CLIPS OUT`: a new data set of some samples of finished ones, copied, not decoded."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from stillreel.configs.build import BuildSettings, RunSettings
from stillreel.configs.select import SelectSettings
from stillreel.configs.system.progress import tally
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.engine import Build, describe_totals, run_build
from stillreel.shards.build.hosts import Witness
from stillreel.shards.build.survey import Task
from stillreel.shards.format.manifest import MANIFEST, Manifest
from stillreel.shards.selection.choice import parse_where
from stillreel.shards.selection.clips import open_clip_sets
from stillreel.shards.selection.copying import make_shard
from stillreel.shards.selection.plans import open_or_write_plans


def run(clips: str, out: str, settings: SelectSettings) -> int:
    """Copy the chosen samples of CLIPS into OUT, or go on copying them; returns the exit code."""
    folder = Folder(out)
    manifest = select(clips, folder, settings)
    print(describe_totals(manifest, folder))
    left_out: dict[str, int] = {}
    for plan in manifest.plans:
        for reason, count in plan.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
    if left_out:
        print(f"left out of CLIPS: {tally(left_out)}")
    print(f"prove it: stillreel verify {folder.url}", flush=True)
    return 0


def select(clips: str, folder: Folder, settings: SelectSettings) -> Manifest:
    """The same, without a word. RequestError where CLIPS are no finished data sets, or OUT holds something else."""
    parse_where(settings)  # before OUT is touched
    sets = open_clip_sets(clips, folder)
    urls = [one.folder.url for one in sets]

    def job_of(task: Task) -> list[str]:
        """Where the data sets lie now, which may have moved since they were planned from."""
        return urls

    def witnesses(task: Task) -> Iterator[Witness]:
        """The manifests of the data sets."""
        for one in sets:
            yield Witness(one.folder.url, MANIFEST, one.folder.size(MANIFEST) or 0)

    plans = partial(open_or_write_plans, sets=sets, settings=settings)
    how = {key: getattr(settings, key) for key in RunSettings.model_fields}
    build = Build(plans, make_shard, job_of, unit="clips", witnesses=witnesses)
    return run_build(folder, build, BuildSettings(**how, max_rejects=0))
