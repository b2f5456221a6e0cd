"""Tables as they lie around: separated text of any separator and encoding, JSON, JSON Lines and Parquet, as named columns."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stillreel.animate.sources.captions import values_of
from stillreel.configs import RequestError
from stillreel.configs.system.claims import damage_of, parse_json

JSON_LINES = (".jsonl", ".ndjson")
TABLE_ENDINGS = (".tsv", ".csv", ".parquet", *JSON_LINES, ".json")

_log = logging.getLogger(__name__)
_HEAD = 1 << 20  # bytes that tell encoding and separator
_SEPARATORS = "\t,;|"
_LOOKED_AT = 20  # lines

csv.field_size_limit(1 << 24)


class Table(NamedTuple):
    """Rows in the order of `columns`. One without a header has none; `schema` is an Arrow table's, whose texts are bytes."""

    columns: tuple[str, ...]
    rows: Iterator[Sequence[object]]
    schema: pa.Schema | None = None


def open_table(file: IO[bytes], name: str, where: str, known: Sequence[str], is_value: Callable[[str], bool]) -> Table:
    """A table by the ending of its name. A first row that has no `known` column and a field that `is_value` is no header.

    RequestError when it cannot be read as what its name says. Bytes that are not UTF-8 survive as surrogates.
    """
    if name.endswith(".parquet"):
        return _of_parquet(file, where)
    if name.endswith((*JSON_LINES, ".json")):
        return _of_objects(
            _json_lines(file, where) if name.endswith(JSON_LINES) else json_rows(read_json(file, where), where)
        )
    head = file.read(_HEAD)
    file.seek(0)
    encoding = _encoding(head, where)
    # Of UTF-16 no bad byte can be kept apart.
    errors = "replace" if encoding.startswith("utf-16") else "surrogateescape"
    text = io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="")
    separator = _separator(head.decode(encoding, "replace"), name, known)
    # Tabs part what is not quoted (CC3M's captions hold stray quotes); the others need quotes.
    quoting: Any = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    rows = _sound((row for row in csv.reader(text, delimiter=separator, quoting=quoting) if row), where)
    first = next(rows, None)
    if first is None:
        return Table((), iter(()))
    if not {field.strip().lower() for field in first} & {*known} and any(map(is_value, first)):
        return Table((), chain([first], rows))
    columns = tuple(field.strip() for field in first)
    return Table(columns, ([*row, *[None] * (len(columns) - len(row))] for row in rows))


def _sound(rows: Iterator[list[str]], where: str) -> Iterator[list[str]]:
    """The rows; Damaged where they cannot be told apart."""
    with damage_of(f"{where} cannot be read"):
        yield from rows


def read_json(file: IO[bytes], where: str) -> Any:
    """The value of a JSON file. RequestError when it is none."""
    try:
        return parse_json(file.read())
    except ValueError as error:
        raise RequestError(f"{where} is no JSON: {error}") from None


def json_rows(value: Any, where: str) -> Iterator[dict[str, Any]]:
    """The objects of a list of them. RequestError when it is anything else, or conversations."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise RequestError(f"{where}: expected a list of objects, or COCO's captions; found {type(value).__name__}")
    if value and "conversations" in value[0]:
        raise RequestError(
            f"{where} holds conversations (LLaVA, ShareGPT), not captions. Write those that describe a picture as JSON lines of "
            "its file and caption, and give these: jq -c '.[] | {file: .image, caption: .conversations[1].value}' "
            f"{where.rpartition('/')[2]} > captions.jsonl"
        )
    return iter(value)


def _of_objects(rows: Iterator[dict[str, Any]]) -> Table:
    first = next(rows, None)
    if first is None:
        return Table((), iter(()))
    columns = tuple(first)
    return Table(columns, ([row.get(name) for name in columns] for row in chain([first], rows)))


def _json_lines(file: IO[bytes], where: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                row = parse_json(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except ValueError as error:
                raise RequestError(f"{where}, line {number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise RequestError(f"{where}, line {number}: expected an object, found {type(row).__name__}")
            yield from json_rows([row], where)


def _of_parquet(file: IO[bytes], where: str) -> Table:
    with damage_of(f"{where} is no Parquet file that can be read"):
        table = pq.ParquetFile(file)
    schema = table.schema_arrow
    names = schema.names

    def rows() -> Iterator[Sequence[object]]:
        with damage_of(f"{where} is damaged"):
            for batch in table.iter_batches(columns=names, use_threads=False):
                yield from zip(*(values_of(batch[name]) for name in names), strict=True)

    return Table(tuple(names), rows(), schema)


def _encoding(head: bytes, where: str) -> str:
    """UTF-8 with or without a mark; UTF-16 by its mark or zeros; Windows' Latin-1 where nothing else can be, which is said."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        found = "utf-16"
    elif head[1:200:2].count(0) > 50 or head[:200:2].count(0) > 50:
        found = "utf-16-le" if head[1:200:2].count(0) > head[:200:2].count(0) else "utf-16-be"
    else:
        # A few bad bytes among good UTF-8 are damage of a few rows.
        text = head.decode("utf-8", "surrogateescape")
        bad, good = len(re.findall("[\udc80-\udcff]", text)), len(re.findall("[\x80-\ud7ff\ue000-\U0010ffff]", text))
        if bad <= good or (len(head) == _HEAD and bad < 4):
            return "utf-8-sig"
        found = "cp1252" if not re.search(b"[\x81\x8d\x8f\x90\x9d]", head) else "latin-1"
    _log.warning(f"{where} is not UTF-8: read as {'Latin-1 (Windows-1252)' if found == 'cp1252' else found}")
    return found


def _separator(head: str, name: str, known: Sequence[str]) -> str:
    """What parts the fields, by look: what gives the header a known name, or the first lines equally many fields."""
    lines = [line for line in head.splitlines()[:_LOOKED_AT] if line.strip()]
    own = "\t" if name.endswith((".tsv", ".txt")) else ","

    def judged(separator: str) -> tuple[int, bool, bool, int]:
        rows = list(csv.reader(lines, delimiter=separator)) or [[]]
        hits = len({field.strip().lower() for field in rows[0]} & {*known}) if len(rows[0]) > 1 else 0
        even = len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows)
        return hits, even, separator == own and len(rows[0]) > 1, len(rows[0])

    candidates: list[str] = [own, *_SEPARATORS.replace(own, "")]
    return max(candidates, key=judged)
