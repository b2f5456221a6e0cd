"""Kinetics-400, -600 and -700 (Kay et al., 2017; Carreira et al., 2018 and 2019): so many classes of ten-second clips.

As everybody does, the official validation is the test. The official csv has names, ids and times (of 400 19,906 rows); lists for
SlowFast and its heirs have `path,class` for what their authors could still download (UniFormer's: 19,787), with class numbers of
their own. Clips lie in folders by class, as `id_000417_000427.mp4`, `id.mp4`, or either with _trimmed.
"""

from __future__ import annotations

from collections.abc import Collection

from stillreel.configs import DataError
from stillreel.finetune.benchmarks.benchmark import Benchmark, Protocol, Published, SplitName
from stillreel.finetune.benchmarks.classes import CLASS_LIST, LABELS, read_labelled
from stillreel.finetune.benchmarks.files import Content
from stillreel.finetune.benchmarks.find import Finder, Role
from stillreel.finetune.benchmarks.records import Dialect, Gather, Record, Records

VARIANTS = ("",)
_ID = r"[\w-]{11}"


def _is_csv(content: Content) -> bool:
    return content.is_text and {"label", "youtube_id"} <= set(content.header())


def _read_csv(content: Content) -> Records:
    """`path` is the file's name in the official download."""
    gather = Gather(content.file)
    for number, row in content.rows(["label", "youtube_id", "time_start", "time_end"]):
        start, end = row["time_start"], row["time_end"]
        if not (start.isdecimal() and end.isdecimal()):
            raise DataError(f"{content.file}, line {number}: times {start!r} to {end!r}; expected whole seconds")
        name = f"{row['youtube_id']}_{int(start):06d}_{int(end):06d}"
        gather.add(Record(row["youtube_id"], f"line {number}", label=row["label"], path=name))
    return gather.done()


CSV = Dialect(
    "Kinetics' csv", "csv with label,youtube_id,time_start,time_end,split", _is_csv, _read_csv
)  # fmt: skip
DIALECTS = (CSV,)
_LISTS = (CSV, CLASS_LIST)

# Of 400; the others have shrunk since they were counted, and lists of them are many.
_PUBLISHED: dict[tuple[str, SplitName], tuple[Published, ...]] = {
    ("400", "test"): (
        Published(19_906, by="the official csv"),
        Published(19_881, by="a list of what could be downloaded"),
        Published(19_877, by="a list of what could be downloaded"),
        Published(19_796, by="mmaction2's copy"),
        Published(19_787, by="UniFormer's list"),
    ),
}


def _labels(classes: str) -> Role:
    names = (
        f"*kinetics*{classes}*label*.csv",
        f"*label_map*k{classes}*.txt",
        "*label_map*.txt",
        "*kinetics*label*.txt",
    )
    return Role("labels", f"the names of the {classes} classes", names, LABELS)


def _list(name: SplitName, part: str, what: str, classes: str) -> Role:
    """The list of a split that files call `part`."""
    names = (
        f"kinetics*{classes}*{part}*.csv",
        f"*k{classes}*{part}*.csv",
        f"{part}.csv",
        f"*{part}*.csv",
        f"*{part}*list*.txt",
        f"*{part}*.txt",
    )
    what = f"the {what}: csv with label,youtube_id,..., or `path class` lines"
    return Role(name, what, names, _LISTS, like=_ID if name == "test" else "")


def read(finder: Finder, _variant: str, needs: Collection[SplitName]) -> Benchmark:
    """Lists and names of classes; where a list and the csv are both there, they are compared."""
    count = finder.name.removeprefix("kinetics")
    roles: dict[SplitName, Role] = {
        "train": _list("train", "train", "training list", count),
        "test": _list("test", "val", "validation list, on which all test", count),
    }
    published = {name: sizes for (classes, name), sizes in _PUBLISHED.items() if classes == count}
    found = read_labelled(finder, _labels(count), roles, needs, published, _spellings)
    protocol = Protocol(f"Kinetics-{count}", "recognition", "label", "the official validation split is the test")
    return Benchmark(finder.name, "", protocol, found.splits, found.names, found.differences)


def _spellings(record: Record) -> tuple[str, ...]:
    """Of the file: as the official download has it, or its id."""
    return tuple(filter(None, (record.path, record.id)))
