"""What a selection is planned as: one plan for each way of filming that its samples were built with, in one OUT."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from stillreel.configs import RequestError
from stillreel.configs.select import SelectSettings
from stillreel.configs.settings import canonical_json
from stillreel.configs.system.claims import damage_of
from stillreel.configs.system.progress import tally
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.libraries import library_versions
from stillreel.shards.format.plan import Listed, Plan, PlanHeader, write_plan
from stillreel.shards.selection.choice import choose
from stillreel.shards.selection.clips import ClipSet

KIND = "clips"  # of a source, in a plan's header
_LIBRARIES = ("pyarrow", "stillreel")  # the rest is copied
_log = logging.getLogger(__name__)


def open_or_write_plans(
    folder: Folder, plans: list[Plan], sets: Sequence[ClipSet], settings: SelectSettings
) -> list[Plan]:
    """The plans in OUT, or those that are missing of them. RequestError where OUT holds another selection, or something else."""
    asked = {"choice": settings.choice(), "clips": [_unplaced(one.describe()) for one in sets]}
    missing = not plans
    for plan in plans:
        source = plan.header.source
        if source.get("kind") != KIND:
            raise RequestError(f"OUT {folder.url} holds samples that were built there; choose another OUT")
        with damage_of(f"{folder.url}/{plan.file}"):
            told = {"choice": source["choice"], "clips": [_unplaced(one) for one in source["clips"]]}
            missing = int(source["plans"]) > len(plans)
        if told != asked:
            raise RequestError(
                f"OUT {folder.url} was begun with other CLIPS or settings; repeat those, or choose another OUT"
            )
    return _write(folder, plans, sets, settings) if missing else plans


def _unplaced(described: dict[str, Any]) -> dict[str, Any]:
    """Without where it lies: it may have moved."""
    return {key: value for key, value in described.items() if key != "url"}


def _write(folder: Folder, plans: list[Plan], sets: Sequence[ClipSet], settings: SelectSettings) -> list[Plan]:
    _log.info(f"choosing among the samples of {', '.join(one.folder.url for one in sets)}")
    rows, left_out = choose(sets, settings)
    first = sets[0].plans[0].header
    name = settings.name or first.name
    headers: dict[bytes, PlanHeader] = {}
    ways: list[int] = []  # of each shard, the number of the way that it was built in
    for plan in (plan for one in sets for plan in one.plans):
        headers.setdefault(_way(plan.header), plan.header)
        ways += [list(headers).index(_way(plan.header))] * plan.shards
    chosen = np.array(ways)[rows["shard"].to_numpy()]
    taken = np.unique(chosen).tolist()
    counted: dict[int, Counter[str]] = {way: Counter() for way in taken}
    for way, reasons in zip(ways, left_out, strict=True):
        counted[way if way in counted else taken[0]] += reasons  # of a way of which nothing is left, somewhere
    source = {"kind": KIND, "choice": settings.choice(), "clips": [one.describe() for one in sets], "plans": len(taken)}
    if plans:  # as it says, though the sets may lie elsewhere by now
        source = plans[0].header.source
    written = list(plans)
    for at, way in list(enumerate(taken))[len(plans) :]:
        built = list(headers.values())[way]
        header = PlanHeader(
            number=at,
            name=name,
            settings={
                **built.settings,
                "name": name,
                "shard_size": settings.shard_size or first.settings["shard_size"],
            },
            presets=built.presets,
            libraries=library_versions(_LIBRARIES),
            source=source,
            first_shard=sum(plan.shards for plan in written),
            first_position=sum(plan.samples for plan in written),
        )
        written.append(write_plan(folder, header, _listed(rows.filter(pa.array(chosen == way))), counted[way]))
    told = sum(counted.values(), Counter())
    _log.info(f"{len(rows):,} samples are taken" + (f"; left out: {tally(told)}" if told else ""))
    return written


def _way(header: PlanHeader) -> bytes:
    """All that the samples of a plan share, but for their keys and shards."""
    settings = {key: value for key, value in header.settings.items() if key not in ("name", "shard_size")}
    return canonical_json([settings, header.presets])


def _listed(rows: pa.Table) -> Iterator[Listed]:
    """`offset` is the number of a sample in its shard, `length` that of its shard among those of all sets."""
    for batch in rows.to_batches(max_chunksize=10_000):
        columns = (batch[name].to_pylist() for name in ("source", "source_key", "number", "shard"))
        for source, key, number, shard in zip(*columns, strict=True):
            yield Listed(source, key, number, shard, ())
