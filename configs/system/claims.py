"""What a file claims, before it is believed: its JSON, its records, the names in it, and whatever else a parser makes of it.

A reader of foreign bytes has one boundary, here: what its parser raises becomes a named damage of that file, and what storage
raises (a disk, a network, a permission) stays what it is.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import pydantic

from stillreel.configs.errors import DataError, StillreelError
from stillreel.configs.system.storage import Folder
from stillreel.configs.system.trouble import is_of_storage

Record = TypeVar("Record")

# Of dataclasses that are read from files: nothing is converted, nothing is passed over.
STRICT = pydantic.ConfigDict(strict=True, extra="forbid")
Count = Annotated[int, pydantic.Field(ge=0, le=1 << 62)]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class Damaged(DataError, ValueError):
    """Bytes that cannot be believed: of which file or member, and why."""


@contextmanager
def damage_of(where: str) -> Iterator[None]:
    """Within it, whatever is raised by reading bytes that are already here, or by pyarrow, becomes Damaged, and names `where`.

    Errors of storage pass: those that the system numbers, and those of packages that know buckets.
    """
    try:
        yield
    except StillreelError:
        raise
    except Exception as error:
        if is_of_storage(error) or type(error) is MemoryError:  # pyarrow's own is of what a file claims
            raise
        raise Damaged(f"{where}: {_said(error)}") from None


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text; ValueError for what is none, however deep it is nested."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None


def read_parquet(data: bytes) -> Any:
    """The pyarrow.Table of a small Parquet file, read on this thread: Arrow's own may outlive the interpreter, and abort it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


def read_record(kind: pydantic.TypeAdapter[Record], value: Any) -> Record:
    """A parsed JSON value as a record of this kind. ValueError names the first field that is not as it must be."""
    try:
        return kind.validate_json(json.dumps(value))  # strict, it takes an object for a record in JSON alone
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path or 'it'}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None


def checked_name(name: object, folder: Folder, *forms: str) -> str:
    """A name that was read from a file, by which stillreel calls files of its own: the one place where such names are judged.

    ValueError unless it is of the letters of keys, digits, `_`, `-` and `.`, and unless what `forms` make of it ("shards/{}.tar";
    none: the name itself) lie in `folder` after links are followed.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{shortened(name)} is no name of a file in {folder.url}; expected letters, digits, _, - and ."
        )
    if folder.is_local:
        home = os.path.realpath(folder.path)
        for form in forms or ("{}",):
            path = folder.locate(form.format(name))
            if os.path.commonpath([home, os.path.realpath(path)]) != home:
                raise ValueError(
                    f"{path} lies outside of {folder.url}: a link leads there. Put the file itself in its place"
                )
    return name


def checked_path(path: object) -> str:
    """The same of a file that is the user's own, below a folder of theirs: any letters, but no part that leads out of it."""
    parts = path.split("/") if isinstance(path, str) else [""]
    if {"", ".", ".."} & set(parts) or "\0" in str(path):
        raise ValueError(f"{shortened(path)} is no path within its folder")
    return str(path)


def shortened(value: object) -> str:
    """Something from a file as it stands in a sentence."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]} ... ({len(text):,} characters)"


def _said(error: Exception) -> str:
    """The first line of what a parser says."""
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    text = f"lacks {text}" if isinstance(error, KeyError) else text
    return text if len(text) <= 400 else f"{text[:400]} ..."
