"""Open a benchmark by its name: find its annotation files, read them, compare counts, find the videos.

open_benchmark("msrvtt", BenchmarkSettings(data="MSRVTT"), needs=("train", "test"))
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import ModuleType
from typing import NamedTuple

from stillreel.configs import DataError, RequestError
from stillreel.configs.benchmark import BENCHMARKS, BenchmarkSettings
from stillreel.finetune.benchmarks import (
    activitynet,
    didemo,
    diving,
    folder,
    hmdb,
    kinetics,
    lsmdc,
    msrvtt,
    msvd,
    ssv2,
    vatex,
)
from stillreel.finetune.benchmarks.assemble import compare_counts
from stillreel.finetune.benchmarks.benchmark import SPLITS, Benchmark, SplitName
from stillreel.finetune.benchmarks.files import Inventory
from stillreel.finetune.benchmarks.find import Finder
from stillreel.finetune.benchmarks.videos import Located, locate, locate_stored

_MODULES: dict[str, ModuleType] = {
    "msrvtt": msrvtt,
    "msvd": msvd,
    "vatex": vatex,
    "lsmdc": lsmdc,
    "didemo": didemo,
    "activitynet": activitynet,
    "kinetics400": kinetics,
    "kinetics600": kinetics,
    "kinetics700": kinetics,
    "ssv2": ssv2,
    "hmdb51": hmdb,
    "ucf101": hmdb,
    "diving48": diving,
    "folder": folder,
}
assert tuple(_MODULES) == BENCHMARKS
# Every dialect, so that a file of another benchmark is called by its name.
_KNOWN = tuple(dialect for module in dict.fromkeys(_MODULES.values()) for dialect in module.DIALECTS)


@dataclass(frozen=True)
class Opened:
    """A benchmark, ready to be trained or tested on, and what there is to say of it."""

    located: Located
    files: tuple[str, ...]  # which annotation files were chosen, and why
    aside: tuple[str, ...]  # which were not

    @property
    def benchmark(self) -> Benchmark:
        return self.located.benchmark

    def report(self) -> str:
        """What was chosen, how counts differ, and the table of expected and found videos: for the terminal and results."""
        parts = [self.benchmark.protocol.title]
        parts += [f"  {line}" for line in (*self.files, *self.aside)]
        parts += [f"  differs: {line}" for line in self.benchmark.differences]
        return "\n".join([*parts, self.located.table])


class Stored(NamedTuple):
    """Where frames of videos are stored, and the ids of these."""

    where: str
    ids: Collection[str]


def open_benchmark(
    name: str,
    settings: BenchmarkSettings,
    needs: Collection[SplitName] = frozenset({"test"}),
    stored: Stored | None = None,
) -> Opened:
    """Read the annotation files of a benchmark and find its videos, or those of them that are `stored`; `needs`: the splits that
    must be whole.

    RequestError: no such benchmark or variant, files that are not there or that leave a choice, a needed split that is short of
    what is published or of videos (allow_missing lets it pass). DataError: files that are damaged, mixed up, or not as expected.
    """
    inventory = Inventory(settings.data)
    benchmark, finder = read_benchmark(name, settings, needs, inventory)
    if stored is None:
        where = Inventory(settings.videos, "videos") if settings.videos else inventory
        located = locate(benchmark, where, needs, allow_missing=settings.allow_missing)
    else:
        located = locate_stored(benchmark, *stored, needs, allow_missing=settings.allow_missing)
    return Opened(located, tuple(finder.chosen), tuple(finder.aside))


def read_benchmark(
    name: str, settings: BenchmarkSettings, needs: Collection[SplitName], inventory: Inventory
) -> tuple[Benchmark, Finder]:
    """The annotation files alone, without looking for videos."""
    if name not in _MODULES:
        near = get_close_matches(name, BENCHMARKS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise RequestError(f"no benchmark {name!r}{hint} There are {', '.join(BENCHMARKS)}")
    module = _MODULES[name]
    variant = settings.variant or module.VARIANTS[0]
    if variant not in module.VARIANTS:
        known = ", ".join(filter(None, module.VARIANTS)) or "none"
        raise RequestError(f"variant={variant}: {name} has {known}")
    finder = Finder(name, settings, inventory, _KNOWN)
    benchmark: Benchmark = module.read(finder, variant, needs)
    lacking = [split for split in SPLITS if split in needs and split not in benchmark.splits]
    if lacking:
        raise RequestError(f"{name}: no {lacking[0]} split can be made of the files in {inventory.root}; "
                           + "; ".join((*finder.chosen, *benchmark.differences)))  # fmt: skip
    _refuse_cut_lists(benchmark, needs, allow_missing=settings.allow_missing)
    said = [line for split in benchmark.splits.values() for line in compare_counts(split)]
    return replace(benchmark, differences=(*said, *benchmark.differences)), finder


def _refuse_cut_lists(benchmark: Benchmark, needs: Collection[SplitName], *, allow_missing: bool) -> None:
    """A needed list with fewer videos than anyone has published is cut off, or another's. An empty one is never right."""
    for name in needs:
        split = benchmark.splits[name]
        if not split.videos:
            raise DataError(f"{split.files[0]}: it leaves the {name} split empty")
        if split.published and all(split.counted(one) < one.size for one in split.published) and not allow_missing:
            usual = split.published[0]
            known = ", ".join(f"{one} ({one.by})" for one in split.published)
            raise RequestError(
                f"{split.files[0]}: {split.counted(usual):,} {'videos' if usual.videos else 'captions'}; the {name} split of "
                f"{benchmark.protocol.title} has {known}. "
                "Is the file cut off, or that of another split? allow_missing=true goes on with what is there"
            )
