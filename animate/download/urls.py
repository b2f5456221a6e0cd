"""Tables of URLs and captions as they are published, made into the Parquet table that img2dataset reads without stumbling.

CC3M is TSV without a header, caption first; CC12M the same, URL first. Their fields quote nothing, and captions that begin
with a quote make img2dataset's reader fail on the whole file: hence the conversion.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stillreel.animate.sources.captions import CAPTION_COLUMNS, find_column, values_of
from stillreel.configs import DataError, RequestError
from stillreel.configs.build import DownloadSettings
from stillreel.configs.system.claims import damage_of, parse_json
from stillreel.configs.system.storage import Folder

SCHEMA = pa.schema([pa.field("row", pa.int64()), pa.field("url", pa.string()), pa.field("caption", pa.string())])
URL_COLUMNS = ("url", "image_url", "img_url", "link", "src")
_BATCH = 50_000

csv.field_size_limit(1 << 24)


class Table(NamedTuple):
    """A converted table: its rows, and what was left out of it."""

    rows: int
    left_out: Counter[str]


def convert_table(source: Folder, name: str, target: Path, settings: DownloadSettings) -> Table:
    """Write the rows of a table of URLs to a Parquet file; `row` is their number in the original, from 0.

    Reads TSV and CSV (with or without a header), JSON Lines and Parquet, `.gz` too. RequestError when the columns cannot
    be told, DataError when no row is left.
    """
    where = f"{source.url}/{name}"
    left_out: Counter[str] = Counter()
    written = 0
    with source.open(name) as file, pq.ParquetWriter(target, SCHEMA, compression="zstd") as writer:
        plain: Any = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
        rows: list[tuple[int, str, str]] = []
        for number, (url, caption) in enumerate(_pairs(plain, name.removesuffix(".gz"), settings, where)):
            if not url.startswith(("http://", "https://")):
                left_out["rows without a http(s) URL"] += 1
                continue
            if not caption.strip():
                left_out["rows without a caption"] += 1
                continue
            rows.append((number, url, caption.strip()))
            if len(rows) == _BATCH:
                written += _write(writer, rows)
        written += _write(writer, rows)
    if not written:
        raise DataError(f"{where}: no row has a URL and a caption ({dict(left_out)})")
    return Table(written, left_out)


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


def _pairs(file: IO[bytes], name: str, settings: DownloadSettings, where: str) -> Iterator[tuple[str, str]]:
    if name.endswith(".parquet"):
        return _parquet_pairs(file, settings, where)
    # What is not UTF-8 is replaced: the row is worth more than the letter.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
    if name.endswith((".jsonl", ".ndjson")):
        return _json_pairs(text, settings, where)
    if name.endswith((".tsv", ".txt")):
        return _row_pairs(csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE), settings, where)
    if name.endswith(".csv"):
        return _row_pairs(csv.reader(text), settings, where)
    raise RequestError(f"TABLE {where}: expected .tsv, .csv, .jsonl or .parquet (or one of the first three with .gz)")


def _row_pairs(rows: Iterator[list[str]], settings: DownloadSettings, where: str) -> Iterator[tuple[str, str]]:
    first = next(rows, None)
    if first is None:
        return
    url, caption, has_header = _find_columns(first, settings, where)
    for row in rows if has_header else chain([first], rows):
        yield (row[url], row[caption]) if len(row) > max(url, caption) else ("", "")


def _find_columns(first: Sequence[str], settings: DownloadSettings, where: str) -> tuple[int, int, bool]:
    """Positions of URL and caption, and whether the first row is a header. Without one, the URL shows itself."""
    addresses = [index for index, field in enumerate(first) if field.startswith(("http://", "https://"))]
    if not addresses:
        url = find_column(first, settings.url, URL_COLUMNS, "url", where)
        caption = find_column(first, settings.caption, CAPTION_COLUMNS, "caption", where)
        return list(first).index(url), list(first).index(caption), True
    if len(first) != 2 or len(addresses) != 1:
        raise RequestError(
            f"TABLE {where} has no header, and its first row has {len(first)} fields of which {len(addresses)} are URLs; "
            "expected two columns, a URL and a caption, or a header that names them"
        )
    return addresses[0], 1 - addresses[0], False


def _json_pairs(lines: Iterator[str], settings: DownloadSettings, where: str) -> Iterator[tuple[str, str]]:
    url = caption = ""
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise RequestError(f"TABLE {where}, line {number}: expected a JSON object: {error}") from None
        if not isinstance(row, dict):
            raise RequestError(f"TABLE {where}, line {number}: expected a JSON object, found {type(row).__name__}")
        if not url:
            url = find_column(list(row), settings.url, URL_COLUMNS, "url", where)
            caption = find_column(list(row), settings.caption, CAPTION_COLUMNS, "caption", where)
        yield str(row.get(url) or ""), str(row.get(caption) or "")


def _parquet_pairs(file: IO[bytes], settings: DownloadSettings, where: str) -> Iterator[tuple[str, str]]:
    with damage_of(f"TABLE {where} is no Parquet file that can be read"):
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
        url = find_column(names, settings.url, URL_COLUMNS, "url", where)
        caption = find_column(names, settings.caption, CAPTION_COLUMNS, "caption", where)
        for batch in table.iter_batches(columns=[url, caption]):
            for address, spoken in zip(values_of(batch[url]), values_of(batch[caption]), strict=True):
                yield _text(address), _text(spoken)


def _text(value: object) -> str:
    return str(value, "utf-8", "replace") if isinstance(value, bytes) else str(value or "")
