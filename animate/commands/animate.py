"""`stillreel animate SOURCE OUT`: captioned stills become shards of clips."""

from __future__ import annotations

from functools import cache, partial

from stillreel.animate.clips.build import build_of_clips
from stillreel.animate.clips.clip import Stage
from stillreel.animate.clips.forecast import Forecast, forecast, room_at
from stillreel.animate.clips.plans import open_or_write_plans
from stillreel.animate.sources import Source, open_source
from stillreel.configs import RequestError
from stillreel.configs.build import AnimateSettings
from stillreel.configs.system.hardware import usable_cores
from stillreel.configs.system.pool import require_ray
from stillreel.configs.system.progress import amount, duration, tally
from stillreel.configs.system.storage import Folder, refuse_overlap
from stillreel.shards.build.engine import describe_totals, run_build
from stillreel.shards.build.survey import Task, survey
from stillreel.shards.format.plan import read_plans


def _foretell(source: Source, stage: Stage, folder: Folder, settings: AnimateSettings) -> None:
    """Print what the build would come to. RequestError where its disk has no room for it."""
    found = forecast(source, stage, settings.name or "clips")
    plans = read_plans(folder)
    done = sum(receipt.planned for receipt in survey(folder, plans, full=False).receipts) if plans else 0
    left = max(found.samples - done, 0) / max(found.samples, 1)
    workers = settings.workers or (1 if settings.ray in ("off", "inline") else usable_cores())
    print(f"{source.folder.url} ({source.kind}): {found.samples:,} samples, {amount(found.source_bytes)} of pictures")
    for what, counts in (("unusable by its list", found.unusable), ("left out at the source", found.left_out)):
        if counts:
            print(f"{what}: {tally(counts)}")
    rejects = (
        f"rejected {sum(found.rejected.values())} ({tally(found.rejected)})" if found.rejected else "none rejected"
    )
    print(f"{found.probed} samples were made in every store: {rejects}")
    if done:
        print(f"{done:,} samples are finished in {folder.url}; the rest:")
    for store, cost in found.costs.items():
        mark = " <- store" if store == settings.store else ""
        hours = duration(cost.seconds * left / workers)
        print(f"  {store:<8}{amount(cost.bytes * left):>10}{hours:>14} with {workers} workers like this one{mark}")
    _check_room(found, left, room_at(folder), folder, settings.store)


def _check_room(found: Forecast, left: float, room: int | None, folder: Folder, store: str) -> None:
    """RequestError, which says what would fit, where a disk is too small."""
    if room is None:
        print(f"{folder.url} is a bucket: its room is not known", flush=True)
        return
    print(f"{amount(room)} are free at {folder.url}", flush=True)
    need = found.costs[store].bytes * left
    if need <= room:
        return
    fits = [
        f"store={one} ({amount(cost.bytes * left)})" for one, cost in found.costs.items() if cost.bytes * left <= room
    ]
    raise RequestError(
        f"it cannot fit: store={store} needs about {amount(need)}, and {amount(room)} are free at {folder.url}. "
        "Give an OUT with more room"
        + (f"; {' and '.join(fits)} would fit" if fits else ", or a smaller max_side, size, frames or quality")
    )


def run(source_url: str, out_url: str, settings: AnimateSettings) -> int:
    """Build, or go on building, the clip shards of SOURCE in OUT; returns the exit code."""
    require_ray(settings.ray)
    stage = Stage.of_settings(settings.clip())
    folder = Folder(out_url)
    refuse_overlap(Folder(source_url), folder)
    source = open_source(source_url, settings.source, settings.filter())
    if settings.dry_run:
        _foretell(source, stage, folder, settings)
        return 0
    fingerprint = cache(source.fingerprint)  # it lists the source

    def source_of(task: Task) -> str:
        """Where a plan's source lies: where the user said, if it is that one, since it may have moved; else where it was."""
        planned = task.plan.header.source
        return source.folder.url if planned["fingerprint"] == fingerprint() else str(planned["url"])

    plans = partial(open_or_write_plans, source=source, stage=stage, settings=settings)
    manifest = run_build(folder, build_of_clips(plans, source_of), settings)
    print(describe_totals(manifest, folder))
    print(f"prove it: stillreel verify {folder.url}    see it: stillreel preview {folder.url}", flush=True)
    return 0
