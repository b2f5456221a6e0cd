"""What an evaluation came to, for people and for programs: the table, results.json, and a paired test between two."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stillreel.configs import RequestError
from stillreel.configs.settings import Settings, canonical_json
from stillreel.configs.system.claims import damage_of, parse_json
from stillreel.configs.system.storage import Folder
from stillreel.finetune.benchmarks import Opened, SplitName
from stillreel.pretrain.evaluation import Choice, EvalProtocol, EvaluationResult, Ranks, Retrieval, compare, in_rows
from stillreel.pretrain.evaluation.evaluator import QUERYBANK_SCALE
from stillreel.pretrain.model.checkpoint import CONFIG, WEIGHTS, in_json
from stillreel.pretrain.run.folder import library_versions

RESULTS = "results.json"
FORMAT = "stillreel results"
SCHEMA_VERSION = 1


def table_of(protocol: EvalProtocol, result: EvaluationResult) -> str:
    """The protocol, and the figures below it."""
    rows = [line for row in result.rows for line in row.rows()]
    said = [protocol.described, in_rows(result.rows[0].columns, rows)]
    if result.damaged:
        said.append(f"{len(result.damaged):,} videos are damaged and count as misses: {', '.join(result.damaged[:10])}")
    return "\n".join(said)


def results_of(
    opened: Opened,
    split: SplitName,
    protocol: EvalProtocol,
    result: EvaluationResult,
    settings: Settings,
    checkpoint: Mapping[str, Any],
) -> dict[str, Any]:
    """All there is to know of a number: how it was asked, of what, by which model, and every query's rank."""
    benchmark = opened.benchmark
    videos = benchmark.splits[split].videos
    resolved = settings.model_dump(mode="json")
    return {
        "format": FORMAT,
        "schema": SCHEMA_VERSION,
        "benchmark": benchmark.name,
        "variant": benchmark.variant,
        "split": split,
        "protocol": protocol.described,
        "counts": {
            "videos": len(videos),
            "queries": len(result.rows[0].text_to_video.values)
            if isinstance(result.rows[0], Retrieval)
            else len(videos),
            "missing": len(opened.located.missing.get(split, ())),
            "damaged": len(result.damaged),
            "cut": protocol.cut,
        },
        "metrics": result.metrics(),
        "rows": [row.to_json() for row in result.rows],
        "querybank_scale": QUERYBANK_SCALE,
        "damaged": list(result.damaged),
        "troubles": list(result.troubles),
        "files": [*opened.files, *opened.aside],
        "differences": list(benchmark.differences),
        "queries_digest": _digest([(one.id, one.captions, one.label) for one in videos]),
        "captions_of_videos": [len(one.captions) for one in videos],
        "checkpoint": dict(checkpoint),
        "settings": resolved,
        "settings_digest": settings.digest(),
        "libraries": library_versions(),
    }


def publish(folder: Path, results: Mapping[str, Any]) -> Path:
    """Write FOLDER/results.json, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    Folder(str(folder)).publish(RESULTS, in_json(results))
    return folder / RESULTS


def about_checkpoint(path: str) -> dict[str, Any]:
    """Which model it was: the path, and the sha256 of its weights where it is one of ours."""
    found: dict[str, Any] = {"path": str(Path(path).expanduser().absolute())}
    if (weights := Path(path) / WEIGHTS).is_file():
        with weights.open("rb") as file:
            found["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        with damage_of(f"{path}/{CONFIG} is damaged"):
            found["origin"] = parse_json((Path(path) / CONFIG).read_bytes()).get("origin", {})
    return found


def compare_with(path: str, results: Mapping[str, Any], result: EvaluationResult) -> str:
    """A paired test of these results against others, a line a figure. RequestError when they answer other queries."""
    other = read_results(path)
    for key in ("benchmark", "variant", "split", "queries_digest"):
        if other.get(key) != results[key]:
            raise RequestError(
                f"compare={path}: its {key} is {other.get(key)!r}, here {results[key]!r}: not the same queries"
            )
    with damage_of(f"{path} is damaged"):
        return _compared(path, other["rows"][0], result)


def _compared(path: str, theirs: Mapping[str, Any], result: EvaluationResult) -> str:
    ours = result.rows[0]
    lines = [f"this less {path}, paired by query (95 % interval, p of no difference):"]
    depths = (1,) if isinstance(ours, Choice) else (1, 5, 10)
    ways = (("t2v", "text_to_video"), ("v2t", "video_to_text")) if isinstance(ours, Retrieval) else (("", "ranks"),)
    for way, field in ways:
        found: Ranks = getattr(ours, field)
        for name, one in compare(_ranks_in(theirs[way] if way else theirs, found), found, depths).items():
            low, high = one.interval
            lines.append(f"  {way} {name}: {one.value:+.2f} ({low:+.2f} to {high:+.2f}), p {one.p:.4f}")
    return "\n".join(lines)


def read_results(path: str) -> dict[str, Any]:
    """RequestError where there are none."""
    try:
        found = parse_json(Path(path).expanduser().read_bytes())
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: no results.json can be read there: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("schema") != SCHEMA_VERSION:
        raise RequestError(f"{path} holds no results of this stillreel's")
    return found


def _ranks_in(told: Mapping[str, Any], like: Ranks) -> Ranks:
    """Ranks as results.json has them, of the queries of `like`."""
    values = np.array(told["ranks"], np.float64)
    if values.shape != like.values.shape:
        raise RequestError(f"{len(values):,} ranks there, {len(like.values):,} here: not the same queries")
    missed = np.zeros(len(values), np.bool_)
    missed[told["missed"]] = True
    return Ranks(values, missed, like.clusters, told["items"])


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
