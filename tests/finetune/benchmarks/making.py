"""Small benchmarks in the dialects of the real ones, with records of our own making."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stillreel.configs.benchmark import BenchmarkSettings
from stillreel.finetune.benchmarks import Benchmark, Opened, SplitName, open_benchmark
from stillreel.finetune.benchmarks.files import Inventory
from stillreel.finetune.benchmarks.find import Finder
from stillreel.finetune.benchmarks.open import read_benchmark


def write(path: Path, value: Any) -> Path:
    """JSON of a value, or text as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def lines(*one_each: str) -> str:
    return "\n".join(one_each) + "\n"


def touch(folder: Path, names: Iterable[str]) -> None:
    """Videos that nobody opens here; each of another size, so that no two are taken for copies."""
    for number, name in enumerate(names, 1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)


def settings(data: Path, **values: Any) -> BenchmarkSettings:
    """Small benchmarks are shorter than the published ones, which `allow_missing` lets pass."""
    return BenchmarkSettings.resolve({"data": str(data), "allow_missing": True, **values})


def read(name: str, data: Path, *, needs: Sequence[SplitName] = ("test",), **values: Any) -> tuple[Benchmark, Finder]:
    chosen = settings(data, **values)
    return read_benchmark(name, chosen, needs, Inventory(chosen.data))


def opened(name: str, data: Path, *, needs: Sequence[SplitName] = ("test",), **values: Any) -> Opened:
    return open_benchmark(name, settings(data, **values), needs)


def ids(benchmark: Benchmark, split: SplitName) -> list[str]:
    return [video.id for video in benchmark.splits[split].videos]
