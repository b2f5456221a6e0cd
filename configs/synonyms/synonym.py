"""A synonym: what a term of another codebase means here."""

from __future__ import annotations

from typing import NamedTuple


class Synonym(NamedTuple):
    """The settings that a term means, each with a gloss (empty: its own description); and what is said where a command has
    none of them."""

    settings: dict[str, str]
    otherwise: str = ""
