"""Which plans a build of clips follows: a first one, the ones that lie in OUT, or these and an extension."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from itertools import chain

from stillreel.animate.clips.clip import Stage
from stillreel.animate.clips.planned import PlannedCaptions
from stillreel.animate.sources import Source
from stillreel.configs import DataError, RequestError, StillreelError
from stillreel.configs.build import AnimateSettings, ClipSettings
from stillreel.configs.system.progress import tally
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.libraries import library_versions
from stillreel.shards.build.survey import Survey, survey
from stillreel.shards.commands.stats import tables
from stillreel.shards.format.plan import Listed, Plan, PlanHeader, write_plan
from stillreel.shards.format.record import CHOSEN, REJECTED, WRITTEN
from stillreel.shards.selection.plans import KIND as COPIED

_log = logging.getLogger(__name__)
# Whatever decides a byte of a tar, Parquet or idx file.
_LIBRARIES = ("albumentations", "av", "numpy", "opencv-python-headless", "pillow", "pyarrow", "simplejpeg", "stillreel")


def open_or_write_plans(
    folder: Folder, plans: list[Plan], source: Source, stage: Stage, settings: AnimateSettings
) -> list[Plan]:
    """The plans to follow, of those in OUT; writes one where there is none, or where `extend` asks and finds something.

    Raises RequestError when OUT holds other data than is asked for.
    """
    if not plans:
        return [_write(folder, plans, source, stage, settings, _listing(source))]
    if any(plan.header.source.get("kind") == COPIED for plan in plans):
        raise RequestError(
            f"OUT {folder.url} holds samples that `stillreel select` copied; choose another OUT, and merge them"
        )
    _check_settings(folder, plans, stage, settings)
    known = any(plan.header.source["fingerprint"] == source.fingerprint() for plan in plans)
    if settings.extend == "no":
        if not known:
            raise RequestError(_what_differs(folder, plans, source))
        return plans
    if settings.extend == "new":
        _check_label(plans, source)
        listed = _new(plans, source)
    else:
        rejected = _rejected(folder, plans)
        listed = (one for one in _listing(source) if (one.source, one.source_key) in rejected)
    first = next(listed, None)
    if first is None:
        _log.info(f"nothing to add: extend={settings.extend} finds no such samples in {source.folder.url}")
        return plans
    return [*plans, _write(folder, plans, source, stage, settings, chain([first], listed))]


def _new(plans: Sequence[Plan], source: Source) -> Iterator[Listed]:
    """Samples that no plan has. RequestError, at the end, when captions of planned ones are others now."""
    planned = PlannedCaptions(one for plan in plans for rows in plan.read_all() for one in rows)
    changed = 0
    for one in _listing(source):
        said = planned.same(one)
        if said is None:
            yield one
        changed += said is False
    if changed:
        raise RequestError(
            f"SOURCE {source.folder.url}: {changed:,} samples that OUT holds have other captions now. A build keeps "
            "those that it was planned with: to have the new ones, build into another OUT"
        )


def _write(
    folder: Folder, plans: list[Plan], source: Source, stage: Stage, settings: AnimateSettings, listed: Iterator[Listed]
) -> Plan:
    name = _name(plans, source, settings)
    _log.info(f"planning {source.folder.url} ({source.kind})")
    header = PlanHeader(
        number=len(plans),
        name=name,
        settings=stage.settings.model_copy(update={"name": name}).planned(),
        presets=stage.presets(),
        libraries=library_versions(_LIBRARIES),
        source=source.describe(),
        first_shard=sum(plan.shards for plan in plans),
        first_position=sum(plan.samples for plan in plans),
    )
    try:
        plan = write_plan(folder, header, listed, source.left_out)
    except DataError as error:
        raise RequestError(f"SOURCE {source.folder.url}: {error}") from None
    if plan.header.left_out:
        _log.info(f"left out at the source: {tally(plan.header.left_out)}")
    return plan


def _listing(source: Source) -> Iterator[Listed]:
    """What a source lists. RequestError says that it cannot, lest its trouble pass for one of OUT's."""
    try:
        yield from source.wanted()
    except StillreelError:
        raise
    except Exception as error:
        raise RequestError(f"SOURCE {source.folder.url} cannot be read: {type(error).__name__}: {error}") from error


def _name(plans: Sequence[Plan], source: Source, settings: AnimateSettings) -> str:
    """Prefix of keys: as set, else as OUT has it, else from the source's own name."""
    if settings.name or plans:
        return settings.name or plans[0].header.name
    return re.sub(r"[^a-z0-9]+", "_", source.label.lower()).strip("_")[:48] or "clips"


def _check_settings(folder: Folder, plans: Sequence[Plan], stage: Stage, settings: AnimateSettings) -> None:
    asked = {**stage.settings.planned(), "name": settings.name or plans[0].header.name}
    planned = plans[0].header.settings
    differing = [
        f"{key}: planned {planned.get(key, 'the default')!r}, asked {asked.get(key, 'the default')!r}"
        for key in ClipSettings.model_fields
        if asked.get(key) != planned.get(key)
    ]
    if not differing and stage.presets() != plans[0].header.presets:
        differing = [f"the presets that grammar={asked['grammar']} and looks={asked['looks']} name have changed since"]
    if differing:
        raise RequestError(
            f"OUT {folder.url} was planned with other settings ({'; '.join(differing)}); repeat those, or use another OUT"
        )


def _check_label(plans: Sequence[Plan], source: Source) -> None:
    """Two different folders of one name would look like one source, and samples of the second would seem to be there."""
    for plan in plans:
        said = plan.header.source
        same_name = said["url"].rstrip("/").rsplit("/", 1)[-1] == source.label
        if same_name and said["url"] != source.folder.url and said["fingerprint"] != source.fingerprint():
            raise RequestError(
                f"SOURCE {source.folder.url} has the name of {said['url']}, which OUT holds, but other contents. "
                "If it is another source, give its folder another name; if it is the same one, grown and moved, move it back"
            )


def _what_differs(folder: Folder, plans: Sequence[Plan], source: Source) -> str:
    urls = [plan.header.source["url"] for plan in plans]
    planned = [plan.header.source.get("filter", {}) for plan in plans]
    if source.folder.url in urls and source.filter.record() not in planned:
        return (
            f"OUT {folder.url} was planned with other where=, scores= or blocklist= ({planned[0] or 'none'}); repeat "
            "those, or use another OUT"
        )
    if source.folder.url in urls:
        files = dict(chain.from_iterable(plan.header.source.get("files", {}).items() for plan in plans))
        lost = [name for name, size in files.items() if source.files().get(name) != size]
        if lost:
            what = f"{lost[0]} is gone or of another length, {len(lost) - 1} others, too; put back what was planned"
        else:
            what = f"{sum(1 for _ in _new(plans, source)):,} samples are new"
        return (
            f"SOURCE {source.folder.url} has changed since it was planned: {what}. To add its new samples to OUT, run with "
            "extend=new; to build it afresh, use another OUT"
        )
    return (
        f"OUT {folder.url} holds clips of {', '.join(urls)}, not of {source.folder.url}. To add this source to it, run with "
        "extend=new; to build it alone, use another OUT"
    )


def _rejected(folder: Folder, plans: Sequence[Plan]) -> set[tuple[str, str]]:
    """(source, source key) of what was rejected and has not been written since."""
    found = survey(folder, plans, full=False)
    if found.open_tasks:
        raise RequestError(
            f"extend=rejects: {len(found.open_tasks)} shards are not finished yet; finish the build first, without extend"
        )
    # Of millions, most were written: no more than those that were ever rejected are kept in memory.
    suspects = {sample for sample, status in _outcomes(folder, found) if status == REJECTED}
    states: dict[tuple[str, str], str] = {}
    for sample, status in _outcomes(folder, found) if suspects else ():
        if sample in suspects and states.get(sample) != WRITTEN:
            states[sample] = status
    return {sample for sample, status in states.items() if status == REJECTED}


def _outcomes(folder: Folder, found: Survey) -> Iterator[tuple[tuple[str, str], str]]:
    """(source, source key) of each planned sample, and its status; that of one which was not wanted is `chosen`."""
    for table in tables(folder, found):
        columns = (table[name].to_pylist() for name in ("source", "source_key", "status", "reason"))
        for source, key, status, reason in zip(*columns, strict=True):
            yield (source, key), "chosen" if reason in CHOSEN else status
