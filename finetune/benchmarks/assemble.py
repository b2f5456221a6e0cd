"""Records of several files become splits: lists joined with captions, splits kept apart, counts compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stillreel.configs import DataError
from stillreel.finetune.benchmarks.benchmark import Published, Split, SplitName, Video
from stillreel.finetune.benchmarks.find import Finder, Role
from stillreel.finetune.benchmarks.records import Record, Records, Table

MakeVideo = Callable[[Record, Record], Video]


@dataclass
class Joiner:
    """Joins lists of videos with captions that lie in files of their own, split by split.

    A list that brings its own captions keeps them. A split that nobody needs and that has no captions is left out, and said
    so in `differences`; one that is needed is a RequestError that says which file is wanted.
    """

    finder: Finder
    role: Role
    needs: Collection[SplitName]
    tables: list[Table] = field(init=False)
    spoken: Records = field(init=False)
    splits: dict[SplitName, Split] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tables = self.finder.tables(self.role, needed=False)
        self.spoken = merged(self.tables)

    @property
    def source(self) -> str:
        """The caption files, for messages."""
        return ", ".join(str(table.file) for table in self.tables)

    def list_of(self, role: Role, name: SplitName) -> Table | None:
        """The list of a split; None when there is none and nobody needs it."""
        return self.finder.table(role, needed=name in self.needs)

    def add(
        self, name: SplitName, listed: Table | None, published: tuple[Published, ...], video: MakeVideo | None = None
    ) -> None:
        """Make the split; `video` makes a Video of (the list's record, the record with captions)."""
        if listed is None:
            return
        spoken, source = self.spoken, self.source
        if all(record.captions for record in listed.records.values()):
            spoken, source = listed.records, str(listed.file)
        lacking = [record for record in listed.records.values() if record.id not in spoken]
        if lacking and len(lacking) == len(listed.records) and name not in self.needs:
            self.differences.append(f"{name}: {listed.size()} in {listed.file.name}, and no captions of them: left out")
            return
        if not spoken:
            self.finder.tables(self.role, needed=True)
        if lacking:
            raise DataError(_lacking(name, listed, lacking, source))
        make = video or plain_video
        videos = tuple(make(record, spoken[record.id]) for record in listed.records.values())
        self.splits[name] = Split(name, videos, published, tuple(dict.fromkeys((str(listed.file), source))))

    def check_complete(self, whose: str) -> None:
        """Where the splits together hold every video, a caption of another one is a DataError."""
        listed = {video.id for split in self.splits.values() for video in split.videos}
        strange = [record for record in self.spoken.values() if record.id not in listed]
        if strange:
            raise DataError(
                f"{self.source}, {strange[0].place}: captions of {strange[0].id!r}, which no split of {whose} has"
                + (f", and of {len(strange) - 1:,} more" if len(strange) > 1 else "")
                + "; expected captions of listed videos alone: a list is cut off, or another's"
            )


def _lacking(name: SplitName, listed: Table, lacking: Sequence[Record], source: str) -> str:
    more = f", nor of {len(lacking) - 1:,} more of its {len(listed.records):,}" if len(lacking) > 1 else ""
    return (
        f"{listed.file}, {lacking[0].place}: {source} has no captions of video {lacking[0].id!r}{more}; "
        f"expected captions of every video of the {name} split"
    )


def merged(tables: Sequence[Table]) -> Records:
    """Records of files that complete each other. DataError when two tell different captions of one video."""
    records: Records = {}
    origin: dict[str, Table] = {}
    for table in tables:
        for record in table.records.values():
            first = records.setdefault(record.id, record)
            if first.captions != record.captions:
                raise DataError(
                    f"{table.file}, {record.place}: other captions of video {record.id!r} than {origin[record.id].file}, "
                    f"{first.place}"
                )
            origin.setdefault(record.id, table)
    return records


def plain_video(listed: Record, spoken: Record) -> Video:
    """A video without a span whose file has the name of its id."""
    return Video(listed.id, spoken.captions, path=listed.path or spoken.path)


def check_apart(splits: Mapping[SplitName, Split]) -> None:
    """No video may be in two splits. DataError that counts and names some: a test list given as the training list shows here."""
    names = list(splits)
    for place, one in enumerate(names):
        ids = {video.id for video in splits[one].videos}
        for other in names[place + 1 :]:
            shared = [video.id for video in splits[other].videos if video.id in ids]
            if shared:
                raise DataError(
                    f"{len(shared):,} videos are both in the {one} split ({splits[one].files[0]}) and in the {other} split "
                    f"({splits[other].files[0]}), as {some(shared)}; expected none: one of the two files is another's"
                )


def compare_counts(split: Split) -> list[str]:
    """A sentence when a split has not the size that is usually published."""
    if not split.published:
        return []
    usual, count = split.published[0], len(split.videos)
    said = []
    if usual.videos and count != usual.videos:
        others = [one for one in split.published[1:] if one.videos == count]
        reason = f": that is {others[0].by}" if others else ""
        said.append(f"{split.name}: {count:,} videos in the files, {usual.videos:,} published ({usual.by}){reason}")
    elif usual.captions and split.captions and split.captions != usual.captions:
        said.append(
            f"{split.name}: {split.captions:,} captions in the files, {usual.captions:,} published ({usual.by})"
        )
    return said


def some(names: Iterable[str], most: int = 3) -> str:
    """A few names, for messages."""
    listed = list(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
