"""From a parsed annotation file to records: one a video, whatever the dialect.

A dialect is one way in which a benchmark's annotations are written. `match` looks at the outside of a file (the first line,
the keys of the first object) and `read` is strict: the first record that is not as expected is a DataError that names
the file and the line or record. What is shared by several benchmarks is here: lists of ids, tables with a caption
column, and the JSON of STAN's and UMT's data loaders.
"""

from __future__ import annotations

import io
import logging
import re
import tokenize
import unicodedata
from ast import literal_eval
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from stillreel.configs import DataError
from stillreel.configs.system.claims import parse_json
from stillreel.finetune.benchmarks.benchmark import Span
from stillreel.finetune.benchmarks.files import AnnotationFile, Content, parse
from stillreel.shards.format.containers import VIDEO_ENDINGS

_log = logging.getLogger(__name__)

# A cell that is a printed list, array or tuple: it is empty, or its first text begins behind the bracket. (A caption may begin
# with a bracket, too: [music], or an aside.)
_ARRAY = re.compile(r"array\((.*?)(?:,\s*dtype=[\w<>'\"]+)?\)", re.DOTALL)
_LISTED = re.compile(r"""\[\s*(?:['"].*|\])|\(\s*['"].*['"]\s*,?\s*\)""", re.DOTALL)
_BETWEEN = (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER)


class Record(NamedTuple):
    """What a file says of one video. `place` is where, in words: line 17, record 4."""

    id: str
    place: str
    captions: tuple[str, ...] = ()
    label: str = ""  # a number or a name, as the file has it
    span: Span | None = None
    split: str = ""
    path: str = ""


Records = dict[str, Record]


class Dialect(NamedTuple):
    """One way to write annotations. `expected` and `owner` are for messages."""

    owner: str
    expected: str
    match: Callable[[Content], bool]
    read: Callable[[Content], Records]


class Table(NamedTuple):
    """The records of a file, in its order."""

    file: AnnotationFile
    dialect: Dialect
    records: Records

    @property
    def captions(self) -> int:
        return sum(len(record.captions) for record in self.records.values())

    def size(self) -> str:
        spoken = f", {self.captions:,} captions" if self.captions else ""
        return f"{len(self.records):,} videos{spoken}"


def read_table(file: AnnotationFile, dialects: Sequence[Dialect], known: Iterable[Dialect] = ()) -> Table:
    """The file in the first dialect that matches. DataError when none does: it says what was found, by the dialects `known`."""
    content = parse(file)
    if content.doubled:
        raise DataError(
            f"{file}: the key {content.doubled!r} stands twice in one object, with different values; expected once"
        )
    for dialect in dialects:
        if dialect.match(content):
            return Table(file, dialect, dialect.read(content))
    expected = "; or ".join(dict.fromkeys(dialect.expected for dialect in dialects))
    theirs = next((f": that is {one.owner}" for one in known if one not in dialects and one.match(content)), "")
    raise DataError(f"{file}: expected {expected}. Found {outside(content)}{theirs}")


def outside(content: Content) -> str:
    """What a file looks like, for messages."""
    value = content.value
    if content.is_text:
        return f"text whose line {content.lines[0].number} is {content.first[:80]!r}"
    if isinstance(value, list):
        inside = f" of {_kind(value[0])}" if value else ""
        return f"a list{inside} ({len(value):,})"
    if isinstance(value, dict) and value:
        key, first = next(iter(value.items()))
        return f"an object of {len(value):,} keys, the first {key!r}: {_kind(first)}"
    return _kind(value)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"objects with {', '.join(map(repr, sorted(map(str, value))[:8]))}" if value else "empty objects"
    names = {list: "a list", tuple: "a tuple", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


class Gather:
    """Collects records in order. An id that stands twice is an error unless its captions are to be added up, or the very same is
    said of it: that counts once, and is told."""

    def __init__(self, file: AnnotationFile, *, adds_up: bool = False) -> None:
        self.file = file
        self.adds_up = adds_up
        self.captions: dict[str, list[str]] = {}
        self._doubled: list[str] = []
        self.records: Records = {}

    def add(self, record: Record) -> None:
        record = record._replace(id=composed(record.id))
        if not record.id:
            raise DataError(f"{self.file}, {record.place}: a video without an id")
        first = self.records.setdefault(record.id, record)
        if first is not record and not self.adds_up:
            if first._replace(place=record.place) == record:
                self._doubled.append(record.place)
                return
            raise DataError(
                f"{self.file}, {record.place}: video {record.id!r} stands there again, and otherwise; first: {first.place}"
            )
        if record.captions:
            self.captions.setdefault(record.id, []).extend(record.captions)

    def done(self) -> Records:
        """The records in order, each with all its captions."""
        if self._doubled:
            _log.warning(
                f"{self.file}: {len(self._doubled):,} rows stand there again and count once: {self._doubled[0]}, ..."
            )
        for name, captions in self.captions.items():
            if len(captions) > len(self.records[name].captions):
                self.records[name] = self.records[name]._replace(captions=tuple(captions))
        return self.records


def composed(name: str) -> str:
    """A name with each letter and its accents as one character, as most systems write it: macOS's way is another, of the same
    name."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def id_of(path: str) -> str:
    """A video's id from a file name: without folders and the ending of a video; other dots are part of ids (LSMDC).

    >>> id_of("clips/video7010.mp4"), id_of("0001_American_Beauty_00.00.51.926-00.00.54.129")
    ('video7010', '0001_American_Beauty_00.00.51.926-00.00.54.129')
    """
    name = path.replace("\\", "/").rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    return stem if dot and stem and ending.lower() in VIDEO_ENDINGS else name


def name_of(value: Any, file: AnnotationFile, place: str) -> str:
    """The name or id of a video: text, or a whole number, as tables and JSON have ids of digits alone (7.0 is one: a column of
    numbers with a gap is written so)."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return str(int(value))
    if not isinstance(value, str):
        raise DataError(f"{file}, {place}: expected the name of a video, found {_kind(value)}")
    if not value.strip():
        raise DataError(f"{file}, {place}: a video without an id")
    return value.strip()


def text_of(value: Any, file: AnnotationFile, place: str) -> str:
    """A caption: text, or a list of words (MSVD's pickle). DataError when it is neither, or blank."""
    if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        value = " ".join(value)
    if not isinstance(value, str):
        raise DataError(f"{file}, {place}: expected a caption as text, found {_kind(value)}")
    text = value.strip()
    if not text:
        raise DataError(f"{file}, {place}: the caption is blank")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{file}, {place}: the caption is not text: half of a surrogate pair") from None
    return text


def texts_of(value: Any, file: AnnotationFile, place: str) -> tuple[str, ...]:
    """One caption or a list of captions, none blank, at least one. A list may be written into one cell of a table, as JSON, or as
    pandas and NumPy print theirs."""
    if isinstance(value, str):
        cell = value.strip()
        cell = array[1] if (array := _ARRAY.fullmatch(cell)) else cell
        value = _listed(cell, file, place) if _LISTED.fullmatch(cell) else value
    spoken = value if isinstance(value, list | tuple) else [value]
    if not spoken:
        raise DataError(f"{file}, {place}: no captions")
    return tuple(text_of(one, file, place) for one in spoken)


def _listed(text: str, file: AnnotationFile, place: str) -> list[Any]:
    """The texts of a printed list, with commas between them or (NumPy) without."""
    try:
        return list(parse_json(text))
    except ValueError:
        found = []
    try:
        for kind, part, *_ in tokenize.generate_tokens(io.StringIO(text).readline):
            if kind == tokenize.STRING:
                found.append(literal_eval(part))
            elif kind not in _BETWEEN and part not in tuple(",()[]"):
                raise ValueError(part)
    except (ValueError, SyntaxError, tokenize.TokenError):
        raise DataError(
            f"{file}, {place}: {text[:60]!r} looks like a list of captions and cannot be read as one (cut by NumPy?); expected "
            'JSON, ["a dog", "a hound"], or a caption a row'
        ) from None
    return found


def field(record: Any, key: str, kind: type, file: AnnotationFile, place: str) -> Any:
    """A field of a JSON object. DataError when the object is none, the field is missing or of another kind."""
    if not isinstance(record, dict):
        raise DataError(f"{file}, {place}: expected an object with {key!r}, found {_kind(record)}")
    if key not in record:
        raise DataError(f"{file}, {place}: no {key!r}; it has {', '.join(map(repr, sorted(record)))}")
    value = record[key]
    if isinstance(value, int) and not isinstance(value, bool) and kind is float:
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{file}, {place}: {key!r} is {_kind(value)}, expected {_kind(kind())}")
    return value


def keys_of_first(content: Content) -> set[str]:
    """Keys of the first object of a JSON list; empty when it is no such list."""
    value = content.value
    return set(value[0]) if isinstance(value, list) and value and isinstance(value[0], dict) else set()


def first_value(content: Content) -> Any:
    """The value of a JSON object's first key; None when it is none."""
    value = content.value
    return next(iter(value.values())) if isinstance(value, dict) and value else None


def _is_id_list(content: Content) -> bool:
    value = content.value
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], str | int)
    return content.is_text and len(content.first.split()) == 1 and not set(content.first) & set(",;{[<\t")


def _read_id_list(content: Content) -> Records:
    gather = Gather(content.file)
    if content.is_text:
        for number, text in content.lines:
            if len(text.split()) != 1 or "," in text:
                raise DataError(f"{content.file}, line {number}: expected one id, found {text[:80]!r}")
            gather.add(Record(id_of(text.strip()), f"line {number}", path=text.strip()))
        return gather.done()
    for number, value in enumerate(content.value, 1):
        path = name_of(value, content.file, f"record {number}")
        gather.add(Record(id_of(path), f"record {number}", path=path))
    return gather.done()


def _is_id_table(content: Content) -> bool:
    return content.is_text and "video_id" in content.header()


def _read_id_table(content: Content) -> Records:
    names = content.header()
    spoken = next((name for name in ("sentence", "caption", "text") if name in names), "")
    gather = Gather(content.file)
    for number, row in content.rows(["video_id"]):
        place = f"line {number}"
        captions = texts_of(row[spoken], content.file, place) if spoken else ()
        gather.add(Record(id_of(row["video_id"].strip()), place, captions))
    return gather.done()


def _is_stan(content: Content) -> bool:
    first = first_value(content)
    return isinstance(first, str) or (isinstance(first, list) and bool(first) and isinstance(first[0], str | list))


def _read_stan(content: Content) -> Records:
    gather = Gather(content.file)
    budget = content.items  # of a pickle: repetitions by reference would be more
    for key, value in content.value.items():
        if not isinstance(key, str):
            raise DataError(f"{content.file}: expected the id of a video, found {key!r}")
        place = f"video {key!r}"
        captions = texts_of(value, content.file, place)
        budget -= sum(caption.count(" ") + 1 for caption in captions)
        if content.items and budget < 0:
            raise DataError(f"{content.file}, {place}: more words than the pickle has instructions: refused")
        gather.add(Record(id_of(key), place, captions, path=key if "." in key or "/" in key else ""))
    return gather.done()


def _is_umt(content: Content) -> bool:
    keys = keys_of_first(content)  # with an answer they are multi-choice, of whose captions most are wrong
    return "answer" not in keys and bool(keys & {"video", "image", "video_id"}) and bool(keys & {"caption", "sentence"})


def _read_umt(content: Content) -> Records:
    gather = Gather(content.file, adds_up=True)
    for number, one in enumerate(content.value, 1):
        place = f"record {number}"
        keys = set(one) if isinstance(one, dict) else set()
        name = next((key for key in ("video", "image", "video_id") if key in keys), "video")
        spoken = next((key for key in ("caption", "sentence") if key in keys), "caption")
        path = name_of(field(one, name, object, content.file, place), content.file, place)
        field(one, spoken, object, content.file, place)
        gather.add(Record(id_of(path), place, texts_of(one[spoken], content.file, place), path=path))
    return gather.done()


ID_LIST = Dialect("a list of ids", "a list of ids, one a line (or a JSON list)", _is_id_list, _read_id_list)
ID_TABLE = Dialect(
    "an MSR-VTT csv", "csv with a column video_id (and sentence, where there is one)", _is_id_table, _read_id_table
)
STAN = Dialect("a table of captions by video", '{"video.mp4": ["caption", ...]}', _is_stan, _read_stan)
UMT = Dialect("a list of captions with their videos", '[{"video": ..., "caption": ...}]', _is_umt, _read_umt)
