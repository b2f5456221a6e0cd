"""LSMDC 2016 (Rohrbach et al., IJCV 2017): clips of films with what the audio description says, mostly one sentence a clip.

Three files of six fields separated by tabs, without a header: `clip, start and end as aligned, start and end as cut, sentence`.
Clips are files of their own, already cut, in a folder a film: times are those within the film, and are only checked.
mc (Torabi et al., 2016): each of 10,053 clips has five sentences in LSMDC16_multiple_choice_test_randomized.csv, one its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from stillreel.configs import DataError
from stillreel.finetune.benchmarks.assemble import check_apart
from stillreel.finetune.benchmarks.benchmark import Benchmark, Protocol, Published, Split, SplitName, Video
from stillreel.finetune.benchmarks.choices import FILM, compare_options, question
from stillreel.finetune.benchmarks.files import Content
from stillreel.finetune.benchmarks.find import Finder, Role
from stillreel.finetune.benchmarks.records import STAN, UMT, Dialect, Gather, Record, Records, id_of, text_of

VARIANTS = ("", "mc")
_ID = r"\d{4}_.+_\d\d\.\d\d\.\d\d\.\d{3}-\d\d\.\d\d\.\d\d\.\d{3}"
_TIME = re.compile(r"(\d{1,2})[.:](\d{1,2})[.:](\d{1,2})[.,](\d{1,3})")
_FIELDS = ("clip", "start_aligned", "end_aligned", "start_extracted", "end_extracted", "sentence")


def seconds(time: str) -> float | None:
    """Seconds of `hours.minutes.seconds.thousandths`; None when it is no such time.

    >>> seconds("00.01.02.500")
    62.5
    """
    match = _TIME.fullmatch(time.strip())
    if match is None:
        return None
    hours, minutes, whole, part = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + int(whole) + int(part.ljust(3, "0")) / 1000


def _is_annotation(content: Content) -> bool:
    return content.is_text and content.first.count("\t") == len(_FIELDS) - 1


def _read_annotation(content: Content) -> Records:
    gather = Gather(content.file, adds_up=True)  # a clip may have several sentences
    for number, text in content.lines:
        place = f"line {number}"
        fields = text.split("\t")
        if len(fields) != len(_FIELDS):
            raise DataError(
                f"{content.file}, {place}: expected {len(_FIELDS)} fields separated by tabs ({', '.join(_FIELDS)}), "
                f"found {len(fields)}"
            )
        for name, time in zip(_FIELDS[1:5], fields[1:5], strict=True):
            if seconds(time) is None:
                raise DataError(
                    f"{content.file}, {place}: {name} is {time!r}; expected hours.minutes.seconds.thousandths"
                )
        gather.add(Record(id_of(fields[0]), place, (text_of(fields[5], content.file, place),)))
    return gather.done()


def _is_clip_list(content: Content) -> bool:
    return content.is_text and re.fullmatch(_ID, content.first.split("\t")[0]) is not None


def _read_clip_list(content: Content) -> Records:
    """Clips alone: one a line with the characters seen in it, or several a line (lsmdc-fillin's sets)."""
    gather = Gather(content.file)
    for number, text in content.lines:
        fields = text.split("\t")
        clips = [one for one in fields if re.fullmatch(_ID, one)]
        if not clips or (len(clips) < len(fields) and len(fields) != 2):
            raise DataError(f"{content.file}, line {number}: expected clip ids separated by tabs, found {text[:80]!r}")
        for clip in clips:
            gather.add(Record(clip, f"line {number}"))
    return gather.done()


ANNOTATION = Dialect(
    "LSMDC's csv", f"lines of six fields separated by tabs ({', '.join(_FIELDS)})", _is_annotation, _read_annotation
)
CLIP_LIST = Dialect("a list of LSMDC's clips", "clip ids separated by tabs", _is_clip_list, _read_clip_list)
DIALECTS = (ANNOTATION, FILM, CLIP_LIST)

# A row is a sentence; a clip may have more than one, except in the list of 1,000.
_PUBLISHED: dict[SplitName, tuple[Published, ...]] = {
    "train": (Published(0, 101_079, "the release"),),
    "validation": (Published(0, 7408, "the release"),),
    "test": (Published(1000, 1000, "LSMDC16_challenge_1000_publictect.csv"),),
}
_PUBLISHED_MC: dict[SplitName, tuple[Published, ...]] = {
    "train": _PUBLISHED["train"],
    "validation": (Published(7408, 37_040, "the release"),),
    "test": (Published(10_053, 50_265, "the release's public test"),),
}
_NAMES = {
    "train": ("lsmdc16_annos_training.csv", "lsmdc*train*.csv", "lsmdc*train*.json"),
    "validation": ("lsmdc16_annos_val.csv", "lsmdc*val*.csv", "lsmdc*val*.json"),
    "test": (
        "lsmdc16_challenge_1000_publictect.csv",
        "lsmdc*1000*publi*.csv",
        "lsmdc*test*1000*.json",
        "lsmdc*test*.json",
        "lsmdc*test*.csv",
    ),
}
_NAMES_MC = {
    "validation": ("lsmdc16_multiple_choice_valid.csv", "lsmdc*m*c*val*.csv"),
    "test": ("lsmdc16_multiple_choice_test_randomized.csv", "lsmdc*m*c*test*.csv"),
}


def _role(name: SplitName, variant: str) -> Role:
    published = (_PUBLISHED_MC if variant else _PUBLISHED)[name][0]
    if variant and name != "train":
        what = f"the {published.size:,} questions of the {name} split, {_NAMES_MC[name][0]}"
        return Role(name, what, _NAMES_MC[name], (FILM,), like=_ID, sizes=(published.size,))
    what = f"the {published.size:,} sentences of the {name} split with their clips"
    return Role(name, what, _NAMES[name], (ANNOTATION, STAN, UMT), like=_ID, sizes=(published.size,))


_CLIPS = Role("captions", "the clips of the validation split", ("references_val_new.csv", "valsets.csv"), (CLIP_LIST,))


def read(finder: Finder, variant: str, needs: Collection[SplitName]) -> Benchmark:
    """Each split is a file. A list of the validation clips (lsmdc-fillin's), where there is one, is compared with theirs."""
    splits: dict[SplitName, Split] = {}
    differences: list[str] = []
    for name, published in (_PUBLISHED_MC if variant else _PUBLISHED).items():
        table = finder.table(_role(name, variant), needed=name in needs)
        if table is None:
            continue
        records = table.records.values()
        if variant and name != "train":
            splits[name] = Split(name, tuple(question(one, one) for one in records), published, (str(table.file),))
            differences += compare_options(splits[name], table.file)
        else:
            videos = tuple(Video(one.id, one.captions, path=one.path) for one in records)
            splits[name] = Split(name, videos, published, (str(table.file),))
    check_apart(splits)
    if variant:
        return Benchmark(
            "lsmdc", variant, Protocol("LSMDC MC", "choice", "choice"), splits, differences=tuple(differences)
        )
    protocol = Protocol("LSMDC", "retrieval", "single")
    return Benchmark("lsmdc", "", protocol, splits, differences=tuple(_compare_clips(finder, splits)))


def _compare_clips(finder: Finder, splits: dict[SplitName, Split]) -> list[str]:
    clips = finder.table(_CLIPS, needed=False)
    if clips is None:
        return []
    if "validation" not in splits:
        return [f"validation: {clips.size()} in {clips.file.name}, and no sentences of them: left out"]
    here = {video.id for video in splits["validation"].videos}
    lacking, more = clips.records.keys() - here, here - clips.records.keys()
    if not lacking and not more:
        return []
    return [f"validation: {clips.file.name} has {len(lacking):,} clips more and {len(more):,} fewer than the sentences"]
