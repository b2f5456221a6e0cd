"""What a repository says of itself, README.md: written once from what lies in the folder, and then its owner's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from stillreel import __version__
from stillreel.finetune.hub.ask import Repository
from stillreel.shards.format.manifest import Manifest

# Settings that say where things lay: nobody else's business.
_PLACES = {"data", "out", "init", "resume", "prepared", "videos", "checkpoint", "compare"}


def model_card(
    what: Repository, config: Mapping[str, Any], results: Sequence[Mapping[str, Any]], license_word: str
) -> str:
    """Of a model's config.json, and what lies beside it of results.json."""
    front = {"library_name": "stillreel", "tags": ["video-text-retrieval", "text-to-video-retrieval", "clip"]}
    origin = {key: value for key, value in config["origin"].items() if key != "file"}
    vision = config["towers"]["vision_cfg"]
    lines = [
        _front(front, license_word),
        f"# {what.name.partition('/')[2]}",
        "A video-text model of stillreel's.",
        _commands(f"stillreel pull {what} model", "stillreel index VIDEOS idx checkpoint=model"),
        *(_tested(one) for one in results),
        "## The model",
        _yaml(
            {
                "model": config["model"],
                "image_tower": {key: vision[key] for key in sorted(vision) if vision[key] is not None},
            }
        ),
        "## Where it is from",
        _yaml(_placeless(origin)),
        f"Written by stillreel {__version__}; the model by {config['stillreel']}. "
        "What it was trained on, and what it is not to be used for, its owner should add.",
    ]
    return "\n\n".join(lines) + "\n"


def data_card(what: Repository, manifest: Manifest, license_word: str) -> str:
    """Of a data set's manifest."""
    totals = manifest.totals
    front = {
        "tags": ["webdataset", "video-text", "pseudo-video", "stillreel"],
        "task_categories": ["text-to-video"],
        "configs": [{"config_name": "default", "data_files": "shards/*.tar"}],
    }
    rejected = [f"| {reason} | {count:,} |" for reason, count in totals.rejected.items()]
    lines = [
        _front(front, license_word),
        f"# {what.name.partition('/')[2]}",
        f"Clips made of captioned stills by stillreel: {totals.written:,} of {totals.planned:,} samples in "
        f"{totals.shards:,} WebDataset shards, {totals.bytes:,} bytes.",
        _commands(f"stillreel pull {what} clips", "stillreel verify clips"),
        *(["\n".join(["| left out, because | samples |", "|---|---|", *rejected])] if rejected else []),
    ]
    for plan in manifest.plans:
        lines += [
            f"## {plan.file}",
            f"{plan.samples:,} samples named {plan.name}; plan sha256 `{plan.sha256}`, settings sha256 "
            f"`{plan.settings_sha256}`.",
            _yaml(plan.settings),
        ]
    lines.append(
        f"Written by stillreel {__version__}. The stills and captions keep the terms of whoever made them: its owner should say "
        "which these are."
    )
    return "\n\n".join(lines) + "\n"


def _front(values: Mapping[str, Any], license_word: str) -> str:
    line = f"license: {license_word}" if license_word else "# license: to be said by the owner, as apache-2.0"
    return f"---\n{line}\n{yaml.safe_dump(dict(values), sort_keys=False)}---"


def _commands(*lines: str) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _tested(results: Mapping[str, Any]) -> str:
    """A benchmark's figures, with the protocol that they are of."""
    counts = results["counts"]
    figures = [f"| {name} | {value:.2f} |" for name, value in results["metrics"].items()]
    return "\n\n".join(
        [
            f"## {results['benchmark']} {results['variant']}, {results['split']}",
            f"{results['protocol']}",
            f"{counts['videos']:,} videos, {counts['queries']:,} queries, {counts['missing']:,} videos missing, "
            f"{counts['damaged']:,} damaged; settings `{results['settings_digest'][:12]}`, queries "
            f"`{results['queries_digest'][:12]}`.",
            "\n".join(["| figure | value |", "|---|---|", *figures]),
        ]
    )


def _yaml(values: Mapping[str, Any]) -> str:
    return f"```yaml\n{yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)}```"


def _placeless(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _placeless(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if key not in _PLACES
    }
