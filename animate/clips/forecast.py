"""What a build would come to before it runs: counts from the source's list, and the rest from some of its samples, made for real.

Samples are drawn evenly from the whole list, and each is made once in every store, in one process; what they took and what they
hold is multiplied. Nothing is written.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from stillreel.animate.clips.clip import ClipMaker, Stage
from stillreel.animate.sources import Source
from stillreel.configs.system.dice import Dice
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.isolated import Isolated
from stillreel.shards.format.plan import Listed, PlannedSample
from stillreel.shards.format.record import Rejection
from stillreel.shards.format.tar import BLOCK

STORES = ("recipe", "frames", "video")
_PROBED = 100
_BESIDE = 200  # bytes of a sample in the table and the index of its shard, about


class Cost(NamedTuple):
    """Of all samples in one store: bytes on the disk, and seconds of one core."""

    bytes: float
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """`samples` that are listed, of which `unusable`, by reason, are rejected for what the list says of them; of `probed` others
    `rejected` were, by reason; bytes to be read of the source, and the costs by store."""

    samples: int
    unusable: Mapping[str, int]
    left_out: Mapping[str, int]
    probed: int
    rejected: Mapping[str, int]
    source_bytes: float
    costs: Mapping[str, Cost]


def forecast(source: Source, stage: Stage, name: str) -> Forecast:
    """List the source, make some of its samples in every store. SourceError where they cannot be read."""
    count, unusable, chosen = _draw(source.listing())
    samples = [PlannedSample(f"{name}_{at:09d}", one.source, one.source_key, 0, at, *one[2:]) for at, one in chosen]
    start = perf_counter()
    source.planned = source.files()
    pictures = list(source.read(samples)) if samples else []
    reading = perf_counter() - start
    rejected: Counter[str] = Counter()
    usable = count - unusable.total()
    share = usable / max(len(samples), 1)
    costs = {}
    # As of a build, whose driver does not die of a picture.
    with Isolated(partial(_prober, stage), stage.settings.picture_cpu_seconds) as make:
        for store in STORES:
            size, spent = 0, reading
            for planned, data in zip(samples, pictures, strict=True):
                try:
                    made = make(store, planned, data)
                except Rejection as guilty:
                    made = _Made(_BESIDE, 0.0, guilty.reason)
                size, spent = size + made.bytes, spent + made.seconds
                if made.reason and store == stage.settings.store:
                    rejected[made.reason] += 1
            costs[store] = Cost(size * share, spent * share)
    read = sum(len(data or b"") for data in pictures) * share
    return Forecast(count, unusable, dict(source.left_out), len(samples), rejected, read, costs)


class _Made(NamedTuple):
    """A sample that was made: bytes and seconds that it takes, and why it was rejected, if it was."""

    bytes: int
    seconds: float
    reason: str | None


def _prober(stage: Stage) -> Callable[[str, PlannedSample, bytes | None], _Made]:
    makers = {
        store: ClipMaker(stage._replace(settings=stage.settings.model_copy(update={"store": store})))
        for store in STORES
    }

    def make(store: str, planned: PlannedSample, data: bytes | None) -> _Made:
        start = perf_counter()
        sample = makers[store].make(planned, data)
        return _Made(_packed(sample.members) + _BESIDE, perf_counter() - start, sample.record.reason)

    return make


def room_at(folder: Folder) -> int | None:
    """Free bytes where a folder is, or will be; None of a bucket, which tells nobody."""
    if not folder.is_local:
        return None
    there = next(path for path in (Path(folder.path), *Path(folder.path).parents) if path.is_dir())
    return shutil.disk_usage(there).free


def _draw(listing: Iterable[Listed]) -> tuple[int, Counter[str], list[tuple[int, Listed]]]:
    """How many are listed; how many of them have a problem, by reason; some of the others, each as likely as any, in order."""
    dice = Dice(0, "forecast")
    unusable: Counter[str] = Counter()
    chosen: list[tuple[int, Listed]] = []
    count = usable = 0
    for at, one in enumerate(listing):
        count += 1
        if one.problem:
            unusable[one.problem.partition(":")[0]] += 1
            continue
        usable += 1
        if len(chosen) < _PROBED:
            chosen.append((at, one))
        elif (place := int(dice.unit(str(at)) * usable)) < _PROBED:
            chosen[place] = at, one
    return count, unusable, sorted(chosen, key=lambda pair: pair[0])


def _packed(members: Mapping[str, bytes]) -> int:
    """Bytes that a sample's members take in a tar."""
    return sum(BLOCK + len(payload) + -len(payload) % BLOCK for payload in members.values())
