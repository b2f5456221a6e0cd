"""HMDB51 (Kuehne et al., ICCV 2011) and UCF101 (Soomro et al., 2012): three splits each, no validation.

HMDB51's release has a file a class and split, `brush_hair_test_split1.txt`, whose lines are `name.avi 1` (train), 2 (test) or
0 (neither); lists in use have `path class`. UCF101's has trainlist01.txt, `Class/name.avi 1` (from 1), testlist01.txt,
`Class/name.avi`, and classInd.txt, `1 Class`.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from stillreel.configs import DataError
from stillreel.finetune.benchmarks.assemble import check_apart
from stillreel.finetune.benchmarks.benchmark import Benchmark, Protocol, Published, Split, SplitName
from stillreel.finetune.benchmarks.classes import (
    CLASS_LIST,
    LABELS,
    Classes,
    classes_of,
    is_numbered,
    labelled_split,
    plain,
)
from stillreel.finetune.benchmarks.files import Content
from stillreel.finetune.benchmarks.find import Finder, Role
from stillreel.finetune.benchmarks.records import ID_LIST, Dialect, Gather, Record, Records, Table, id_of

VARIANTS = ("1", "2", "3")
_CLASS_FILE = re.compile(r"(.+)_test_split([123])\.txt")
_PARTS = {"0": "", "1": "train", "2": "test"}


def _is_class_file(content: Content) -> bool:
    return content.is_text and _CLASS_FILE.fullmatch(content.file.name) is not None


def _read_class_file(content: Content) -> Records:
    """The class is the file's name; `split` says which of its clips are for training and which for the test."""
    match = _CLASS_FILE.fullmatch(content.file.name)
    assert match is not None
    gather = Gather(content.file)
    for number, text in content.lines:
        name, _, part = text.strip().rpartition(" ")
        if part not in _PARTS or not name.strip():
            raise DataError(f"{content.file}, line {number}: expected `name.avi` and 0, 1 or 2, found {text[:80]!r}")
        gather.add(Record(id_of(name.strip()), f"line {number}", label=match[1], split=_PARTS[part], path=name.strip()))
    return gather.done()


CLASS_FILE = Dialect("HMDB51's release", "`name.avi 1` lines, a file a class", _is_class_file, _read_class_file)
DIALECTS = (CLASS_FILE,)

_COUNTS = {
    "hmdb51": {"train": (3570, 3570, 3570), "test": (1530, 1530, 1530)},
    "ucf101": {"train": (9537, 9586, 9624), "test": (3783, 3734, 3696)},
}
_TITLES = {"hmdb51": "HMDB51", "ucf101": "UCF101"}


def _roles(finder: Finder, variant: str) -> tuple[Role, Role, dict[SplitName, Role]]:
    name = finder.name
    files = Role("lists", "a file a class", (f"*_test_split{variant}.txt",), (CLASS_FILE,), many=True)
    labels = Role(
        "labels", "the names of the classes", (f"*{name}*label*", f"*{name[:3]}*label*", "classind.txt"),
        LABELS,
    )  # fmt: skip
    splits: dict[SplitName, Role] = {}
    for split in ("train", "test"):
        splits[split] = Role(
            split,
            f"the {split} list of split {variant}, `path class` lines",
            (f"*{name}*{split}*split*{variant}*.txt", f"{split}list0{variant}.txt", f"*{split}*{variant}.txt"),
            (CLASS_LIST, ID_LIST),
        )
    return files, labels, splits


def read(finder: Finder, variant: str, needs: Collection[SplitName]) -> Benchmark:
    """The release's files, or a list a split."""
    files, labels_role, roles = _roles(finder, variant)
    tables: dict[SplitName, Table] = _release(finder, files) if finder.name == "hmdb51" else {}
    labels = finder.table(labels_role, needed=False)
    for name, role in roles.items():
        if name not in tables and (table := finder.table(role, needed=name in needs)) is not None:
            tables[name] = _by_folder(table)
    classes = classes_of(labels, tables.values())
    splits: dict[SplitName, Split] = {}
    for name, table in tables.items():
        count = _COUNTS[finder.name][name][int(variant) - 1]
        table = _from_nought(table, classes)
        splits[name] = labelled_split(name, table, classes, (Published(count, by="the release"),), {})
    check_apart(splits)
    protocol = Protocol(f"{_TITLES[finder.name]} split {variant}", "recognition", "label")
    return Benchmark(finder.name, variant, protocol, splits, classes.names, tuple(classes.differences))


def _release(finder: Finder, role: Role) -> dict[SplitName, Table]:
    """The files of all classes as one table a split."""
    if finder.settings.files.train or finder.settings.files.test:
        return {}
    tables = finder.tables(role, needed=False)
    made: dict[SplitName, Table] = {}
    for name in ("train", "test") if tables else ():
        gather = Gather(tables[0].file)
        for table in tables:
            for record in table.records.values():
                if record.split == name:
                    gather.add(record._replace(place=f"{table.file.name}, {record.place}"))
        made[name] = Table(tables[0].file, CLASS_FILE, gather.done())
    return made


def _by_folder(table: Table) -> Table:
    """A list without classes has them as its videos' folders."""
    if table.dialect is not ID_LIST:
        return table
    records: Records = {}
    for record in table.records.values():
        folder = record.path.rpartition("/")[0].rpartition("/")[2]
        if not folder:
            raise DataError(
                f"{table.file}, {record.place}: expected `path class` or `Class/name`, found {record.path!r}"
            )
        records[record.id] = record._replace(label=folder)
    return table._replace(records=records)


def _from_nought(table: Table, classes: Classes) -> Table:
    """A list that counts classes from 1 (UCF101's) counts from 0 hereafter; a folder that is a class says so itself."""
    if not is_numbered(table):
        return table
    known = {plain(name) for name in classes.names}
    folders = {one.id: one.path.rpartition("/")[0].rpartition("/")[2] for one in table.records.values()}
    if all(plain(folder) in known for folder in folders.values()):
        records = {name: one._replace(label=folders[name]) for name, one in table.records.items()}
        return table._replace(records=records)
    numbers = {int(one.label) for one in table.records.values()}
    if min(numbers) == 1 and max(numbers) == len(classes.names):
        records = {name: one._replace(label=str(int(one.label) - 1)) for name, one in table.records.items()}
        classes.differences.append(f"{table.file.name} counts classes from 1")
        return table._replace(records=records)
    return table
