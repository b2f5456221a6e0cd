"""What is in a data set, counted from its shard tables: `stillreel stats OUT`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillreel.configs import DataError
from stillreel.configs.build import StatsSettings
from stillreel.configs.system.progress import amount
from stillreel.configs.system.storage import Folder, folder_that_is_there
from stillreel.shards.build.survey import Survey, survey
from stillreel.shards.format.plan import Plan, read_plans
from stillreel.shards.format.receipt import part_file
from stillreel.shards.format.record import WRITTEN, read_table

_QUANTILES = (0, 5, 25, 50, 75, 95, 100)


def run(out: str, settings: StatsSettings) -> int:
    """Print counts and distributions; exit 1 when shards are missing, since the figures are then of a part."""
    folder = folder_that_is_there(out, "OUT")
    plans = read_plans(folder)
    if not plans:
        raise DataError(f"{folder.url} holds no plan: it is not a data set of stillreel's")
    found = survey(folder, plans, full=False)
    stats = collect(folder, plans, found)
    print(json.dumps(stats, indent=1) if settings.json_output else render(stats))
    return 0 if not found.open_tasks else 1


def collect(folder: Folder, plans: Sequence[Plan], found: Survey) -> dict[str, Any]:
    """Totals, rejects, moves, and quantiles of seen area, picture sides, captions and words, of finished shards."""
    reasons: Counter[str] = Counter()
    moves: Counter[str] = Counter()
    captions: Counter[int] = Counter()
    seen: list[np.ndarray[Any, Any]] = []
    sides: list[np.ndarray[Any, Any]] = []
    words: list[int] = []
    for table in tables(folder, found):
        reasons.update(reason for reason in table["reason"].to_pylist() if reason)
        written = table.filter(pc.equal(table["status"], WRITTEN))
        moves.update(move for clip in written["moves"].to_pylist() for move in clip or ())
        seen.append(written["seen_area"].to_numpy())
        sides.append(np.stack([written["width"].to_numpy(), written["height"].to_numpy()]))
        for spoken in written["captions"].to_pylist():
            captions[len(spoken or ())] += 1
            words += [len((spoken[0] or "").split())] if spoken else []
    receipts = found.receipts
    sizes = np.concatenate(sides, axis=1) if sides else np.zeros((2, 0))
    return {
        "planned": sum(plan.samples for plan in plans),
        "written": sum(receipt.written for receipt in receipts),
        "rejected": dict(reasons.most_common()),
        "shards": {"planned": sum(plan.shards for plan in plans), "finished": len(receipts)},
        "bytes": {part: sum(receipt.files[part].bytes for receipt in receipts) for part in ("tar", "parquet", "idx")},
        "sources": {plan.file: plan.header.source for plan in plans},
        "moves": dict(moves.most_common()),
        "seen_area": _quantiles(np.concatenate(seen) if seen else np.zeros(0)),
        "seen_histogram": _tenths(np.concatenate(seen) if seen else np.zeros(0)),
        "shorter_side": _quantiles(sizes.min(axis=0)),
        "longer_side": _quantiles(sizes.max(axis=0)),
        "captions_per_sample": {str(count): number for count, number in sorted(captions.items())},
        "words_in_first_caption": _quantiles(np.asarray(words)),
        "worker_seconds": _summed_seconds([dict(receipt.seconds) for receipt in receipts]),
    }


def tables(folder: Folder, found: Survey) -> Iterator[pa.Table]:
    """The table of every finished shard, in order."""
    for receipt in found.receipts:
        name = part_file(receipt.shard, "parquet")
        yield read_table(folder.read(name), f"{folder.url}/{name}")


def render(stats: dict[str, Any]) -> str:
    """The figures as a table to read."""
    total = stats["written"]
    lines = [
        f"planned {stats['planned']:,}, written {total:,}, rejected {sum(stats['rejected'].values()):,}, "
        f"shards {stats['shards']['finished']:,} of {stats['shards']['planned']:,}",
        "bytes   " + ", ".join(f"{part} {amount(size)}" for part, size in stats["bytes"].items()),
    ]
    for title, counts in (
        ("rejected", stats["rejected"]),
        ("moves", stats["moves"]),
        ("captions a sample", stats["captions_per_sample"]),
    ):
        if counts:
            share = sum(counts.values())
            lines += ["", title, *(f"  {name:<14}{count:>12,}  {count / share:6.1%}" for name, count in counts.items())]
    lines += ["", f"{'percentile':<24}" + "".join(f"{q:>8}" for q in _QUANTILES)]
    for name in ("seen_area", "shorter_side", "longer_side", "words_in_first_caption"):
        lines.append(f"{name:<24}" + "".join(f"{value:>8.4g}" for value in stats[name].values()))
    seconds = stats["worker_seconds"]
    if seconds:
        lines += ["", "worker seconds: " + ", ".join(f"{name} {value:,.1f}" for name, value in seconds.items())]
    return "\n".join(lines)


def _quantiles(values: np.ndarray[Any, Any]) -> dict[str, float]:
    if not len(values):
        return {}
    return {
        str(q): round(float(value), 4) for q, value in zip(_QUANTILES, np.percentile(values, _QUANTILES), strict=True)
    }


def _tenths(shares: np.ndarray[Any, Any]) -> dict[str, int]:
    """Counts of shares in tenths, from the first tenth that has any."""
    counts = np.bincount(np.clip((shares * 10).astype(int), 0, 9), minlength=10)
    first = int(np.argmax(counts > 0))
    return (
        {f"{tenth * 10} to {tenth * 10 + 10} %": int(counts[tenth]) for tenth in range(first, 10)}
        if counts.any()
        else {}
    )


def _summed_seconds(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    summed: Counter[str] = Counter()
    for row in rows:
        summed.update(row)
    return {name: round(value, 2) for name, value in summed.items()}
