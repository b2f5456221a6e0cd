"""Kinetics-400 (Kay et al., 2017): 400 classes of ten-second clips. As everybody does, the official validation is the test.

The official csv has names, ids and times (19,906 rows); lists for SlowFast and its heirs have `path,class` for what their
authors could still download (UniFormer's: 19,787), with class numbers of their own. Clips lie in folders by class, as
`id_000417_000427.mp4`, `id.mp4`, or either with _trimmed.
"""

from __future__ import annotations

from collections.abc import Collection

from stillreel.configs import DataError
from stillreel.finetune.benchmarks.assemble import check_apart
from stillreel.finetune.benchmarks.benchmark import Benchmark, Protocol, Published, Split, SplitName
from stillreel.finetune.benchmarks.classes import CLASS_LIST, LABELS, classes_of, compare_lists, labelled_split
from stillreel.finetune.benchmarks.files import Content
from stillreel.finetune.benchmarks.find import Finder, Role
from stillreel.finetune.benchmarks.records import Dialect, Gather, Record, Records, Table

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

_LABELS = Role(
    "labels",
    "the names of the 400 classes",
    ("*kinetics*400*label*.csv", "*label_map*k400*.txt", "*label_map*.txt", "*kinetics*label*.txt"),
    LABELS,
)
_PUBLISHED: dict[SplitName, tuple[Published, ...]] = {
    "train": (),
    "test": (
        Published(19_906, by="the official csv"),
        Published(19_881, by="a list of what could be downloaded"),
        Published(19_877, by="a list of what could be downloaded"),
        Published(19_796, by="mmaction2's copy"),
        Published(19_787, by="UniFormer's list"),
    ),
}
_ROLES: dict[SplitName, Role] = {
    "train": Role(
        "train",
        "the training list: csv with label,youtube_id,..., or `path class` lines",
        ("kinetics*400*train*.csv", "*k400*train*.csv", "train.csv", "*train*.csv", "*train*list*.txt", "*train*.txt"),
        _LISTS,
    ),
    "test": Role(
        "test",
        "the validation list, on which all test: csv with label,youtube_id,..., or `path class` lines",
        ("kinetics*400*val*.csv", "*k400*val*.csv", "val.csv", "*val*.csv", "*val*list*.txt", "*val*.txt"),
        _LISTS,
        like=_ID,
    ),
}


def read(finder: Finder, _variant: str, needs: Collection[SplitName]) -> Benchmark:
    """Lists and names of classes; where a list and the csv are both there, they are compared."""
    labels = finder.table(_LABELS, needed=False)
    tables: dict[SplitName, Table] = {}
    for name, role in _ROLES.items():
        if (table := finder.table(role, needed=name in needs)) is not None:
            tables[name] = table
    classes = classes_of(labels, tables.values())
    differences = compare_lists(finder, tables, classes, _LISTS)
    splits: dict[SplitName, Split] = {}
    for name, table in tables.items():
        names = {one.id: tuple(filter(None, (one.path, one.id))) for one in table.records.values()}
        splits[name] = labelled_split(name, table, classes, _PUBLISHED[name], names)
    check_apart(splits)
    protocol = Protocol("Kinetics-400", "recognition", "label", "the official validation split is the test")
    return Benchmark("kinetics400", "", protocol, splits, classes.names, (*differences, *classes.differences))
