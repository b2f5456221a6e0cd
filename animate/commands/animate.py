"""`stillreel animate SOURCE OUT`: captioned stills become shards of clips."""

from __future__ import annotations

from functools import cache, partial

from stillreel.animate.clips.clip import Stage, make_shard
from stillreel.animate.clips.plans import open_or_write_plans
from stillreel.animate.sources import open_source
from stillreel.configs.build import AnimateSettings
from stillreel.configs.system.pool import require_ray
from stillreel.configs.system.storage import Folder, refuse_overlap
from stillreel.shards.build.engine import Build, describe_totals, run_build
from stillreel.shards.build.survey import Task


def run(source_url: str, out_url: str, settings: AnimateSettings) -> int:
    """Build, or go on building, the clip shards of SOURCE in OUT; returns the exit code."""
    require_ray(settings.ray)
    stage = Stage.of_settings(settings.clip())
    folder = Folder(out_url)
    refuse_overlap(Folder(source_url), folder)
    source = open_source(source_url, settings.source, settings.filter())
    fingerprint = cache(source.fingerprint)  # it lists the source

    def source_of(task: Task) -> str:
        """Where a plan's source lies: where the user said, if it is that one, since it may have moved; else where it was."""
        planned = task.plan.header.source
        return source.folder.url if planned["fingerprint"] == fingerprint() else str(planned["url"])

    plans = partial(open_or_write_plans, source=source, stage=stage, settings=settings)
    manifest = run_build(folder, Build(plans, make_shard, job=source_of, unit="clips"), settings)
    print(describe_totals(manifest, folder))
    print(f"prove it: stillreel verify {folder.url}    see it: stillreel preview {folder.url}", flush=True)
    return 0
