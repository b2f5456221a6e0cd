"""Tables that hold the pictures' bytes, as columns of binary or of Hugging Face's {bytes, path}: Parquet files, and the Arrow
files of a data set of `datasets` that was saved to disk."""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import IO, Any, ClassVar, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from stillreel.animate.sources.base import MAX_FILE_BYTES, Source
from stillreel.animate.sources.captions import (
    KEY_COLUMNS,
    check_caption_type,
    clean,
    find_caption_column,
    tell_caption_column,
    values_of,
)
from stillreel.animate.sources.img2dataset import finished
from stillreel.animate.sources.names import Names
from stillreel.configs import RequestError
from stillreel.configs.build import SourceSettings
from stillreel.configs.system.claims import damage_of
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.plan import Listed, PlannedSample

_PICTURE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "img", "picture")
ROW_ENDINGS = (".parquet", ".arrow")
_BATCH = 32  # rows of pictures in memory at once


class Rows(Protocol):
    """A table that is read in pieces."""

    schema: pa.Schema

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]: ...

    def values(self, column: str, wanted: Sequence[int]) -> Iterator[Any]:
        """A column's values in ascending rows; IndexError where there is no such row."""

    def null_rows(self, column: str, field: str) -> list[int]:
        """Rows in which a field of a column of structs is null."""


class ParquetRows(Rows):
    def __init__(self, file: IO[bytes]) -> None:
        self._file = pq.ParquetFile(file)
        self.schema = self._file.schema_arrow

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self._file.iter_batches(columns=list(columns), use_threads=False)

    def values(self, column: str, wanted: Sequence[int]) -> Iterator[Any]:
        """Reads the row groups that hold them, a few rows at a time."""
        start, left = 0, list(wanted)
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if left and left[0] < start + rows:
                batches = self._file.iter_batches(
                    batch_size=_BATCH, row_groups=[group], columns=[column], use_threads=False
                )
                yield from _picked(batches, column, start, left)
            start += rows
        if left:
            raise IndexError(f"no row {left[0]}: it has {start}")

    def null_rows(self, column: str, field: str) -> list[int]:
        """Reads only the row groups of which the footer does not say that all are null, or none."""
        start, found = 0, list[int]()
        for group in range(self._file.num_row_groups):
            about = self._file.metadata.row_group(group)
            leaves = (about.column(place) for place in range(about.num_columns))
            told = next(leaf.statistics for leaf in leaves if leaf.path_in_schema == f"{column}.{field}")
            nulls = told.null_count if told and told.has_null_count else -1
            if nulls == about.num_rows:
                found += range(start, start + nulls)
            elif nulls:
                batches = self._file.iter_batches(_BATCH, [group], [f"{column}.{field}"], use_threads=False)
                found += _nulls(batches, column, field, start)
            start += about.num_rows
        return found


class ArrowRows(Rows):
    """A stream of record batches, whose pages are read where they lie on a disk."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        self._source = pa.memory_map(path) if path else file
        self.schema = self._open().schema

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return (batch.select(list(columns)) for batch in self._open())

    def values(self, column: str, wanted: Sequence[int]) -> Iterator[Any]:
        left = list(wanted)
        yield from _picked(self._open(), column, 0, left)
        if left:
            raise IndexError(f"no row {left[0]}")

    def null_rows(self, column: str, field: str) -> list[int]:
        return _nulls(self._open(), column, field, 0)

    def _open(self) -> Any:
        self._source.seek(0)
        return pa.ipc.open_stream(self._source)


class ParquetSource(Source):
    """Every picture is a sample, with the captions of all its rows. Its key is that of a key column, else its file and row."""

    kind: ClassVar[str] = "parquet"

    @staticmethod
    def holds_pictures(folder: Folder, name: str, settings: SourceSettings) -> bool:
        """Whether a file has a column of pictures."""
        with folder.open(name) as file:
            return _picture_column(_open(folder, name, file).schema, settings) is not None

    def parts(self) -> list[tuple[str, int | str]]:
        return list(self.files().items())

    def files(self) -> dict[str, int]:
        return {name: size for name, size in self.sizes.items() if name.endswith(ROW_ENDINGS)}

    def listing(self) -> Iterator[Listed]:
        told: set[str] = set()  # by what columns, for a thousand files of a set are alike
        for name in finished(self.files(), self.sizes, self.left_out):
            with self.folder.open(name) as file, damage_of(f"{self.folder.url}/{name} is damaged"):
                yield from self._list_file(name, _open(self.folder, name, file), told)

    def pictures(self, samples: Sequence[PlannedSample]) -> Iterator[bytes | None]:
        for in_file, some in groupby(samples, key=lambda one: not one.source.endswith(ROW_ENDINGS)):
            if in_file:
                yield from self.read_files(list(some))
                continue
            for source, group in groupby(some, key=lambda one: one.source):
                yield from self._read_rows(self.relative(source), [one.offset for one in group])

    def _read_rows(self, name: str, wanted: list[int]) -> Iterator[bytes | None]:
        with self.folder.open(name) as file:
            rows = _open(self.folder, name, file)
            column = _picture_column(rows.schema, self.settings)
            assert column is not None
            for value in rows.values(column, wanted):
                data = value.get("bytes") if isinstance(value, dict) else value
                yield None if data is None else bytes(data[: MAX_FILE_BYTES + 1])

    def _list_file(self, name: str, rows: Rows, told: set[str]) -> Iterator[Listed]:
        where = f"{self.folder.url}/{name}"
        names = rows.schema.names
        picture = _picture_column(rows.schema, self.settings)
        if picture is None:
            raise RequestError(
                f"{where}: no column of pictures among {', '.join(names)}; name one with source.picture="
            )
        caption = find_caption_column(names, self.settings.caption, where)
        if not self.settings.caption and caption not in told:
            told.add(caption)
            tell_caption_column(names, caption, where)
        check_caption_type(rows.schema.field(caption).type, caption, where)
        key = self.settings.key or next((known for known in KEY_COLUMNS if known in names), "")
        if key and key not in names:
            raise RequestError(f"{where} has no column {key!r}; it has {', '.join(names)}")
        spoken = [words for batch in rows.batches([caption]) for words in values_of(batch[caption])]
        keys = _keys(rows, key, len(spoken), name)
        left_out = self._failed(rows)
        paths = _paths(rows, picture)
        first = _first_rows(rows, picture, keys if key else paths if all(paths) else ())
        together: dict[int, list[object]] = {}
        for row, words in enumerate(spoken):
            if row not in left_out:
                together.setdefault(first.get(row, row), []).append(words)
        elsewhere = self._elsewhere(name, rows, picture, paths)
        listed = [
            self.of_file(*elsewhere[row][:2], keys[row], captions, elsewhere[row][2] or problem)
            if row in elsewhere
            else Listed(f"{self.label}/{name}", keys[row], row, 1, captions, problem)
            for row, all_words in together.items()
            for captions, problem in [clean(all_words)]
        ]
        columns = sorted(self.filter.columns & set(names))
        table = pa.Table.from_batches(rows.batches(columns)) if columns else pa.table({})
        yield from self.filter.judge(listed, table.take(pa.array(list(together), pa.int64())) if columns else table)

    def _elsewhere(
        self, table: str, rows: Rows, picture: str, paths: Sequence[str | None]
    ) -> dict[int, tuple[str, int | None, str]]:
        """Rows that hold no bytes but name a file, as `datasets` writes them unless it is told to embed: its name, bytes, and
        what is wrong with it."""
        if not any(paths):
            return {}
        names = Names(self.folder, self.sizes, posixpath.dirname(table))
        found = {}
        for row in rows.null_rows(picture, "bytes"):
            if given := paths[row]:
                name, problem = names.find(given)
                found[row] = name, None if problem else names.size(name), problem
        return found

    def _failed(self, rows: Rows) -> set[int]:
        """Rows that img2dataset could not download, counted."""
        if not {"key", "status"} <= set(rows.schema.names):
            return set()
        states = [state for batch in rows.batches(["status"]) for state in batch["status"].to_pylist()]
        failed = {row for row, state in enumerate(states) if state != "success"}
        self.left_out.update(f"rows with status {states[row]}" for row in failed)
        return failed


def _open(folder: Folder, name: str, file: IO[bytes]) -> Rows:
    with damage_of(f"{folder.url}/{name} is no {name.rpartition('.')[2].capitalize()} file that can be read"):
        if name.endswith(".arrow"):
            return ArrowRows(file, folder.locate(name) if folder.is_local else "")
        return ParquetRows(file)


def _picked(batches: Iterator[pa.RecordBatch], column: str, start: int, left: list[int]) -> Iterator[Any]:
    """The values at rows that are `left`, which begin at `start` or later; those that were there are taken from it."""
    for batch in batches:
        while left and left[0] < start + len(batch):
            yield batch[column][left.pop(0) - start].as_py()
        start += len(batch)
        if not left:
            return


def _keys(rows: Rows, key: str, count: int, name: str) -> list[str]:
    if not key:
        return [f"{name}#{row}" for row in range(count)]
    values = [value for batch in rows.batches([key]) for value in values_of(batch[key])]
    return [str(one, "utf-8", "backslashreplace") if isinstance(one, bytes) else str(one) for one in values]


def _paths(rows: Rows, picture: str) -> list[str | None]:
    """What `datasets` keeps as the name of each picture; none where it keeps none."""
    kind = rows.schema.field(picture).type
    if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0:
        return []
    column = f"{picture}.path" if isinstance(rows, ParquetRows) else picture
    return [one for batch in rows.batches([column]) for one in batch[picture].field("path").to_pylist()]


def _nulls(batches: Iterator[pa.RecordBatch], column: str, field: str, start: int) -> list[int]:
    found: list[int] = []
    for batch in batches:
        found += [start + row for row, null in enumerate(batch[column].field(field).is_null().to_pylist()) if null]
        start += len(batch)
    return found


def _first_rows(rows: Rows, picture: str, keys: Sequence[str | None]) -> dict[int, int]:
    """Rows that show the picture of an earlier row of the same key, byte for byte, and that row: one a caption, as a rule."""
    if len(set(keys)) == len(keys):
        return {}
    counts = Counter(keys)
    repeated = [row for row, key in enumerate(keys) if counts[key] > 1]
    seen: dict[tuple[str | None, bytes], int] = {}
    first: dict[int, int] = {}
    for row, value in zip(repeated, rows.values(picture, repeated), strict=True):
        data = value.get("bytes") if isinstance(value, dict) else value
        digest = hashlib.sha256(data or b"").digest()
        first[row] = seen.setdefault((keys[row], digest), row)
    return first


def _picture_column(schema: pa.Schema, settings: SourceSettings) -> str | None:
    if settings.picture:
        return settings.picture if settings.picture in schema.names else None
    for name in _PICTURE_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return name
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return name
    return None
