"""The finished data sets that samples are taken from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stillreel.configs import RequestError
from stillreel.configs.system.storage import Folder, refuse_overlap
from stillreel.shards.build.survey import survey
from stillreel.shards.format.manifest import MANIFEST, read_manifest
from stillreel.shards.format.plan import Plan, PlanHeader, read_plans
from stillreel.shards.format.receipt import Receipt
from stillreel.shards.stream.corpus import CATALOG


@dataclass(frozen=True)
class ClipSet:
    """A finished data set: its plans, and a receipt for every planned shard, in order."""

    folder: Folder
    plans: Sequence[Plan]
    receipts: Sequence[Receipt]

    @cached_property
    def digest(self) -> str:
        """Of every sample's bytes and everything that its table says of it; equal for a copy, or one that was built again."""
        tables = "".join(receipt.files["parquet"].digest for receipt in self.receipts)
        return hashlib.sha256(tables.encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a plan says of it, and a copying worker is told."""
        return {
            "url": self.folder.url,
            "digest": self.digest,
            "plans": [plan.digest for plan in self.plans],
            "shards": [[plan.header.name, plan.header.first_shard, plan.shards] for plan in self.plans],
        }


def open_clip_sets(clips: str, out: Folder) -> list[ClipSet]:
    """The data sets at `URL` or `URL,URL ...`. RequestError when one is none, is not finished, or is no place apart from OUT."""
    sets = [_open(Folder(url)) for url in _urls(clips)]
    for at, one in enumerate(sets):
        if any(one.folder.url == other.folder.url for other in sets[:at]):
            raise RequestError(f"CLIPS names {one.folder.url} twice; each sample is taken once")
        refuse_overlap(one.folder, out)
    _check_alike(sets)
    return sets


def _urls(clips: str) -> Iterator[str]:
    """A folder may have a comma in its name; one that is there is meant."""
    if Folder(clips).exists(MANIFEST):
        yield clips
        return
    for part in clips.split(","):
        url, star, _ = part.rpartition("*")
        if star and not Folder(part).exists(MANIFEST):
            raise RequestError(
                f"{part}: a weight says how often a stream reads {url}; here each sample is taken once: leave it out"
            )
        yield part


def _open(folder: Folder) -> ClipSet:
    if not folder.exists(MANIFEST):
        if folder.exists(CATALOG):
            raise RequestError(f"CLIPS {folder.url} is a catalog of foreign tars; `stillreel animate` them first")
        raise RequestError(f"CLIPS {folder.url} has no {MANIFEST}: it is no finished data set of stillreel's")
    plans = read_plans(folder)
    if [line.sha256 for line in read_manifest(folder).plans] != [plan.digest for plan in plans]:
        raise RequestError(
            f"CLIPS {folder.url} has other plans than its {MANIFEST} says: finish its build first, or verify it"
        )
    found = survey(folder, plans, full=False)
    if found.open_tasks:
        names = ", ".join(task.name for task in found.open_tasks[:3])
        raise RequestError(
            f"CLIPS {folder.url}: {len(found.open_tasks):,} of its shards are not whole ({names}): finish its build first"
        )
    return ClipSet(folder, plans, found.receipts)


def _check_alike(sets: Sequence[ClipSet]) -> None:
    """RequestError where samples of two sets cannot be told apart, or read alike, by who reads them as one."""
    first = sets[0].plans[0].header
    grammars: dict[str, Any] = {}
    for one in sets:
        for plan in one.plans:
            _check_header(f"CLIPS {one.folder.url}", plan.header, first, grammars)


def _check_header(where: str, header: PlanHeader, first: PlanHeader, grammars: dict[str, Any]) -> None:
    settings, presets = header.settings, header.presets
    if "store" not in settings:  # as of frames of videos that `finetune prepare=true` stored
        raise RequestError(f"{where} holds no clips: `stillreel animate` did not make it")
    names = ("store",) if settings["store"] == "recipe" else ("store", "frames", "size", "fps")
    other = [
        f"{name}={settings[name]}, not {first.settings[name]}"
        for name in names
        if settings[name] != first.settings[name]
    ]
    if other:
        raise RequestError(f"{where} has {', '.join(other)} as the first of CLIPS: they cannot be one data set")
    if grammars.setdefault(settings["grammar"], presets["grammar"]) != presets["grammar"]:
        raise RequestError(
            f"{where} was built with another grammar={settings['grammar']} than a set before it; stream them as a mixture"
        )
