"""A user's folder, walked once, and annotation files read from it: text, JSON, CSV, pickles, alone or in a zip.

Whatever is wrong with a file is a DataError that says which file, which line, what was expected.
"""

from __future__ import annotations

import csv
import io
import json
import os
import posixpath
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from stillreel.configs import DataError, RequestError
from stillreel.configs.system.claims import damage_of, read_parquet
from stillreel.finetune.benchmarks.pickles import read_plain
from stillreel.shards.format.containers import VIDEO_ENDINGS

ANNOTATION_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".pkl", ".pickle", ".parquet")
_SHOWN = 6  # endings that are named
_MOST_BYTES = 1 << 30  # of an annotation file; the largest in use has 60 MB

csv.field_size_limit(1 << 24)


class AnnotationFile(NamedTuple):
    """A file, or a member of a zip."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}::{self.member}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        """Its own name, without folders."""
        return (self.member or str(self.path)).rpartition("/")[2]

    def read(self) -> bytes:
        """All bytes. DataError when it is too large, or its zip is damaged; OSError as the system has it."""
        if not self.member:
            self._check_size(self.path.stat().st_size)
            if self.path.suffix.lower() == ".zip":
                raise DataError(f"{self}: damaged or cut off: no zip whose contents can be listed")
            return self.path.read_bytes()
        try:
            with zipfile.ZipFile(self.path) as archive:
                self._check_size(archive.getinfo(self.member).file_size)
                return archive.read(self.member)
        except KeyError:
            raise DataError(f"{self}: the zip has no such member") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
            raise DataError(f"{self}: cannot be unpacked: {error}") from None

    def _check_size(self, size: int) -> None:
        if size > _MOST_BYTES:
            raise DataError(f"{self}: {size / 1e9:.1f} GB; no annotation file is larger than {_MOST_BYTES / 1e9:.1f}")


class Inventory:
    """Every file under a folder, by one walk that follows links: names relative to `root`, sorted, with forward slashes."""

    def __init__(self, folder: str, setting: str = "data") -> None:
        self.root = Path(folder).expanduser()
        if not folder or not self.root.is_dir():
            raise RequestError(f"{setting}={folder}: expected a folder on this machine, and there is none")
        self.names = sorted(_walk(self.root))

    @cached_property
    def annotations(self) -> list[AnnotationFile]:
        """Files that may be annotation files, and such members of zips; a zip that cannot be listed stands for itself."""
        found = []
        for name in self.names:
            lower = name.lower()
            if lower.endswith(ANNOTATION_ENDINGS):
                found.append(AnnotationFile(self.root / name))
            elif lower.endswith(".zip"):
                found += _members(self.root / name)
        return found

    @cached_property
    def videos(self) -> list[str]:
        """Names of the files that end as videos do."""
        return [name for name in self.names if ending_of(name) in VIDEO_ENDINGS]

    def others(self, but: Collection[str] = ()) -> str:
        """How many files end otherwise, as "11 files of other endings: .heic 7, .jpg 4"; those of `but` are passed over. ""
        without any."""
        passed = {*VIDEO_ENDINGS, *but}
        counted = Counter(ending for name in self.names if (ending := ending_of(name)) not in passed)
        if not counted:
            return ""
        each = [f"{f'.{ending}' if ending else 'none'} {count:,}" for ending, count in counted.most_common(_SHOWN)]
        more = ", ..." if len(counted) > _SHOWN else ""
        return f"{counted.total():,} files of other endings: {', '.join(each)}{more}"

    def relative(self, file: AnnotationFile) -> str:
        """A file's name as messages and tables give it: relative to the folder where it lies in it."""
        text = str(file)
        return text.removeprefix(f"{self.root}/")


def ending_of(name: str) -> str:
    """What follows the last dot of a file's name, in lower case.

    >>> ending_of("clips/A.MP4"), ending_of("v1.0/clip")
    ('mp4', '')
    """
    return posixpath.splitext(name)[1][1:].lower()


def _walk(root: Path) -> Iterator[str]:
    """Hidden files and folders are left out; a link back to a folder above is not followed again."""
    seen = set()

    def refuse(error: OSError) -> None:
        raise RequestError(f"{error.filename}: cannot be listed: {error.strerror}") from None

    for here, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        about = Path(here).stat()
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        under = os.path.relpath(here, root).replace(os.sep, "/")
        prefix = "" if under == "." else f"{under}/"
        yield from (prefix + name for name in files if not name.startswith("."))


def _members(path: Path) -> list[AnnotationFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith(ANNOTATION_ENDINGS)]
    except (zipfile.BadZipFile, OSError, ValueError):
        return [AnnotationFile(path)]
    return [AnnotationFile(path, name) for name in names if not name.startswith("__MACOSX/")]


class Line(NamedTuple):
    number: int
    text: str


@dataclass(frozen=True)
class Content:
    """A file parsed by its ending: `value` of JSON, JSON Lines and pickles; `lines` of anything else."""

    file: AnnotationFile
    value: Any = None
    lines: tuple[Line, ...] = ()
    items: int = 0  # a pickle's instructions: more words than these are repetitions
    doubled: str = ""  # a key of JSON that stands twice in one object, with different values

    @property
    def is_text(self) -> bool:
        return bool(self.lines)

    @property
    def first(self) -> str:
        """The first line that is not blank."""
        return self.lines[0].text if self.lines else ""

    @property
    def _form(self) -> dict[str, Any]:
        """Columns are separated by what the names of the columns are: tabs, commas, or semicolons where commas are decimal. TSV
        quotes nothing; CSV does."""
        tabs = self.file.name.lower().endswith(".tsv")
        if tabs and "\t" in self.first:
            return {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
        return {"delimiter": max(",;\t|", key=re.sub('"[^"]*"', "", self.first).count), "strict": True}

    def header(self) -> list[str]:
        """Column names, if the first line is one of names."""
        try:
            return [name.strip() for name in next(csv.reader([self.first], **self._form), [])]
        except csv.Error:
            return []

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
        """Line number and fields of each row of CSV with a header. DataError for a column or a field that is not there."""
        names = self.header()
        if missing := [name for name in columns if name not in names]:
            raise DataError(f"{self.file}, line {self.lines[0].number}: no column {', '.join(missing)}; "
                            f"expected {','.join(columns)}, found {','.join(names)}")  # fmt: skip
        # Blank lines were dropped; numbers are those of the file as long as no quoted field spans lines.
        reader = csv.reader(io.StringIO("\n".join(line.text for line in self.lines), newline=""), **self._form)
        try:
            next(reader)
            before = reader.line_num
            for fields in reader:
                number = self.lines[before].number
                before = reader.line_num
                if len(fields) != len(names):
                    raise DataError(f"{self.file}, line {number}: expected {len(names)} fields ({','.join(names)}), "
                                    f"found {len(fields)}; a quote or a separator is out of place, or it is cut off")  # fmt: skip
                yield number, dict(zip(names, fields, strict=True))
        except csv.Error as error:
            raise DataError(
                f"{self.file}, line {self.lines[min(before, len(self.lines) - 1)].number}: {error}"
            ) from None


def parse(file: AnnotationFile) -> Content:
    """Read and parse a file by its ending. DataError when it is empty, no UTF-8, or not what its ending says."""
    data = file.read()
    if not data.strip():
        raise DataError(f"{file} is empty")
    ending = file.name.rpartition(".")[2].lower()
    if ending in ("pkl", "pickle"):
        try:
            value, count = read_plain(data)
        except DataError as error:
            raise DataError(f"{file}: {error}") from None
        return Content(file, value, items=count)
    if ending == "parquet":
        return Content(file, _parquet(data, file))
    text = _decode(data, file)
    if ending == "json":
        doubled: list[str] = []
        return Content(file, _json(text, file, doubled=doubled), doubled=next(iter(doubled), ""))
    lines = tuple(Line(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    if ending in ("jsonl", "ndjson"):
        return Content(file, [_json(line.text, file, line.number) for line in lines])
    return Content(file, lines=tuple(Line(line.number, line.text.rstrip("\r")) for line in lines))


def _parquet(data: bytes, file: AnnotationFile) -> list[dict[str, Any]]:
    with damage_of(f"{file}: no Parquet file"):
        return list(read_parquet(data).to_pylist())


def _decode(data: bytes, file: AnnotationFile) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{file}: UTF-16; expected UTF-8 (convert it: iconv -f utf-16 -t utf-8)")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; expected UTF-8 "
            "(of Latin-1: iconv -f latin1 -t utf-8)"
        ) from None
    if "\0" in text:
        raise DataError(f"{file}, line {text.count(chr(10), 0, text.index(chr(0))) + 1}: a zero byte; expected text")
    return text


def _json(text: str, file: AnnotationFile, line: int = 0, doubled: list[str] | None = None) -> Any:
    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs) and doubled is not None:
            doubled.extend(key for key, value in pairs if made[key] != value)
        return made

    try:
        return json.loads(text, object_pairs_hook=noted)
    except json.JSONDecodeError as error:
        cut = "; it is cut off" if error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated") else ""
        raise DataError(
            f"{file}, line {line or error.lineno}, column {error.colno}: not JSON: {error.msg}{cut}"
        ) from None
    except RecursionError:
        raise DataError(f"{file}: JSON nested deeper than any annotation") from None
