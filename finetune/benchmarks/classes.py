"""What recognition benchmarks share: names of classes, lists of videos with a class, and the numbers that lists give to classes.

Lists number classes each in its own way: that of UniFormer for Kinetics-400 puts `abseiling` at 341, label maps at 0. So
numbers are never taken on trust where a file with names has some of the same videos.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from stillreel.configs import DataError
from stillreel.finetune.benchmarks.assemble import check_apart
from stillreel.finetune.benchmarks.benchmark import Published, Split, SplitName, Video
from stillreel.finetune.benchmarks.files import Content
from stillreel.finetune.benchmarks.find import Finder, Role
from stillreel.finetune.benchmarks.records import (
    Dialect,
    Gather,
    Record,
    Records,
    Table,
    first_value,
    id_of,
    read_table,
)


def plain(name: str) -> str:
    """A class name as it is compared: lower case, blanks for underscores, without the brackets of templates.

    >>> plain("Moving [something] up"), plain("brush_hair")
    ('moving something up', 'brush hair')
    """
    return " ".join(name.translate(str.maketrans("_", " ", '[]"')).lower().split())


def _is_number_table(content: Content) -> bool:
    return content.is_text and content.header() == ["id", "name"]


def _read_number_table(content: Content) -> Records:
    gather = Gather(content.file)
    for number, row in content.rows(["id", "name"]):
        gather.add(Record(row["name"], f"line {number}", label=row["id"]))
    return gather.done()


def _is_number_object(content: Content) -> bool:
    first = first_value(content)
    return isinstance(first, int) or (isinstance(first, str) and first.isdecimal())


def _read_number_object(content: Content) -> Records:
    gather = Gather(content.file)
    for name, number in content.value.items():
        if not isinstance(number, int) and not (isinstance(number, str) and number.isdecimal()):
            raise DataError(f"{content.file}, class {name!r}: expected its number, found {number!r}")
        gather.add(Record(name, f"class {name!r}", label=str(number)))
    return gather.done()


def _is_number_lines(content: Content) -> bool:
    words = content.first.split(maxsplit=1)
    return content.is_text and len(words) == 2 and words[0] in ("0", "1")


def _read_number_lines(content: Content) -> Records:
    gather = Gather(content.file)
    for number, text in content.lines:
        index, _, name = text.strip().partition(" ")
        if not index.isdecimal() or not name.strip():
            raise DataError(f"{content.file}, line {number}: expected `number name`, found {text[:80]!r}")
        gather.add(Record(name.strip(), f"line {number}", label=index))
    return gather.done()


def _is_name_lines(content: Content) -> bool:
    return content.is_text and "," not in content.first and "\t" not in content.first


def _read_name_lines(content: Content) -> Records:
    gather = Gather(content.file)
    for index, (number, text) in enumerate(content.lines):
        gather.add(Record(text.strip(), f"line {number}", label=str(index)))
    return gather.done()


LABELS = (
    Dialect("a table of classes", "csv `id,name`", _is_number_table, _read_number_table),
    Dialect("classes with numbers", '{"class": "0", ...}', _is_number_object, _read_number_object),
    Dialect("classes with numbers", "`number name` lines", _is_number_lines, _read_number_lines),
    Dialect("names of classes", "one class name a line", _is_name_lines, _read_name_lines),
)


def label_names(table: Table) -> tuple[str, ...]:
    """Names by number, from 0. DataError when numbers are missing or stand twice."""
    numbers = {int(record.label): record for record in table.records.values() if record.label.isdecimal()}
    start = min(numbers, default=0)
    if start not in (0, 1) or sorted(numbers) != list(range(start, start + len(table.records))):
        raise DataError(f"{table.file}: expected the numbers 0 to {len(table.records) - 1:,} once each, one a class")
    return tuple(numbers[number].id for number in sorted(numbers))


def _split_line(text: str) -> list[str]:
    """`path label`, `path,label` (or with a semicolon or a tab) or `id frames label`; a path may hold blanks, a label that is a
    number may not."""
    for separator in ",;\t":
        if separator in text:
            return next(csv.reader([text], delimiter=separator), [])
    path, _, label = text.strip().rpartition(" ")
    before, _, frames = path.rpartition(" ")
    if frames.isdecimal() and before and " " not in before:
        return [before, frames, label]
    return [path, label]


def _is_class_list(content: Content) -> bool:
    fields = _split_line(content.first) if content.is_text else []
    return len(fields) in (2, 3) and bool(fields[0]) and fields[-1].strip().isdecimal()


def _read_class_list(content: Content) -> Records:
    gather = Gather(content.file)
    count = len(_split_line(content.first))
    for number, text in content.lines:
        fields = [one.strip() for one in _split_line(text)]
        if len(fields) != count or not fields[0] or not fields[-1].isdecimal():
            form = "`id frames class`" if count == 3 else "`path class`"
            raise DataError(
                f"{content.file}, line {number}: expected {form} with the class as a number, found {text[:80]!r}"
            )
        gather.add(Record(id_of(fields[0]), f"line {number}", label=fields[-1], path=fields[0]))
    return gather.done()


CLASS_LIST = Dialect(
    "a list of videos with class numbers", "`path class` or `id frames class` lines", _is_class_list, _read_class_list
)


def is_numbered(table: Table) -> bool:
    """Whether a list gives numbers rather than names."""
    return all(record.label.isdecimal() for record in table.records.values())


def numbering(numbered: Table, named: Table) -> dict[int, str]:
    """The name that stands behind each number, from the videos that both files have; {} when they have none in common.

    DataError when a number stands for two names.
    """
    names: dict[int, str] = {}
    for record in numbered.records.values():
        other = named.records.get(record.id)
        if other is None:
            continue
        name = names.setdefault(int(record.label), other.label)
        if name != other.label:
            raise DataError(
                f"{numbered.file}, {record.place}: class {record.label} is {other.label!r} by {named.file}, {other.place}, and "
                f"{name!r} by a video before it; expected one name a number"
            )
    return names


class Classes:
    """Turns labels of files into numbers from 0, the same for all splits. `differences` tell what was found on the way."""

    def __init__(self, names: Sequence[str], source: str) -> None:
        self.names = tuple(names)
        self.source = source
        self.differences: list[str] = []
        self._index = {plain(name): number for number, name in enumerate(self.names)}
        self.checked = False  # whether the numbers of a list were compared with names
        self._own: dict[int, str] = {}  # the names behind the numbers of this user's lists
        self._numbers: dict[str, int] = {}  # of labels met before

    def learn(self, numbered: Table, named: Table) -> None:
        """See how lists number classes by one whose videos a file with names has too."""
        own = numbering(numbered, named)
        self.checked |= bool(own)
        other = [number for number, name in own.items() if self._index.get(plain(name), number) != number]
        if other:
            number = min(other)
            self.differences.append(
                f"{numbered.file.name} numbers {len(other):,} of {len(own):,} classes otherwise than {self.source} "
                f"({number} is {own[number]!r}, not {self.names[number] if number < len(self.names) else 'any'!r}): "
                f"its classes are known by the videos that it shares with {named.file.name}"
            )
            self._own |= own

    def number(self, table: Table, record: Record) -> int:
        """The number of a record's class. DataError when there is no such class."""
        if record.label not in self._numbers:
            self._numbers[record.label] = self._look_up(table, record)
        return self._numbers[record.label]

    def _look_up(self, table: Table, record: Record) -> int:
        if record.label.isdecimal() and plain(record.label) not in self._index:
            number = int(record.label)
            if self._own:
                name = self._own.get(number)
                if name is None:
                    raise DataError(f"{table.file}, {record.place}: class {number}, and no known video tells its name")
                return self._index[plain(name)]
            if number < len(self.names):
                return number
        elif plain(record.label) in self._index:
            return self._index[plain(record.label)]
        near = get_close_matches(plain(record.label), list(self._index), n=1)
        raise DataError(
            f"{table.file}, {record.place}: class {record.label!r} is none of the {len(self.names):,} of {self.source}"
            + (f"; is it {near[0]!r}?" if near else "")
        )


def classes_of(labels: Table | None, tables: Iterable[Table]) -> Classes:
    """The classes by their file; without one, the names that stand in the lists, sorted; else numbers without names."""
    if labels is not None:
        return Classes(label_names(labels), labels.file.name)
    tables = list(tables)
    said = {record.label for table in tables if not is_numbered(table) for record in table.records.values()}
    if said:
        return Classes(sorted(said), "the lists, sorted")
    most = max((int(record.label) for table in tables for record in table.records.values()), default=-1)
    made = Classes([str(number) for number in range(most + 1)], "the lists")
    made.differences.append(
        "classes have numbers and no names: name a file of names with files.labels= to compare with text"
    )
    return made


def compare_lists(
    finder: Finder, tables: Mapping[SplitName, Table], classes: Classes, dialects: Sequence[Dialect]
) -> list[str]:
    """Compare each list with the other files that might have played its part: their videos, and how they number classes."""
    said = []
    for name, table in tables.items():
        for spare in _read_spares(finder, table, name, dialects):
            said += _compare_ids(name, table, spare)
            named, numbered = sorted((table, spare), key=is_numbered)
            if is_numbered(numbered) and not is_numbered(named):
                classes.learn(numbered, named)
    unchecked = [table.file.name for table in tables.values() if is_numbered(table) and not classes.checked]
    if unchecked:
        said.append(
            f"{', '.join(unchecked)}: classes are numbers, taken to be those of {classes.source}; no file can check it"
        )
    return said


def _read_spares(finder: Finder, chosen: Table, setting: str, dialects: Sequence[Dialect]) -> list[Table]:
    """Files that share videos with the chosen one; those that are no such list are left."""
    tables = []
    for file in finder.spare.get(setting, []):
        try:
            table = read_table(file, dialects)
        except DataError:
            continue
        if table.records.keys() & chosen.records.keys():
            tables.append(table)
    return tables


def _compare_ids(name: SplitName, chosen: Table, spare: Table) -> list[str]:
    """A sentence when two lists of one split have not the same videos."""
    fewer, more = chosen.records.keys() - spare.records.keys(), spare.records.keys() - chosen.records.keys()
    if not fewer and not more:
        return []
    return [
        f"{name}: {len(chosen.records):,} videos in {chosen.file.name}, {len(spare.records):,} in {spare.file.name} "
        f"({len(fewer):,} only in the former, {len(more):,} only in the latter); the former is used"
    ]


def labelled_split(
    name: SplitName,
    table: Table,
    classes: Classes,
    published: tuple[Published, ...],
    names: Mapping[str, tuple[str, ...]],
) -> Split:
    """The videos of a list with their classes by number; `names` are spellings of files, where ids do not say them."""
    videos = tuple(
        Video(one.id, label=classes.number(table, one), names=names.get(one.id, ()), path=one.path)
        for one in table.records.values()
    )
    return Split(name, videos, published, (str(table.file),))


class Labelled(NamedTuple):
    """The splits of a benchmark whose lists give a class to each video."""

    splits: dict[SplitName, Split]
    names: tuple[str, ...]  # of the classes, by number
    differences: tuple[str, ...]


def read_labelled(
    finder: Finder,
    labels: Role,
    lists: Mapping[SplitName, Role],
    needs: Collection[SplitName],
    published: Mapping[SplitName, tuple[Published, ...]],
    spelled: Callable[[Record], tuple[str, ...]] = lambda _: (),
) -> Labelled:
    """A list a split and the names of the classes; lists of one split, where there are several, are compared. `spelled` gives
    the spellings of a video's file, where its id does not say them."""
    named = finder.table(labels, needed=False)
    tables: dict[SplitName, Table] = {}
    for name, role in lists.items():
        if (table := finder.table(role, needed=name in needs)) is not None:
            tables[name] = table
    classes = classes_of(named, tables.values())
    dialects = next(iter(lists.values())).dialects
    differences = compare_lists(finder, tables, classes, dialects)
    splits: dict[SplitName, Split] = {}
    for name, table in tables.items():
        names = {one.id: spelled(one) for one in table.records.values()}
        splits[name] = labelled_split(name, table, classes, published.get(name, ()), names)
    check_apart(splits)
    return Labelled(splits, classes.names, (*differences, *classes.differences))
