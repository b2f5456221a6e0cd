"""What an evaluation came to, for people and for programs: the table, and results.json."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillreel.configs import RequestError
from stillreel.configs.settings import Settings, canonical_json
from stillreel.configs.system.claims import damage_of, parse_json
from stillreel.configs.system.storage import Folder
from stillreel.finetune.benchmarks import Opened, SplitName
from stillreel.pretrain.evaluation import EvalProtocol, EvaluationResult, Retrieval, in_rows
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


def read_results(path: str) -> dict[str, Any]:
    """RequestError where there are none."""
    try:
        found = parse_json(Path(path).expanduser().read_bytes())
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: no results.json can be read there: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("schema") != SCHEMA_VERSION:
        raise RequestError(f"{path} holds no results of this stillreel's")
    return found


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
