"""Find the videos of a benchmark on the disk: any nesting, any of the usual containers, names by id as they are in use.

The folder was walked once (files.Inventory); here names are matched and counted. A split that the folder cannot fill is
refused, unless that is allowed: then its missing videos stay in the test as misses, and leave the training split.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from stillreel.configs import RequestError
from stillreel.finetune.benchmarks.assemble import some
from stillreel.finetune.benchmarks.benchmark import Benchmark, Split, SplitName, Video
from stillreel.finetune.benchmarks.files import ANNOTATION_ENDINGS, Inventory, ending_of
from stillreel.finetune.benchmarks.records import composed, id_of
from stillreel.shards.format.containers import VIDEO_ENDINGS


@dataclass(frozen=True)
class Located:
    """A benchmark whose videos were looked for. `paths`: file by video id; `missing`: ids by split, in its order.

    `benchmark` still has the missing videos of validation and test, which count as misses; those of training were dropped.
    """

    benchmark: Benchmark
    paths: Mapping[str, Path]
    missing: Mapping[SplitName, tuple[str, ...]]
    table: str

    def describe(self, split: SplitName = "test") -> str:
        """The benchmark's protocol line, and how many of the split's videos are missing and count as misses."""
        missing = len(self.missing.get(split, ())) if split != "train" else 0
        return self.benchmark.describe(split) + (f"; {missing:,} videos missing, counted as misses" if missing else "")


class VideoIndex:
    """The files of a folder by name, and by name without ending. How letters with accents are encoded makes no difference (macOS
    takes them apart). `choices` tell which of several files of a name was taken, `cases` which was found by other capitals."""

    def __init__(self, inventory: Inventory) -> None:
        self.root = inventory.root
        self.choices: list[str] = []
        self.cases: list[str] = []
        self._paths = {composed(path): path for path in inventory.names} | {path: path for path in inventory.names}
        self._by_name: dict[str, list[str]] = {}
        for path in inventory.names:
            name = composed(path).rpartition("/")[2]
            for one in {name, id_of(name)}:
                self._by_name.setdefault(one, []).append(path)

    def exact(self, video: Video) -> str:
        """The video's file where its annotation says that it lies; "" when there is none."""
        path = video.path.removeprefix("./")
        return self._paths.get(path) or self._paths.get(composed(path), "")

    def find(self, video: Video, taken: Collection[str]) -> str:
        """The video's file by its spellings, the likeliest first; "" when there is none that is not `taken`.

        RequestError when several different files have the name.
        """
        return self._find(video, taken, self._by_name, lambda name: name)

    def find_whatever_case(self, video: Video, taken: Collection[str]) -> str:
        """The same where only capitals differ."""
        path = self._find(video, taken, self._by_lower_name, str.lower)
        if path:
            self.cases.append(f"{path} for {video.id!r}")
        return path

    def _find(
        self, video: Video, taken: Collection[str], names: Mapping[str, list[str]], spelled: Callable[[str], str]
    ) -> str:
        for spelling in video.names or (video.id,):
            name = spelled(composed(spelling).rpartition("/")[2])
            for one in (name, id_of(name), f"{id_of(name)}_trimmed"):
                hits = [path for path in names.get(one, ()) if path not in taken]
                if hits:
                    return hits[0] if len(hits) == 1 else self._choose(video, hits)
        return ""

    @cached_property
    def _by_lower_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, paths in self._by_name.items():
            found.setdefault(name.lower(), []).extend(paths)
        return found

    def _choose(self, video: Video, hits: Sequence[str]) -> str:
        """Of several files of one name the one whose folders agree best with the annotation's path; of these the first by
        VIDEO_ENDINGS, if they lie side by side; or any of equal ones."""
        agree = [_common_tail(video.path, path) for path in hits]
        best = [path for path, count in zip(hits, agree, strict=True) if count == max(agree)]
        if len({path.rpartition("/")[0] for path in best}) == 1:
            best.sort(
                key=lambda path: VIDEO_ENDINGS.index(ending) if (ending := ending_of(path)) in VIDEO_ENDINGS else -1
            )
            if len({*map(ending_of, best[:2])}) > 1:
                self.choices.append(f"{best[0]}, not {', '.join(best[1:])}")
                return best[0]
        if len({(self.root / path).stat().st_size for path in best}) > 1:
            raise RequestError(
                f"video {video.id!r} has {len(best)} different files in {self.root}: {some(best)}. Choose one of their "
                "folders with videos=; of files in one folder, rename or remove the others"
            )
        return best[0]


def _common_tail(one: str, other: str) -> int:
    """How many folders two paths share, from the file upwards."""
    count = 0
    for left, right in zip(reversed(one.split("/")[:-1]), reversed(other.split("/")[:-1]), strict=False):
        if left != right:
            break
        count += 1
    return count


def locate(benchmark: Benchmark, inventory: Inventory, needs: Collection[SplitName], *, allow_missing: bool) -> Located:
    """Find every video, count, and refuse needed splits that lack some unless that is allowed. RequestError for the user."""
    index = VideoIndex(inventory)
    found = _found_files(benchmark, index)
    benchmark = replace(benchmark, differences=(*benchmark.differences, *_described(index, inventory)))
    return _counted(benchmark, inventory.root, found, needs, allow_missing=allow_missing)


def locate_stored(
    benchmark: Benchmark, store: str, ids: Collection[str], needs: Collection[SplitName], *, allow_missing: bool
) -> Located:
    """The same of videos whose frames lie in a store, which has those of `ids`."""
    found = {video.id: video.id for split in benchmark.splits.values() for video in split.videos if video.id in ids}
    return _counted(benchmark, Path(store), found, needs, allow_missing=allow_missing)


def _found_files(benchmark: Benchmark, index: VideoIndex) -> dict[str, str]:
    """File by video id: first those that lie where their annotation says, then the others by name, at last in any case."""
    videos = [video for split in benchmark.splits.values() for video in split.videos]
    found = {video.id: path for video in videos if (path := index.exact(video))}
    taken = set(found.values())
    for find in (index.find, index.find_whatever_case):
        for video in videos:
            if video.id not in found and (path := find(video, taken)):
                found[video.id] = path
                taken.add(path)
    return found


def _described(index: VideoIndex, inventory: Inventory) -> Iterator[str]:
    """What there is to say of the files of a folder."""
    if index.choices:
        yield (
            f"{len(index.choices):,} videos have files of several endings side by side, of which the first of "
            f"{', '.join(VIDEO_ENDINGS[:5])}, ... is taken: {some(index.choices)}"
        )
    if index.cases:
        yield f"{len(index.cases):,} videos are found by names whose capitals differ: {some(index.cases)}"
    if others := inventory.others((*(ending[1:] for ending in ANNOTATION_ENDINGS), "zip")):
        yield f"{others}: no videos that are read here"


def _counted(
    benchmark: Benchmark,
    root: Path,
    found: Mapping[str, str],
    needs: Collection[SplitName],
    *,
    allow_missing: bool,
) -> Located:
    missing = {
        name: tuple(video.id for video in split.videos if video.id not in found)
        for name, split in benchmark.splits.items()
    }
    table = _table(benchmark, missing)
    refused = [name for name in benchmark.splits if name in needs and missing[name]]
    empty = [name for name in refused if len(missing[name]) == len(benchmark.splits[name].videos)]
    if empty or (refused and not allow_missing):
        raise RequestError(_refusal(benchmark, root, missing, refused, empty, table))
    paths = {name: root / path for name, path in found.items()}
    return Located(_without(benchmark, "train", missing), paths, missing, table)


def _without(benchmark: Benchmark, name: SplitName, missing: Mapping[SplitName, tuple[str, ...]]) -> Benchmark:
    """The benchmark whose split NAME has no missing videos any more; the count is told among its differences."""
    if not missing.get(name):
        return benchmark
    split, gone = benchmark.splits[name], set(missing[name])
    kept = replace(split, videos=tuple(video for video in split.videos if video.id not in gone))
    splits: dict[SplitName, Split] = {**benchmark.splits, name: kept}
    said = f"{name}: {len(gone):,} of {len(split.videos):,} videos are missing, and dropped"
    return replace(benchmark, splits=splits, differences=(*benchmark.differences, said))


def _table(benchmark: Benchmark, missing: Mapping[SplitName, tuple[str, ...]]) -> str:
    head = ("split", "published", "listed", "captions", "found", "missing")
    rows = [head]
    for name, split in benchmark.splits.items():
        published = str(split.published[0]) if split.published else "-"
        captions = f"{split.captions:,}" if benchmark.protocol.task != "recognition" else "-"
        listed, gone = len(split.videos), len(missing[name])
        rows.append((name, published, f"{listed:,}", captions, f"{listed - gone:,}", f"{gone:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _refusal(
    benchmark: Benchmark,
    root: Path,
    missing: Mapping[SplitName, tuple[str, ...]],
    refused: Sequence[SplitName],
    empty: Sequence[SplitName],
    table: str,
) -> str:
    lines = [
        f"{name}: {len(missing[name]):,} of {len(benchmark.splits[name].videos):,} videos are not in {root}: "
        f"{some(missing[name])}"
        for name in refused
    ]
    lines.append(f"(looked for by name at any depth, as {', '.join(VIDEO_ENDINGS)})")
    if empty:
        lines.append(f"None of {empty[0]} is there: is it the right folder? Name another with videos=")
    else:
        lines.append(
            "Add them, or go on with allow_missing=true: a missing video then counts as a miss in the test, and is left out "
            "of training"
        )
    return f"{benchmark.protocol.title}: videos are missing\n{table}\n" + "\n".join(lines)
