"""Diving48 (Li et al., ECCV 2018): 48 dives by take-off, somersaults, twists and flight; frames alone do not tell them apart.

The cleaned labels (V2), as everybody has them by now: a json a split, and one of the names by number. Clips are VID_NAME.mp4.
"""

from __future__ import annotations

from collections.abc import Collection

from stillreel.finetune.benchmarks.benchmark import Benchmark, Protocol, SplitName
from stillreel.finetune.benchmarks.classes import CLASS_LIST, LABELS, read_labelled
from stillreel.finetune.benchmarks.files import Content
from stillreel.finetune.benchmarks.find import Finder, Role
from stillreel.finetune.benchmarks.records import (
    Dialect,
    Gather,
    Record,
    Records,
    field,
    id_of,
    keys_of_first,
    text_of,
)

VARIANTS = ("",)


def _is_release(content: Content) -> bool:
    return {"vid_name", "label"} <= keys_of_first(content)


def _read_release(content: Content) -> Records:
    gather = Gather(content.file)
    for number, one in enumerate(content.value, 1):
        place = f"record {number}"
        name = field(one, "vid_name", str, content.file, place)
        gather.add(Record(id_of(name), place, label=str(field(one, "label", int, content.file, place))))
    return gather.done()


def _is_vocabulary(content: Content) -> bool:
    value = content.value
    return isinstance(value, list) and bool(value) and all(isinstance(one, list) for one in value)


def _read_vocabulary(content: Content) -> Records:
    """The four parts of each dive, whose name they are together; its place is its number."""
    gather = Gather(content.file)
    for number, parts in enumerate(content.value):
        name = text_of(parts, content.file, f"class {number}")
        gather.add(Record(name, f"class {number}", label=str(number)))
    return gather.done()


RELEASE = Dialect("Diving48's json", '[{"vid_name", "label"}]', _is_release, _read_release)
VOCABULARY = Dialect("Diving48's vocabulary", '[["Back", "15som", ...], ...]', _is_vocabulary, _read_vocabulary)
DIALECTS = (RELEASE, VOCABULARY)
_LISTS = (RELEASE, CLASS_LIST)

_LABELS = Role("labels", "the 48 dives by number", ("*diving48*vocab*.json", "*label*.txt"), (VOCABULARY, *LABELS))
_ROLES: dict[SplitName, Role] = {
    "train": Role("train", "the training list", ("diving48_v2_train.json", "*diving48*train*"), _LISTS),
    "test": Role("test", "the test list", ("diving48_v2_test.json", "*diving48*test*", "*diving48*val*"), _LISTS),
}


def read(finder: Finder, _variant: str, needs: Collection[SplitName]) -> Benchmark:
    """Two lists and the names of the dives."""
    found = read_labelled(finder, _LABELS, _ROLES, needs, {})
    protocol = Protocol("Diving48", "recognition", "label", "labels as the files have them (V2 where they are V2's)")
    return Benchmark("diving48", "", protocol, found.splits, found.names, found.differences)
