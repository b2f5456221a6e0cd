"""Parquet files that hold the pictures' bytes, as columns of binary or of Hugging Face's {bytes, path}."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from stillreel.animate.sources.base import MAX_FILE_BYTES, Source
from stillreel.animate.sources.captions import CAPTION_COLUMNS, clean, find_column, values_of
from stillreel.configs import RequestError
from stillreel.configs.build import SourceSettings
from stillreel.configs.system.claims import damage_of
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.plan import Listed, PlannedSample

_PICTURE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "img", "picture")
_KEY_COLUMNS = ("key", "id", "image_id", "__key__", "uid")
_BATCH = 32  # rows of pictures in memory at once


class ParquetSource(Source):
    """Every row is a sample. Its own key is that of a key column, else its file and row."""

    kind: ClassVar[str] = "parquet"

    def __init__(self, folder: Folder, settings: SourceSettings, only: str = "") -> None:
        super().__init__(folder, settings)
        self._only = only

    @staticmethod
    def holds_pictures(folder: Folder, name: str, settings: SourceSettings) -> bool:
        """Whether a Parquet file has a column of pictures."""
        with folder.open(name) as file:
            return _picture_column(_open(file, f"{folder.url}/{name}").schema_arrow, settings) is not None

    def parts(self) -> list[tuple[str, int | str]]:
        return list(self._sizes().items())

    def listing(self) -> Iterator[Listed]:
        for name in self._sizes():
            with self.folder.open(name) as file:
                yield from self._list_file(name, _open(file, f"{self.folder.url}/{name}"))

    def read(self, samples: Sequence[PlannedSample]) -> Iterator[bytes | None]:
        for source, group in groupby(samples, key=lambda one: one.source):
            wanted = [one.offset for one in group]
            with self.folder.open(self.relative(source)) as file:
                yield from self._read_rows(_open(file, source), wanted)

    def _sizes(self) -> dict[str, int]:
        sizes = self.folder.sizes(deep=True)
        return {
            name: size
            for name, size in sizes.items()
            if name.endswith(".parquet") and (not self._only or name == self._only)
        }

    def _list_file(self, name: str, file: pq.ParquetFile) -> Iterator[Listed]:
        where = f"{self.folder.url}/{name}"
        names = file.schema_arrow.names
        if _picture_column(file.schema_arrow, self.settings) is None:
            raise RequestError(
                f"{where}: no column of pictures among {', '.join(names)}; name one with source.picture="
            )
        caption = find_column(names, self.settings.caption, CAPTION_COLUMNS, "caption", where)
        key = self.settings.key or next((known for known in _KEY_COLUMNS if known in names), "")
        if key and key not in names:
            raise RequestError(f"{where} has no column {key!r}; it has {', '.join(names)}")
        row = 0
        with damage_of(f"{where} is damaged"):
            for batch in file.iter_batches(columns=[caption, *([key] if key else [])]):
                keys = (
                    [str(one, "utf-8", "backslashreplace") if isinstance(one, bytes) else str(one) for one in values]
                    if (values := values_of(batch[key]) if key else None)
                    else [f"{name}#{row + at}" for at in range(len(batch))]
                )
                for own, spoken in zip(keys, values_of(batch[caption]), strict=True):
                    captions, problem = clean(spoken if isinstance(spoken, list) else [spoken])
                    yield Listed(f"{self.label}/{name}", own, row, 1, captions, problem)
                    row += 1

    def _read_rows(self, file: pq.ParquetFile, wanted: Sequence[int]) -> Iterator[bytes | None]:
        """Pictures of ascending rows; reads the row groups that hold them, a few rows at a time."""
        column = _picture_column(file.schema_arrow, self.settings)
        assert column is not None
        start, left = 0, list(wanted)
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if left and left[0] < start + rows:
                at = start
                with damage_of(f"row group {group} is damaged"):
                    for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group], columns=[column]):
                        while left and left[0] < at + len(batch):
                            yield _picture_bytes(batch[column][left.pop(0) - at].as_py())
                        at += len(batch)
            start += rows
        yield from (None for _ in left)


def _open(file: Any, where: str) -> pq.ParquetFile:
    with damage_of(f"{where} is no Parquet file that can be read"):
        return pq.ParquetFile(file)


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


def _picture_bytes(value: Any) -> bytes | None:
    data = value.get("bytes") if isinstance(value, dict) else value
    return None if data is None else bytes(data[: MAX_FILE_BYTES + 1])
