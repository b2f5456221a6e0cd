"""Other settings than a checkpoint was saved with: what differs, and what may not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from stillreel.configs import RequestError

ABSENT = "(not there)"


class Difference(NamedTuple):
    """A setting that is not what it was. Values are in words; ABSENT where one of the two does not have it."""

    name: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.name}: {self.old} -> {self.new}"


def compare_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """What differs between two nested settings, by dotted name, sorted. Lists are compared whole."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return [
        Difference(name, _in_words(before, name), _in_words(after, name))
        for name in sorted(before.keys() | after.keys())
        if name not in before or name not in after or before[name] != after[name]
    ]


def check_binding(differences: Collection[Difference], binding: Collection[str], saved: str) -> None:
    """RequestError when a setting differs that a run cannot change. `binding` has dotted names, each with all below it."""
    refused = [one for one in differences if any(f"{one.name}.".startswith(f"{prefix}.") for prefix in binding)]
    if not refused:
        return
    listed = "".join(f"\n  {one.name} was {one.old}, is {one.new}" for one in refused)
    raise RequestError(
        f"{saved} cannot go on with these settings: they change the order of the data or the model's shape:{listed}\n"
        "Set them as they were to go on, or give another OUT to start anew"
    )


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _in_words(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return ABSENT
    value = values[name]
    if isinstance(value, float):
        return repr(value).replace("e-0", "e-")
    return '""' if value == "" else str(value)
