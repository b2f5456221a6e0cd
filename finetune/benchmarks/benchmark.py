"""What a benchmark is, once its annotation files are read: splits of videos with captions or a label, and a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

Task = Literal["retrieval", "recognition", "choice"]
Queries = Literal["single", "every", "paragraph", "label", "choice"]

_QUERIES = {
    "single": "one caption a video",
    "every": "every caption is a query; video to text: a video's best caption counts",
    "paragraph": "all sentences of a video, joined in the file's order, are its one query",
}


class Span(NamedTuple):
    """Seconds of a video's file that belong to it."""

    start: float
    end: float


class Video(NamedTuple):
    """A video of a split: what is said of it, and the spellings that its file may have."""

    id: str
    captions: tuple[str, ...] = ()  # of a question its options
    label: int | None = None  # the number of its class, or of the option that is right
    span: Span | None = None
    names: tuple[str, ...] = ()  # of its file, without folder, with or without ending, the likeliest first; (): its id
    path: str = ""  # as its annotation spells it, if that gives one


class Published(NamedTuple):
    """A known size of a split, and whose count it is. 0: not told."""

    videos: int
    captions: int = 0
    by: str = ""

    @property
    def size(self) -> int:
        """Of what it counts: of videos, or of captions where that is all it tells."""
        return self.videos or self.captions

    def __str__(self) -> str:
        return f"{self.size:,}{'' if self.videos else ' captions'}"


@dataclass(frozen=True)
class Split:
    """The videos of a split in the order of its list; `published` holds the sizes known for it, the usual one first."""

    name: SplitName
    videos: tuple[Video, ...]
    published: tuple[Published, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def captions(self) -> int:
        return sum(len(video.captions) for video in self.videos)

    def counted(self, published: Published) -> int:
        """How many it has of what a known size counts."""
        return len(self.videos) if published.videos else self.captions


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is asked: `title` names it and its split as papers do."""

    title: str
    task: Task
    queries: Queries
    note: str = ""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as its annotation files have it. `labels` are the names of classes by number (recognition).

    `differences` tell, in sentences, where the files differ from each other or from what is published.
    """

    name: str
    variant: str
    protocol: Protocol
    splits: Mapping[SplitName, Split]
    labels: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def selection(self) -> SplitName | None:
        """The split on which a checkpoint may be chosen: validation, or none (then the last step is taken). Never test."""
        return "validation" if "validation" in self.splits else None

    def describe(self, split: SplitName = "test") -> str:
        """The protocol, in one line, as it stands beside every number.

        >>> print(benchmark.describe())
        MSR-VTT 1k-A (9k training), test: 1,000 videos, 1,000 queries (one caption a video)
        """
        chosen = self.splits[split]
        asked = f"{len(self.labels):,} classes"
        if self.protocol.task == "retrieval":
            asked = f"{self.queries(split):,} queries ({_QUERIES[self.protocol.queries]})"
        if self.protocol.task == "choice":
            options = chosen.captions // max(len(chosen.videos), 1)
            asked = f"a question each of {options} options, one of them right; a tie with it is no hit"
        parts = [f"{self.protocol.title}, {split}: {len(chosen.videos):,} videos, {asked}"]
        if (usual := next(iter(chosen.published), None)) and chosen.counted(usual) != usual.size:
            parts.append(f"published with {usual}{' videos' if usual.videos else ''}")
        return "; ".join([*parts, *filter(None, [self.protocol.note])])

    def queries(self, split: SplitName) -> int:
        """Texts that a split is asked by (retrieval): each is one row of the similarity matrix."""
        return self.splits[split].captions
