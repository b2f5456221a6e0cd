"""What other codebases call a thing, and what it is called here: asked before spelling is, for `learning_rate` is nothing like
`optimizer.lr`. A term that has no setting says why.

The terms lie in configs/synonyms/*.yaml. One is looked up without `_` and `-`, whole or by its last part (configs/answers.py). A
setting may come with a value; a name in capitals is a positional argument. Only what a command has is told.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import NamedTuple


class Synonym(NamedTuple):
    """The settings that a term means, each with a gloss (empty: its own description); and what is said where a command has
    none of them."""

    settings: dict[str, str]
    otherwise: str = ""


@cache
def synonyms() -> dict[str, Synonym]:
    """Every term, in lower case without `_` and `-`, and what it means."""
    import yaml

    folder = resources.files("stillreel.configs").joinpath("synonyms")
    entries = [
        entry
        for name in ("training", "runs", "clips")
        for entry in yaml.load(folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    ]
    return {
        term.replace("_", ""): Synonym(entry.get("settings", {}), entry.get("otherwise", ""))
        for entry in entries
        for term in entry["terms"].split()
    }
