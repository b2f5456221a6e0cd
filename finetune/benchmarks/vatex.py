"""VATEX, English (Wang et al., ICCV 2019): 25,991 training videos, 10 captions each, and two test splits of 1,500 in use.

hgr (Chen et al., CVPR 2020; the comparable one): the official validation videos, halved into 1,500 for validation and 1,500
for the test. clip2video: the 1,500 that CLIP2Video drew at random from the same 3,000; 776 of them are in HGR's validation
list, which this variant therefore leaves out of its validation.
"""

from __future__ import annotations

from collections.abc import Collection

from stillreel.finetune.benchmarks.assemble import Joiner, check_apart
from stillreel.finetune.benchmarks.benchmark import Benchmark, Protocol, Published, SplitName, Video
from stillreel.finetune.benchmarks.files import Content
from stillreel.finetune.benchmarks.find import Finder, Role
from stillreel.finetune.benchmarks.records import (  # fmt: skip
    ID_LIST,
    STAN,
    UMT,
    Dialect,
    Gather,
    Record,
    Records,
    Table,
    field,
    first_value,
    keys_of_first,
    texts_of,
)

VARIANTS = ("hgr", "clip2video")
_ID = r"[\w-]{11}_\d{6}_\d{6}"


def _is_release(content: Content) -> bool:
    first = first_value(content)
    return {"videoID", "enCap"} <= keys_of_first(content) or (isinstance(first, dict) and "enCap" in first)


def _read_release(content: Content) -> Records:
    """The release's list of videos, or CLIP2Video's object by id; the English captions of either."""
    file, value, gather = content.file, content.value, Gather(content.file)
    if isinstance(value, list):
        pairs = [(field(one, "videoID", str, file, f"record {number}"), one) for number, one in enumerate(value, 1)]
    else:
        pairs = list(value.items())
    for number, (name, one) in enumerate(pairs, 1):
        place = f"record {number} (video {name!r})"
        gather.add(Record(name, place, texts_of(field(one, "enCap", list, file, place), file, place)))
    return gather.done()


CAPTIONS = Dialect(
    "VATEX's captions", '{id: {"enCap": [...]}} or [{"videoID": ..., "enCap": [...]}]', _is_release, _read_release
)
DIALECTS = (CAPTIONS,)

_CAPTIONS = Role(
    "captions",
    "the English captions: vatex_data.json, or the release's vatex_training_v1.0.json and vatex_validation_v1.0.json",
    ("vatex_data*.json", "vatex_*v1.*.json", "*vatex*.json"),
    (CAPTIONS, STAN, UMT),
    like=_ID,
    many=True,
)
_HGR = "the lists of HGR, as CLIP2Video has them"
_PUBLISHED: dict[SplitName, tuple[Published, ...]] = {
    "train": (Published(25_991, 259_910, "the release"),),
    "validation": (Published(1500, 15_000, _HGR), Published(724, 7240, "HGR's list without CLIP2Video's test")),
    "test": (Published(1500, 15_000, _HGR),),
}
_TRAIN = Role(
    "train",
    "the 25,991 training ids",
    ("train_list.txt", "*train*list*.txt"),
    (ID_LIST, STAN),
    like=_ID,
    sizes=(25_991,),
)
_VALIDATION = Role("validation", "HGR's 1,500 validation ids", ("val_list.txt", "*val*list*.txt"), (ID_LIST, STAN))
# The lists of 1,500 look alike: only their names tell them apart.
_TEST = {
    "hgr": Role("test", "HGR's 1,500 test ids", ("test_list.txt", "*hgr*test*.txt"), (ID_LIST, STAN)),
    "clip2video": Role(
        "test", "CLIP2Video's 1,500 test ids", ("test1k5_sec_list.txt", "*test1k5*.txt"), (ID_LIST, STAN)
    ),
}


def read(finder: Finder, variant: str, needs: Collection[SplitName]) -> Benchmark:
    """Three lists, joined with the captions."""
    joiner = Joiner(finder, _CAPTIONS, needs)
    train, validation = joiner.list_of(_TRAIN, "train"), joiner.list_of(_VALIDATION, "validation")
    test = joiner.list_of(_TEST[variant], "test")
    if variant == "clip2video" and validation is not None and test is not None:
        rest = {name: record for name, record in validation.records.items() if name not in test.records}
        if dropped := len(validation.records) - len(rest):
            joiner.differences.append(
                f"validation: {dropped:,} of the {len(validation.records):,} videos of {validation.file.name} are in "
                "CLIP2Video's test, and are left out"
            )
        validation = Table(validation.file, validation.dialect, rest)
    tables: dict[SplitName, Table | None] = {"train": train, "validation": validation, "test": test}
    for name, table in tables.items():
        joiner.add(name, table, _PUBLISHED[name], _video)
    check_apart(joiner.splits)
    title = {"hgr": "VATEX (English, HGR split)", "clip2video": "VATEX (English, CLIP2Video split)"}[variant]
    return Benchmark(
        "vatex", variant, Protocol(title, "retrieval", "every"), joiner.splits, differences=tuple(joiner.differences)
    )


def _video(listed: Record, spoken: Record) -> Video:
    """`id_000010_000020.mp4`, or the same times without their zeros."""
    name, start, end = listed.id.rsplit("_", 2) if listed.id.count("_") > 1 else (listed.id, "", "")
    short = (f"{name}_{int(start)}_{int(end)}",) if start.isdecimal() and end.isdecimal() else ()
    return Video(listed.id, spoken.captions, names=tuple(dict.fromkeys((listed.id, *short))))
