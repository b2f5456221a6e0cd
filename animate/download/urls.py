"""Tables of URLs and captions as they are published, made into the Parquet table that img2dataset reads without stumbling.

CC3M is TSV without a header, caption first; CC12M the same, URL first. Their fields quote nothing, and captions that begin
with a quote make img2dataset's reader fail on the whole file: hence the conversion.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stillreel.animate.sources.captions import CAPTION_COLUMNS, clean, find_column
from stillreel.animate.sources.tables import TABLE_ENDINGS, Table, open_table
from stillreel.configs import DataError, RequestError
from stillreel.configs.build import DownloadSettings
from stillreel.configs.system.storage import Folder

SCHEMA = pa.schema([pa.field("row", pa.int64()), pa.field("url", pa.string()), pa.field("caption", pa.string())])
URL_COLUMNS = ("url", "image_url", "img_url", "link", "src")
_SCHEMES = ("http://", "https://")
_BATCH = 50_000


class Converted(NamedTuple):
    """A converted table: its rows, and what was left out of it."""

    rows: int
    left_out: Counter[str]


def convert_table(source: Folder, names: Sequence[str], target: Path, settings: DownloadSettings) -> Converted:
    """Write the rows of tables of URLs, one after another, to a Parquet file; `row` is their number, from 0.

    Reads what `open_table` does, with or without a header, `.gz` too. RequestError when the columns cannot be told, DataError
    when no row is left.
    """
    left_out: Counter[str] = Counter()
    written = 0
    with pq.ParquetWriter(target, SCHEMA, compression="zstd") as writer:
        rows: list[tuple[int, str, str]] = []
        for number, (url, caption) in enumerate(_pairs(source, names, settings)):
            spoken, _ = clean([caption])
            if not url.startswith(_SCHEMES):
                left_out["rows without a http(s) URL"] += 1
            elif not spoken:
                left_out["rows without a caption"] += 1
            else:
                rows.append((number, url, spoken[0]))
            if len(rows) == _BATCH:
                written += _write(writer, rows)
        written += _write(writer, rows)
    if not written:
        raise DataError(f"{source.url}: {', '.join(names)}: no row has a URL and a caption ({dict(left_out)})")
    return Converted(written, left_out)


def _write(writer: pq.ParquetWriter, rows: list[tuple[int, str, str]]) -> int:
    count = len(rows)
    if count:
        columns = zip(*rows, strict=True)
        writer.write_table(
            pa.table(
                [pa.array(list(column), kind.type) for column, kind in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
            )
        )
        rows.clear()
    return count


def _pairs(source: Folder, names: Sequence[str], settings: DownloadSettings) -> Iterator[tuple[str, object]]:
    """(URL, caption) of every row."""
    for name in names:
        where, plain_name = f"TABLE {source.url}/{name}", name.removesuffix(".gz")
        if not plain_name.endswith((*TABLE_ENDINGS, ".txt")):
            raise RequestError(f"{where}: expected .tsv, .csv, .jsonl or .parquet (or one of the first three with .gz)")
        with source.open(name) as file:
            plain: Any = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
            table = open_table(plain, plain_name, where, (*URL_COLUMNS, *CAPTION_COLUMNS), _is_url)
            yield from _pairs_of(table, settings, where)


def _pairs_of(table: Table, settings: DownloadSettings, where: str) -> Iterator[tuple[str, object]]:
    rows = table.rows
    if table.columns:
        url = table.columns.index(find_column(table.columns, settings.url, URL_COLUMNS, "url", where))
        caption = table.columns.index(find_column(table.columns, settings.caption, CAPTION_COLUMNS, "caption", where))
    elif (first := next(rows, None)) is not None:
        addresses = [place for place, field in enumerate(first) if _is_url(str(field))]
        if len(first) != 2 or len(addresses) != 1:
            raise RequestError(
                f"{where} has no header, and its first row has {len(first)} fields of which {len(addresses)} are URLs; "
                "expected two columns, a URL and a caption, or a header that names them"
            )
        url, caption, rows = addresses[0], 1 - addresses[0], chain([first], rows)
    for row in rows:
        yield (_text(row[url]), _text(row[caption])) if len(row) > max(url, caption) else ("", "")


def _is_url(field: str) -> bool:
    return field.startswith(_SCHEMES)


def _text(value: Any) -> Any:
    """Text that is not UTF-8 with its letters replaced: the row is worth more than the letter."""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
