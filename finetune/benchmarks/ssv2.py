"""Something-Something V2 (Goyal et al., ICCV 2017): 174 templates of motion; left and right differ, so clips are never flipped.

The official validation (24,777), whose labels are public, is the test, as everybody has it; the official test (27,157) has
no labels. Lists are the release's json (`template` is the class) or TSM's `id frames class`. Clips are 12345.webm.
"""

from __future__ import annotations

from collections.abc import Collection

from stillreel.finetune.benchmarks.benchmark import Benchmark, Protocol, Published, SplitName
from stillreel.finetune.benchmarks.classes import CLASS_LIST, LABELS, read_labelled
from stillreel.finetune.benchmarks.files import Content
from stillreel.finetune.benchmarks.find import Finder, Role
from stillreel.finetune.benchmarks.records import Dialect, Gather, Record, Records, field, keys_of_first, name_of

VARIANTS = ("",)


def _is_release(content: Content) -> bool:
    return {"id", "template"} <= keys_of_first(content)


def _read_release(content: Content) -> Records:
    gather = Gather(content.file)
    for number, one in enumerate(content.value, 1):
        place = f"record {number}"
        template = field(one, "template", str, content.file, place)
        gather.add(
            Record(name_of(field(one, "id", object, content.file, place), content.file, place), place, label=template)
        )
    return gather.done()


def _is_unlabelled(content: Content) -> bool:
    return keys_of_first(content) == {"id"}


def _read_unlabelled(content: Content) -> Records:
    gather = Gather(content.file)
    for number, one in enumerate(content.value, 1):
        place = f"record {number}"
        gather.add(Record(name_of(field(one, "id", object, content.file, place), content.file, place), place))
    return gather.done()


RELEASE = Dialect("SSv2's json", '[{"id", "label", "template", "placeholders"}]', _is_release, _read_release)
UNLABELLED = Dialect("SSv2's test, which has no labels", '[{"id"}]', _is_unlabelled, _read_unlabelled)
DIALECTS = (RELEASE, UNLABELLED)
_LISTS = (RELEASE, CLASS_LIST)

_LABELS = Role(
    "labels",
    "the 174 classes with their numbers",
    ("*something*labels*.json", "labels.json", "*ssv2*label*", "category.txt", "*label_map*.txt"),
    LABELS,
)
_PUBLISHED: dict[SplitName, tuple[Published, ...]] = {
    "train": (Published(168_913, by="the release"),),
    "test": (Published(24_777, by="the release's validation"),),
}
_ROLES: dict[SplitName, Role] = {
    "train": Role(
        "train",
        "the training list: the release's json, or `id frames class` lines",
        ("*something*train*.json", "somesomev2*train*.txt", "train.json", "*train*.txt", "*train*.csv"),
        _LISTS,
        like=r"\d+",
        sizes=(168_913,),
    ),
    "test": Role(
        "test",
        "the validation list, on which all test: the release's json, or `id frames class` lines",
        ("*something*validation*.json", "somesomev2*val*.txt", "validation.json", "*val*.txt", "*val*.csv"),
        _LISTS,
        like=r"\d+",
        sizes=(24_777,),
    ),
}
_UNLABELLED = Role("unlabelled", "the official test", ("*something*v2-test.json",), (UNLABELLED,))


def read(finder: Finder, _variant: str, needs: Collection[SplitName]) -> Benchmark:
    """Two lists and the classes; the json and the list of one split, where both are there, are compared."""
    found, differences = read_labelled(finder, _LABELS, _ROLES, needs, _PUBLISHED), []
    if (test := finder.table(_UNLABELLED, needed=False)) is not None:
        differences.append(f"{test.file.name}: {test.size()} without labels: not used")
    note = "the official validation split is the test; no flips"
    protocol = Protocol("Something-Something V2", "recognition", "label", note)
    return Benchmark("ssv2", "", protocol, found.splits, found.names, (*found.differences, *differences))
