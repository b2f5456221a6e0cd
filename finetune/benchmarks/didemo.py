"""DiDeMo (Hendricks et al., ICCV 2017) as paragraph retrieval: all descriptions of a video, joined, are its query.

{train,val,test}_data.json hold the descriptions; {train,val,test}_list.txt, where they are there, say which videos papers use
(8,395 or 8,392 / 1,065 / 1,004). The json has more names (1,094 / 1,037) of the same videos: some stand there with two
endings, and the descriptions of the one that the list has not are left out, as published; without a list a video has those
of both. Videos are looked at for their first 31 seconds, as CLIP4Clip does; annotators saw 30. Names have the ending of the
upload, or a bare dot where it had none, and the file on the disk may have another.
"""

from __future__ import annotations

from collections.abc import Collection

from stillreel.finetune.benchmarks.assemble import Joiner, check_apart
from stillreel.finetune.benchmarks.benchmark import Benchmark, Protocol, Published, Span, SplitName, Video
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
    keys_of_first,
    text_of,
)

VARIANTS = ("",)
SPAN = Span(0.0, 31.0)
_ID = r"\d+@N\d\d_\d+_[0-9a-f]+(\..*)?"


def stem_of(name: str) -> str:
    """A video's id: its file's name without any ending, known or not, and without a bare dot.

    >>> stem_of("12345678@N00_1234567890_0123456789.null"), stem_of("12345678@N00_1234567890_0123456789.")
    ('12345678@N00_1234567890_0123456789', '12345678@N00_1234567890_0123456789')
    """
    return name.rpartition("/")[2].partition(".")[0]


def _is_release(content: Content) -> bool:
    return {"video", "description"} <= keys_of_first(content)


def _read_release(content: Content) -> Records:
    """Descriptions of a video in the file's order."""
    gather = Gather(content.file, adds_up=True)
    for number, one in enumerate(content.value, 1):
        place = f"record {number}"
        name = field(one, "video", str, content.file, place)
        said = text_of(field(one, "description", str, content.file, place), content.file, place)
        gather.add(Record(name, place, (said,), path=name))
    return gather.done()


RELEASE = Dialect(
    "DiDeMo's json", '[{"video": ..., "description": ..., "times": [...]}]', _is_release, _read_release
)  # fmt: skip
DIALECTS = (RELEASE,)

_BY = "the lists of collaborative-experts"
_PUBLISHED: dict[SplitName, tuple[Published, ...]] = {
    "train": (Published(8395, by="the release"), Published(8392, by=f"{_BY}, what can still be had")),
    "validation": (Published(1065, by=_BY), Published(1094, by="all of val_data.json")),
    "test": (Published(1004, by=_BY), Published(1003, by=_BY), Published(1037, by="all of test_data.json")),
}
_SHORT: dict[SplitName, str] = {"train": "train", "validation": "val", "test": "test"}
_CAPTIONS = Role(
    "captions",
    "the descriptions, {train,val,test}_data.json",
    ("train_data.json val_data.json test_data.json", "*didemo*train*.json *didemo*val*.json *didemo*test*.json"),
    (RELEASE, STAN, UMT),
    like=_ID,
    many=True,
)


def _list_role(name: SplitName) -> Role:
    count, short = _PUBLISHED[name][0].videos, _SHORT[name]
    sizes = tuple(one.videos for one in _PUBLISHED[name])
    what = f"the ids of the {name} split ({count:,} in papers)"
    return Role(name, what, (f"{short}_list.txt", f"*didemo*{short}*.txt"), (ID_LIST, RELEASE, STAN, UMT), _ID, sizes)


def read(finder: Finder, _variant: str, needs: Collection[SplitName]) -> Benchmark:
    """Each split is a json, kept to the names of its list where there is one."""
    joiner = Joiner(finder, _CAPTIONS, needs)
    named = {one.path or one.id: one for one in joiner.spoken.values()}
    joiner.spoken = {stem: one for table in joiner.tables for stem, one in _by_stem(table).items()}
    for name, published in _PUBLISHED.items():
        data = next((table for table in joiner.tables if _SHORT[name] in table.file.name.lower()), None)
        listed = finder.table(_list_role(name), needed=name in needs and data is None)
        if data is not None:
            joiner.differences += _compare(name, data, listed)
        if listed is not None:
            same_names = {one.path or one.id for one in listed.records.values()} & named.keys()
            joiner.spoken |= {stem_of(one): named[one] for one in same_names}
        if (chosen := listed or data) is not None:
            joiner.add(name, chosen._replace(records=_by_stem(chosen)), published, _video)
    check_apart(joiner.splits)
    protocol = Protocol("DiDeMo", "retrieval", "paragraph", "the first 31 s of each video")
    return Benchmark("didemo", "", protocol, joiner.splits, differences=tuple(joiner.differences))


def _by_stem(table: Table) -> Records:
    """Records by name without ending; names that differ in their endings alone are one video with all descriptions."""
    gather = Gather(table.file, adds_up=table.dialect is RELEASE)
    for one in table.records.values():
        gather.add(one._replace(id=stem_of(one.path or one.id), path=one.path or one.id))
    return gather.done()


def _compare(name: SplitName, data: Table, listed: Table | None) -> list[str]:
    """Sentences on names of the json that are second spellings, or that the list has not."""
    names, stems = len(data.records), len(_by_stem(data))
    if listed is None:
        twice = f", {names - stems:,} of them with two endings" if names > stems else ""
        return [
            f"{name}: no list; {data.file.name} has {names:,} names of {stems:,} videos{twice}; all descriptions are used"
        ]
    kept = {one.path or one.id for one in listed.records.values()}
    left = [one for path, one in data.records.items() if path not in kept]
    if not left:
        return []
    known = _by_stem(listed).keys()
    second = sum(stem_of(one.id) in known for one in left)
    said = sum(len(one.captions) for one in left)
    return [
        f"{name}: {data.file.name} has {names:,} names and {data.captions:,} descriptions, {listed.file.name} "
        f"{len(listed.records):,} names: of the {len(left):,} not in the list {second:,} are listed videos with another "
        f"ending; their {said:,} descriptions are left out, as published"
    ]


def _video(listed: Record, spoken: Record) -> Video:
    paragraph = " ".join(spoken.captions)
    return Video(listed.id, (paragraph,), span=SPAN, names=(listed.path, listed.id, f"{listed.id}."), path=listed.path)
