"""`stillreel repair OUT`: shards of clips that are damaged, missing or failed are made anew, and no other.

What is needed stands in OUT's plans: the source, and the settings as they were. A shard's rows decide its bytes, so a source that
has only grown since is as good as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from stillreel.animate.clips.build import build_of_clips
from stillreel.animate.clips.clip import Stage
from stillreel.animate.clips.plans import open_or_write_plans
from stillreel.animate.sources import open_source
from stillreel.configs import DataError, RequestError
from stillreel.configs.build import AnimateSettings, BuildSettings, FilterSettings, RepairSettings, SourceSettings
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.engine import describe_totals, run_build
from stillreel.shards.build.survey import Task
from stillreel.shards.format.manifest import MANIFEST, Manifest, read_manifest
from stillreel.shards.format.plan import Plan, PlanHeader, read_plans
from stillreel.shards.selection.plans import KIND as COPIED

_log = logging.getLogger(__name__)


def run(out: str, settings: RepairSettings) -> int:
    """Make anew what is not as it was made; returns the exit code."""
    folder = Folder(out)
    plans = read_plans(folder)
    if not plans:
        raise DataError(f"{folder.url} holds no plan: it is not a data set of stillreel's, or its plan was removed")
    for plan in plans:
        _check_kind(folder, plan.header)
    _check_plans(folder, plans)
    manifest = _run(folder, lambda _, there: there, settings)
    if settings.retry_rejects:
        for header in _sources(plans):
            manifest = _run(folder, _rejects_of(header, settings), settings)
    print(describe_totals(manifest, folder))
    print(f"prove it: stillreel verify {folder.url}", flush=True)
    return 0


def _run(folder: Folder, plans: Callable[[Folder, list[Plan]], list[Plan]], settings: RepairSettings) -> Manifest:
    def source_of(task: Task) -> str:
        return _where(task.plan.header, settings)

    how = BuildSettings(**{key: getattr(settings, key) for key in BuildSettings.model_fields})
    return run_build(folder, build_of_clips(plans, source_of), how)


def _where(header: PlanHeader, settings: RepairSettings) -> str:
    """Where a plan's source lies: where it was, unless one of its name is said to lie elsewhere now."""
    planned = str(header.source["url"])
    moved = settings.source and Folder(settings.source).basename == planned.rstrip("/").rpartition("/")[2]
    return settings.source if moved else planned


def _check_kind(folder: Folder, header: PlanHeader) -> None:
    """RequestError, which says what to run, where OUT is not of `animate`."""
    if header.source.get("kind") == COPIED:
        others = " ".join(str(one.get("url", "CLIPS")) for one in header.source.get("clips", []))
        raise RequestError(
            f"{folder.url} holds samples that were copied from {others}: run the `stillreel select` or `reshard` that made it "
            "again with check=full, and it makes anew what is damaged or missing"
        )
    if "fingerprint" not in header.source or "grammar" not in header.presets:
        raise RequestError(
            f"{folder.url} does not hold clips of `stillreel animate`: run the command that made it again with check=full "
            "(frames of videos: `stillreel finetune ... prepare=true`), and it makes anew what is damaged or missing"
        )


def _check_plans(folder: Folder, plans: list[Plan]) -> None:
    """RequestError where a plan is not the one that was built: all its shards would be made anew, of it."""
    if not folder.exists(MANIFEST):
        return
    try:
        lines = read_manifest(folder).plans
    except DataError as error:
        _log.warning(f"{error}; it is made anew")
        return
    digests = {plan.file: plan.digest for plan in plans}
    for line in lines:
        if digests.get(line.file) != line.sha256:
            raise RequestError(
                f"{folder.url}/{line.file} is not the plan that was built (sha256 {line.sha256[:8]}...): it was edited, damaged "
                "or removed. A plan cannot be made anew: put it back from a copy, or build into another OUT"
            )


def _sources(plans: list[Plan]) -> list[PlanHeader]:
    """A header a source."""
    return list({str(plan.header.source["url"]): plan.header for plan in reversed(plans)}.values())[::-1]


def _rejects_of(header: PlanHeader, settings: RepairSettings) -> Callable[[Folder, list[Plan]], list[Plan]]:
    """An extension by the samples of a source that were rejected."""
    wanted = header.source.get("filter", {})
    if set(wanted) - {"where"}:
        raise RequestError(
            f"retry_rejects: {header.source['url']} was planned with {' and '.join(wanted)}, which lie elsewhere: run "
            "`stillreel animate` with them and extend=rejects"
        )
    stage = Stage.of_plan(header)
    source = open_source(
        _where(header, settings), SourceSettings.resolve(header.source["settings"]), FilterSettings.resolve(wanted)
    )
    asked = AnimateSettings(**{**stage.settings.model_dump(), "extend": "rejects"})
    return partial(open_or_write_plans, source=source, stage=stage, settings=asked)
