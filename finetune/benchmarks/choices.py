"""Questions of multi-choice: videos with several sentences each, of which one is right.

    [{"video": "video7010.mp4", "caption": [five], "answer": 0}]     MSR-VTT MC as Singularity, VindLU and mmaction2 have it
    {"clip_name": "video7010", "options": [five], "answer": 0}       a line each: ClipBERT's and All-in-one's
    key  vid_key  a1 ... a5  answer                                  JSFusion's table (tabs); vid_key is msr7010, answer from 0
    clip  four times  five sentences  answer from 1                  LSMDC's; without an answer the first is right

A record has the sentences as its captions and, as its label, which of them is right, from 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from stillreel.configs import DataError
from stillreel.finetune.benchmarks.benchmark import Split, Video
from stillreel.finetune.benchmarks.files import AnnotationFile, Content
from stillreel.finetune.benchmarks.records import (
    Dialect,
    Gather,
    Record,
    Records,
    composed,
    field,
    id_of,
    keys_of_first,
    name_of,
    text_of,
    texts_of,
)

_NAMES = ("video", "clip_name", "video_id")
_OPTIONS = ("options", "caption")
_COLUMNS = ("a1", "a2", "a3", "a4", "a5")
_TIME = re.compile(r"\d{1,2}[.:]\d{1,2}[.:]\d{1,2}[.,]\d{1,3}")
_FILM_FIELDS = 10  # of LSMDC's, without an answer


class _Questions(Gather):
    """Collects questions, of which each must have as many options as the first. A video may be asked more than one: the key of a
    further one is numbered."""

    def ask(self, name: str, place: str, options: Sequence[str], answer: Any, *, first: int, path: str = "") -> None:
        """`answer` is the number of the right option, counted from `first`."""
        number = int(answer) if isinstance(answer, str) and answer.strip().isdecimal() else answer
        right = number - first if isinstance(number, int) and not isinstance(number, bool) else -1
        most = len(next(iter(self.records.values())).captions) if self.records else max(len(options), 2)
        if len(options) != most:
            raise DataError(f"{self.file}, {place}: {len(options)} options; expected {most}, as many for all questions")
        if not 0 <= right < most:
            raise DataError(
                f"{self.file}, {place}: the answer {answer!r}; expected the number of an option, {first} to {most - 1 + first}"
            )
        asked = Record(composed(id_of(name)), place, tuple(options), label=str(right), path=path)
        before = self.records.get(asked.id, asked)
        if before._replace(place=place) == asked:
            self.add(asked)
        else:
            self.records[f"{asked.id}#{len(self.records)}"] = asked


def _is_objects(content: Content) -> bool:
    keys = keys_of_first(content)
    return "answer" in keys and not keys.isdisjoint(_NAMES) and not keys.isdisjoint(_OPTIONS)


def _read_objects(content: Content) -> Records:
    questions, file = _Questions(content.file), content.file
    for number, one in enumerate(content.value, 1):
        place, keys = f"record {number}", set(one) if isinstance(one, dict) else set()
        name = next((key for key in _NAMES if key in keys), _NAMES[0])
        said = next((key for key in _OPTIONS if key in keys), _OPTIONS[0])
        path = name_of(field(one, name, object, file, place), file, place)
        options = texts_of(field(one, said, list, file, place), file, place)
        questions.ask(path, place, options, field(one, "answer", object, file, place), first=0, path=path)
    return questions.done()


def _is_table(content: Content) -> bool:
    return content.is_text and {*_COLUMNS, "answer"} <= set(content.header())


def _read_table(content: Content) -> Records:
    questions, names = _Questions(content.file), content.header()
    column = "video_id" if "video_id" in names else "vid_key"
    for number, row in content.rows([column, *_COLUMNS, "answer"]):
        place = f"line {number}"
        name = re.sub(r"^msr(?=\d)", "video", row[column].strip())
        options = [text_of(row[one], content.file, place) for one in _COLUMNS]
        questions.ask(name, place, options, row["answer"], first=0)
    return questions.done()


def _is_film(content: Content) -> bool:
    fields = content.first.split("\t") if content.is_text else []
    return len(fields) in (_FILM_FIELDS, _FILM_FIELDS + 1) and all(_TIME.fullmatch(one.strip()) for one in fields[1:5])


def _read_film(content: Content) -> Records:
    questions, count = _Questions(content.file), content.first.count("\t") + 1
    for number, text in content.lines:
        place, fields = f"line {number}", text.split("\t")
        if len(fields) != count or not all(_TIME.fullmatch(one.strip()) for one in fields[1:5]):
            raise DataError(
                f"{content.file}, {place}: expected {count} fields separated by tabs (clip, four times, five sentences"
                f"{', answer' if count > _FILM_FIELDS else ''}), found {len(fields)}: {text[:80]!r}"
            )
        options = [text_of(one, content.file, place) for one in fields[5:_FILM_FIELDS]]
        questions.ask(fields[0], place, options, fields[-1] if count > _FILM_FIELDS else 1, first=1)
    return questions.done()


OBJECTS = Dialect(
    "a list of multiple choice",
    '[{"video" or "clip_name", "caption" or "options", "answer"}]',
    _is_objects,
    _read_objects,
)
TABLE = Dialect(
    "JSFusion's multiple choice", "a table with vid_key, a1 to a5 and answer", _is_table, _read_table
)  # fmt: skip
FILM = Dialect(
    "LSMDC's multiple choice",
    "lines of a clip, four times, five sentences and the number of the right one, separated by tabs",
    _is_film,
    _read_film,
)


def question(listed: Record, _spoken: Record) -> Video:
    """A video whose captions are its options, and whose label says which of them is right."""
    return Video(listed.id, listed.captions, int(listed.label), path=listed.path)


def compare_options(split: Split, file: AnnotationFile) -> list[str]:
    """A sentence where a question's right option stands among the wrong ones, too, so that no model can tell them apart."""
    alike = [one.id for one in split.videos if one.captions.count(one.captions[one.label or 0]) > 1]
    if not alike:
        return []
    return [
        f"{split.name}: {len(alike):,} questions of {file.name} have their right option twice, as {alike[0]}'s: a tie, no hit"
    ]
