"""What became of every key when a checkpoint was read, and what to say when they do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from stillreel.configs import DataError

Shapes = Mapping[str, Sequence[int]]
Fate = Literal["kept", "renamed", "merged", "initialized", "unused"]
_SHOWN = 8


class KeyLine(NamedTuple):
    """One line of a report: what was done, with which tensors of the file, into which of the model, and why."""

    what: Fate
    given: str
    became: str
    note: str = ""

    def __str__(self) -> str:
        arrow = " -> ".join(part for part in (self.given, self.became) if part)
        return f"{self.what:<12}{arrow}" + (f"  ({self.note})" if self.note else "")


def summarize(lines: Iterable[KeyLine]) -> str:
    """'302 kept, 3 unused': how many keys had which fate."""
    counts = Counter(line.what for line in lines)
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def check_shapes(given: Shapes, expected: Shapes) -> None:
    """DataError that lists what is missing, unexpected, or of the wrong shape; every entry, up to a few of each."""
    missing = [name for name in expected if name not in given]
    extra = [name for name in given if name not in expected]
    wrong = [
        f"{name} is {tuple(given[name])}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in given and tuple(given[name]) != tuple(shape)
    ]
    if missing or extra or wrong:
        raise DataError(
            "its tensors are not those of the model: " + list_some(missing=missing, unexpected=extra, wrong_shape=wrong)
        )


def list_some(**groups: Sequence[str]) -> str:
    """'2 missing: a, b; 1 unexpected: c': the first few of each group that has any."""
    parts = []
    for group, names in groups.items():
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        if names:
            parts.append(f"{len(names)} {group.replace('_', ' ')}: {shown}")
    return "; ".join(parts)
