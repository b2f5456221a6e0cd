"""A benchmark of one's own: a folder of videos and a table of them, CSV, TSV, JSON, JSON Lines or Parquet.

A row is a video's file and a caption (or a JSON list of captions; or several rows a video), or its class; a column `split`
says where it belongs, and without one all is test. Or a table a split: files.train=, files.test=.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from stillreel.animate.sources.captions import CAPTION_COLUMNS, PICTURE_COLUMNS
from stillreel.configs import DataError, RequestError
from stillreel.configs.benchmark import ColumnSettings
from stillreel.finetune.benchmarks.assemble import check_apart, some
from stillreel.finetune.benchmarks.benchmark import SPLITS, Benchmark, Protocol, Split, SplitName, Video
from stillreel.finetune.benchmarks.classes import LABELS, classes_of, labelled_split
from stillreel.finetune.benchmarks.files import AnnotationFile, Content
from stillreel.finetune.benchmarks.find import Finder, Role
from stillreel.finetune.benchmarks.records import (
    STAN,
    Dialect,
    Gather,
    Record,
    Records,
    Table,
    composed,
    name_of,
    texts_of,
)

VARIANTS = ("",)
_VIDEO_COLUMNS = ("video", "video_path", "video_id", "clip", *PICTURE_COLUMNS)
_CAPTIONS = ("captions", *CAPTION_COLUMNS, "sentence", "sentences")
_LABELS = ("label", "class", "category")
_SPLITS: dict[str, SplitName] = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validate": "validation",
    "validation": "validation", "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_NAMES = tuple(
    f"{stem}*.{ending}"
    for stem in ("captions", "metadata", "annotations", "labels")
    for ending in ("tsv", "csv", "parquet", "jsonl", "ndjson", "json")
)
DIALECTS: tuple[Dialect, ...] = ()


def _is_table(content: Content) -> bool:
    return content.is_text or (isinstance(content.value, list) and all(isinstance(one, dict) for one in content.value))


def _rows(content: Content) -> Iterator[tuple[str, dict[str, Any]]]:
    if content.is_text:
        for number, row in content.rows([]):
            yield f"line {number}", dict(row)
    else:
        for number, row in enumerate(content.value, 1):
            yield f"record {number}", row


class _Columns:
    """Which columns of a table are what."""

    def __init__(self, content: Content, asked: ColumnSettings) -> None:
        file = content.file
        names = (
            content.header() if content.is_text else list(dict.fromkeys(key for row in content.value for key in row))
        )
        self.video = _column(names, asked.video, _VIDEO_COLUMNS)
        self.caption = _column(names, asked.caption, () if asked.label else _CAPTIONS)
        self.label = _column(names, asked.label, () if self.caption else _LABELS)
        self.split = _column(names, asked.split, ("split", "subset", "partition"))
        for setting, found, usual in (
            ("video", self.video, _VIDEO_COLUMNS),
            ("caption", self.caption or self.label, _CAPTIONS),
        ):
            if not found or found not in names:
                raise RequestError(
                    f"{file}: no column {found or ', '.join(usual[:6])!r}; it has {', '.join(names)}. "
                    f"Name one with column.{setting}={' or column.label=' if setting == 'caption' else ''}"
                )
        for setting in ("label", "split"):
            column = getattr(self, setting)
            if column and column not in names:
                raise RequestError(f"column.{setting}={column}: {file} has {', '.join(names)}")


def _column(names: Sequence[str], asked: str, usual: Sequence[str]) -> str:
    by_lower = {name.lower(): name for name in reversed(names)}
    return asked or next((by_lower[name] for name in usual if name in by_lower), "")


def _dialect(asked: ColumnSettings, said: list[str]) -> Dialect:
    """How such a table is read; what there is to say of it is appended to `said`."""

    def read(content: Content) -> Records:
        columns = _Columns(content, asked)
        gather = Gather(content.file, adds_up=True)
        seen: set[tuple[object, ...]] = set()
        doubled = []
        for place, row in _rows(content):
            path = posixpath.normpath(composed(name_of(row.get(columns.video), content.file, place)))
            captions = texts_of(row.get(columns.caption), content.file, place) if columns.caption else ()
            label = _class_of(row.get(columns.label), content.file, place) if columns.label else ""
            part = str(row.get(columns.split) or "").strip().lower() if columns.split else "test"
            if part and part not in _SPLITS:
                raise DataError(f"{content.file}, {place}: the split {part!r}; expected {', '.join(SPLITS)} or nothing")
            split = _SPLITS[part] if part else ""
            first = gather.records.get(path)
            if first and (first.split != split or first.label != label):
                raise DataError(f"{content.file}, {place}: {path!r} has another split or class than in {first.place}")
            if (told := (path, captions, label)) in seen:
                doubled.append(place)
                continue
            seen.add(told)
            gather.add(Record(path, place, captions, label, split=split, path=path))
        if doubled:
            said.append(f"{content.file}: {len(doubled):,} rows stand there again and count once: {some(doubled)}")
        return gather.done()

    return Dialect("a table", "a table with a column of videos and one of captions or classes", _is_table, read)


def _class_of(value: Any, file: AnnotationFile, place: str) -> str:
    if value is None or not str(value).strip():
        raise DataError(f"{file}, {place}: a video without a class")
    return name_of(str(value) if isinstance(value, bool) else value, file, place)


def read(finder: Finder, _variant: str, needs: Collection[SplitName]) -> Benchmark:
    """The table, its splits, and queries as its captions have it: one a video, or every one."""
    said: list[str] = []
    dialect = _dialect(finder.settings.column, said)
    given: dict[SplitName, Table] = {}
    outside = 0
    for name in SPLITS:
        if getattr(finder.settings.files, name):
            role = Role(name, f"the table of the {name} split", (), (STAN, dialect))
            given[name] = finder.tables(role, needed=True)[0]
    if not given:
        role = Role("captions", "a table of videos with captions or classes", _NAMES, (STAN, dialect))
        table = finder.tables(role, needed=True)[0]
        given = {name: kept for name in SPLITS if (kept := _kept(table, name)).records}
        outside = len(table.records) - sum(len(kept.records) for kept in given.values())
    splits, labels, differences = _splits(finder, given)
    differences += tuple(said)
    if outside:
        differences += (f"{outside:,} videos of the table have no split, and are left out",)
    check_apart(splits)
    most = max((len(video.captions) for split in splits.values() for video in split.videos), default=0)
    title = finder.inventory.root.resolve().name
    if labels:
        return Benchmark("folder", "", Protocol(title, "recognition", "label"), splits, labels, differences)
    protocol = Protocol(title, "retrieval", "every" if most > 1 else "single")
    return Benchmark("folder", "", protocol, splits, differences=differences)


def _kept(table: Table, name: SplitName) -> Table:
    """The records of one split; those of no split (a blank cell) belong to none."""
    spoken = table.dialect is STAN
    records = {key: one for key, one in table.records.items() if (one.split or ("test" if spoken else "")) == name}
    return table._replace(records=records)


def _splits(
    finder: Finder, given: dict[SplitName, Table]
) -> tuple[dict[SplitName, Split], tuple[str, ...], tuple[str, ...]]:
    if any(one.label for table in given.values() for one in table.records.values()):
        named = finder.settings.files.labels
        role = Role("labels", "the names of the classes", (), LABELS)
        classes = classes_of(finder.tables(role, needed=True)[0] if named else None, given.values())
        made = {name: labelled_split(name, table, classes, (), {}) for name, table in given.items()}
        return made, classes.names, tuple(classes.differences)
    splits: dict[SplitName, Split] = {}
    for name, table in given.items():
        videos = tuple(Video(one.id, one.captions, path=one.path) for one in table.records.values())
        splits[name] = Split(name, videos, (), (str(table.file),))
    return splits, (), ()
