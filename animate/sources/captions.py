"""Tables of captions: TSV, CSV, Parquet, JSON Lines, and COCO's `captions_*.json`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stillreel.configs import RequestError
from stillreel.configs.build import SourceSettings
from stillreel.configs.system.claims import damage_of, parse_json
from stillreel.configs.system.storage import Folder

PICTURE_COLUMNS = (
    "file",
    "file_name",
    "filename",
    "image",
    "image_path",
    "path",
    "filepath",
    "img",
    "picture",
    "url_or_file",
)
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "description")

csv.field_size_limit(1 << 24)

Pair = tuple[str, object]


def read_captions(folder: Folder, name: str, settings: SourceSettings) -> dict[str, list[object]]:
    """Picture -> its captions as they stand in a table, both in the table's order. RequestError when it is no such table."""
    data = folder.read(name)
    where = f"{folder.url}/{name}"
    with damage_of(where):
        if name.endswith(".json"):
            pairs = _coco(data, where)
        elif name.endswith((".jsonl", ".ndjson")):
            pairs = _rows(_json_lines(data, where), settings, where)
        elif name.endswith(".parquet"):
            pairs = _parquet(data, settings, where)
        else:
            pairs = _rows(_separated(data, "\t" if name.endswith(".tsv") else ","), settings, where)
        captions: dict[str, list[object]] = {}
        for picture, spoken in pairs:
            captions.setdefault(picture, []).extend(spoken if isinstance(spoken, list) else [spoken])
        return captions


def clean(spoken: Iterable[object]) -> tuple[tuple[str, ...], str | None]:
    """Captions as text without outer blanks, blank ones dropped; and a problem (`reason: detail`) when none is left."""
    captions = []
    for caption in spoken:
        if isinstance(caption, bytes):
            try:
                caption = caption.decode("utf-8")
            except UnicodeDecodeError as error:
                return (), f"bad_caption: not UTF-8 at byte {error.start}"
        text = "" if caption is None else str(caption).strip().removeprefix("\ufeff").replace("\0", "")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return (), f"bad_caption: not UTF-8 at character {error.start}"
        if text:
            captions.append(text)
    return tuple(captions), None if captions else "no_caption: only blanks"


def find_column(names: Sequence[str], asked: str, usual: Sequence[str], setting: str, where: str) -> str:
    """The column of a table that is asked for, or the first that has one of the usual names. RequestError when neither."""
    if asked:
        if asked in names:
            return asked
        raise RequestError(f"{where} has no column {asked!r}; it has {', '.join(names)}")
    by_lower = {name.lower(): name for name in reversed(names)}
    for name in usual:
        if name.lower() in by_lower:
            return by_lower[name.lower()]
    raise RequestError(
        f"{where}: no column named {', '.join(usual)}; it has {', '.join(names) or 'none'}. Name one with source.{setting}="
    )


def _rows(rows: Iterator[dict[str, object]], settings: SourceSettings, where: str) -> Iterator[Pair]:
    first = next(rows, None)
    if first is None:
        return
    names = [name for name in first if name]  # DictReader puts surplus fields under None
    picture = find_column(names, settings.picture, PICTURE_COLUMNS, "picture", where)
    caption = find_column(names, settings.caption, CAPTION_COLUMNS, "caption", where)
    yield str(first[picture]), first[caption]
    for row in rows:
        yield str(row.get(picture) or ""), row.get(caption)


def _separated(data: bytes, separator: str) -> Iterator[dict[str, object]]:
    """Rows of TSV, which quotes nothing, or of CSV, which does. Bytes that are not UTF-8 survive as surrogates."""
    text = io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline="")
    quoting: Any = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    yield from csv.DictReader(text, delimiter=separator, quoting=quoting)


def _json_lines(data: bytes, where: str) -> Iterator[dict[str, object]]:
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            try:
                row = parse_json(line)
            except ValueError as error:
                raise RequestError(f"{where}, line {number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise RequestError(f"{where}, line {number}: expected an object, found {type(row).__name__}")
            yield row


def _parquet(data: bytes, settings: SourceSettings, where: str) -> Iterator[Pair]:
    table = pq.ParquetFile(pa.BufferReader(data))
    names = table.schema_arrow.names
    picture = find_column(names, settings.picture, PICTURE_COLUMNS, "picture", where)
    caption = find_column(names, settings.caption, CAPTION_COLUMNS, "caption", where)
    for batch in table.iter_batches(columns=[picture, caption]):
        for name, spoken in zip(values_of(batch[picture]), values_of(batch[caption]), strict=True):
            yield name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name), spoken


def values_of(column: pa.Array) -> list[Any]:
    """The values of a column, text as bytes: nobody promises that they are UTF-8, and one that is not spoils no other."""
    kind, listed = column.type, pa.types.is_list(column.type)
    text = kind.value_type if listed else kind
    if pa.types.is_string(text) or pa.types.is_large_string(text):
        raw = pa.large_binary() if pa.types.is_large_string(text) else pa.binary()
        column = column.cast(pa.list_(raw) if listed else raw)
    return list(column.to_pylist())


def _coco(data: bytes, where: str) -> Iterator[Pair]:
    try:
        value = parse_json(data)
        files = {image["id"]: str(image["file_name"]) for image in value["images"]}
        spoken: dict[object, list[object]] = {image: [] for image in files}
        for annotation in value["annotations"]:
            spoken[annotation["image_id"]].append(annotation["caption"])
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{where}: expected COCO captions (images with id and file_name, annotations with image_id and caption); "
            f"{error!r}"
        ) from None
    for image, captions in spoken.items():
        yield files[image], list(captions)
