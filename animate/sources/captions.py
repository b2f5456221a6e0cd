"""What a caption is, and which columns and fields hold captions, whoever wrote them."""

from __future__ import annotations

import ast
import logging
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from stillreel.configs import RequestError
from stillreel.configs.system.claims import parse_json

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
KEY_COLUMNS = ("key", "id", "image_id", "__key__", "uid")
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "description")

LONGEST = 1 << 20  # bytes of a text that holds captions

_log = logging.getLogger(__name__)
_NOTHING = {"", "nan", "none", "null", "<na>"}  # as pandas and Python write what is not there
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LIST = re.compile(rf"\s*\[\s*(?:{_QUOTED}(?:[\s,]+{_QUOTED})*[\s,]*)?\]\s*", re.DOTALL)


def clean(spoken: Iterable[object]) -> tuple[tuple[str, ...], str | None]:
    """Captions as text without outer blanks, blank ones dropped; and a problem (`reason: detail`) when none is left.

    Lists of texts are several captions, also where they were written as Python writes them; numbers, objects and what stands
    for nothing are none.
    """
    captions: list[str] = []
    other = ""
    for value in spoken:
        if isinstance(value, (list, tuple)):
            inner, problem = clean(value)
            if problem and not problem.startswith("no_caption"):
                return (), problem
            captions += inner
            continue
        if value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        if not isinstance(value, (str, bytes)):
            other = f"{type(value).__name__} {str(value)[:40]!r} is no text"
            continue
        try:
            text = value.decode("utf-8") if isinstance(value, bytes) else value
            text.encode("utf-8")
        except UnicodeError as error:
            place = "byte" if isinstance(value, bytes) else "character"
            return (), f"bad_caption: not UTF-8 at {place} {getattr(error, 'start', 0)}"
        captions += [text for text in map(_plain, _listed(text)) if text.lower() not in _NOTHING]
    return tuple(captions), None if captions else f"no_caption: {other or 'only blanks'}"


def _plain(text: str) -> str:
    return text.strip().removeprefix("\ufeff").replace("\0", "")


def _listed(text: str) -> list[str]:
    """The captions of a list that was written as text, as pandas and numpy do: "['a dog', 'a hound']"; else the text."""
    if "[" not in text[:8] or not _LIST.fullmatch(text):
        return [text]
    try:
        return [str(ast.literal_eval(one)) for one in re.findall(_QUOTED, text, re.DOTALL)]
    except (SyntaxError, ValueError):
        return [text]


def fields_of(js: bytes | None) -> dict[str, object]:
    """The fields of a sample's JSON; none where it is no object, or cannot be read."""
    try:
        value = parse_json(js) if js else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def captions_of(
    txt: bytes | None, js: bytes | None, field: str = "", member: bytes | None = None
) -> tuple[tuple[str, ...], str | None]:
    """Captions of a sample's text members, and what is wrong with them (`reason: detail`) if nothing can be used.

    `captions` (a list) of the JSON is preferred, as it holds them all; then the text; then `caption` or `text` of the JSON.
    `field`, where it is asked for, is the one that counts: of the JSON, or the ending of a `member`.
    """
    fields = fields_of(js)
    if field:
        if field not in fields and member is None:
            return (), _broken(js) or f"no_caption: it has no {field}"
        return clean([fields.get(field, member)])
    for name in ("captions", None, "caption", "text"):
        spoken: object = txt if name is None else fields.get(name)
        if spoken:
            return clean([spoken])
    return (), _broken(js) or "no_caption: neither .txt nor .json has one"


def _broken(js: bytes | None) -> str:
    """The problem of a JSON that cannot be read; empty where there is none."""
    try:
        parse_json(js if js is not None else "0")
    except ValueError:
        return "bad_caption: its JSON cannot be read"
    return ""


def too_long(name: str, size: int) -> str:
    """The problem of a text of so many bytes."""
    return f"caption_too_long: {name} has {size:,} bytes; {LONGEST:,} are read at most"


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
        f"{where}: no column named {', '.join(usual)}; it has {', '.join(names) or 'none'}. Name one with {setting}="
    )


def find_caption_column(names: Sequence[str], asked: str, where: str) -> str:
    """`find_column` of the captions."""
    return find_column(names, asked, CAPTION_COLUMNS, "source.caption", where)


def tell_caption_column(names: Sequence[str], taken: str, where: str) -> None:
    """Say which column captions are taken from without being asked, where others could be meant, too."""
    others = [name for name in names if name != taken and re.search("caption", name, re.IGNORECASE)]
    if others:
        _log.warning(f"{where}: captions are taken from {taken!r}; source.caption= names another: {', '.join(others)}")


def check_caption_type(kind: pa.DataType, column: str, where: str) -> None:
    """RequestError when a column of an Arrow table holds neither texts nor lists of texts."""
    inner = kind.value_type if _is_list(kind) or pa.types.is_dictionary(kind) else kind
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    bytes_ = (pa.types.is_binary, pa.types.is_large_binary)
    if not any(is_kind(inner) for is_kind in (*texts, *bytes_)):
        raise RequestError(
            f"{where}: column {column!r} is {kind}; expected text, or lists of text. Name another with source.caption=, "
            "or write its text into a column of its own"
        )


def values_of(column: pa.Array) -> list[Any]:
    """The values of a column, text as bytes: nobody promises that they are UTF-8, and one that is not spoils no other."""
    kind, listed = column.type, pa.types.is_list(column.type)
    text = kind.value_type if listed else kind
    if pa.types.is_string(text) or pa.types.is_large_string(text):
        raw = pa.large_binary() if pa.types.is_large_string(text) else pa.binary()
        column = column.cast(pa.list_(raw) if listed else raw)
    return list(column.to_pylist())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
