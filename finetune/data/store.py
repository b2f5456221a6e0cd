"""Frames of a benchmark's videos in shards: what prepare=true writes, and finetuning streams instead of decoding videos.

    KEY.000.jpg ...   each frame that a clip of the video may take, its short side `size`, in the order of the video
    KEY.json          which frames: {"video", "file", "numbers", "times", "flaws", "test": [positions of a clip, a view each],
                      "train": [positions of a clip, a draw each]}

A sample is found by its video's id in the plan, and read by the shard's index alone, so a store may lie in a bucket. Crops are
cut when a clip is read. In training an epoch takes the next of the draws that were stored, and after the last the first again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from stillreel.configs import DataError, RequestError
from stillreel.configs.system.claims import Damaged, damage_of, parse_json
from stillreel.configs.system.storage import Folder
from stillreel.configs.video import VideoSettings
from stillreel.finetune.data.clips import AT_TEST, Clip, ClipSource, Draws, FileSource, dice_of
from stillreel.pretrain.video import VideoClip, VideoError, View
from stillreel.pretrain.video.errors import TROUBLES, Flaw
from stillreel.pretrain.video.pixels import Fit, cropped, fitted, square
from stillreel.pretrain.video.reader import filled, shuffled
from stillreel.shards.format.receipt import part_file
from stillreel.shards.format.record import WRITTEN, read_table
from stillreel.shards.stream.corpus import Corpus, open_corpus
from stillreel.shards.stream.faults import BadSample, BadShard
from stillreel.shards.stream.reader import Found, Place, SampleReader

KIND = "frames of videos"
# Settings of reading that decide which frames are stored, and how.
KEPT = ("sampler", "frames", "size", "per_second", "slice", "every", "square_pixels")
_FILTER = {"interpolation": "bicubic"}  # what a store that says nothing of it was stored by

_ATTEMPTS = 5
_THREADS = 16  # tables are small files, often on a network


@dataclass(frozen=True)
class FrameStore:
    """An OUT of prepare=true: where each video's sample lies, and why the others have none."""

    corpus: Corpus
    settings: Mapping[str, Any]
    places: Mapping[str, Place] = field(repr=False)
    rejected: Mapping[str, str] = field(repr=False)

    @property
    def videos(self) -> set[str]:
        """Ids of the videos that it knows, damaged ones too."""
        return {*self.places, *self.rejected}

    def check(self, video: VideoSettings, segments: int) -> None:
        """RequestError where frames were stored otherwise than they are asked for."""
        asked = {**kept_settings(video), "segments": segments}
        there = {**_FILTER, **self.settings}
        other = [f"{name} is {there.get(name)} there, {one} here" for name, one in ({**_FILTER, **asked}).items()
                 if there.get(name) != one]  # fmt: skip
        if other:
            raise RequestError(
                f"prepared={self.corpus.url}: its frames were stored otherwise: {'; '.join(other)}. Ask for those, or prepare "
                "others into another OUT"
            )


def kept_settings(video: VideoSettings) -> dict[str, Any]:
    """What of the settings decides which frames are stored."""
    kept = {name: getattr(video, name) for name in KEPT}
    return kept if video.interpolation == _FILTER["interpolation"] else kept | {"interpolation": video.interpolation}


def open_store(url: str) -> FrameStore:
    """The store at a path or URL. RequestError when it is none, DataError when it is damaged."""
    corpus = open_corpus(url)
    if not corpus.plans or corpus.plans[0]["settings"].get("kind") != KIND:
        raise RequestError(
            f"prepared={url} holds no frames of videos; `stillreel finetune ... prepare=true` stores them"
        )
    folder = Folder(corpus.url)
    places: dict[str, Place] = {}
    rejected: dict[str, str] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        tables = pool.map(lambda shard: _rows(folder, shard.tar), corpus.shards)
        for number, rows in enumerate(tables):
            written = [row["source_key"] for row in rows if row["status"] == WRITTEN]
            places |= {video: Place(number, sample) for sample, video in enumerate(written)}
            rejected |= {
                row["source_key"]: f"{row['reason']}: {row['detail']}" for row in rows if row["status"] != WRITTEN
            }
    return FrameStore(corpus, corpus.plans[0]["settings"], places, rejected)


def _rows(folder: Folder, tar: str) -> list[dict[str, Any]]:
    name = part_file(tar.rpartition("/")[2].removesuffix(".tar"), "parquet")
    try:
        table = read_table(folder.read(name), f"{folder.url}/{name}")
    except FileNotFoundError as error:
        raise DataError(f"{folder.url}/{name}: {error}") from None
    rows: list[dict[str, Any]] = table.select(["source_key", "status", "reason", "detail"]).to_pylist()
    return rows


def open_source(settings: VideoSettings, store: FrameStore | None, draws: Draws = AT_TEST) -> ClipSource:
    """Where clips are read from, in the process that calls it."""
    return FileSource(settings, draws) if store is None else StoredSource(settings, store, draws)


class StoredSource:
    """Reads clips from a store, whose own seed has drawn the frames."""

    def __init__(self, settings: VideoSettings, store: FrameStore, draws: Draws = AT_TEST) -> None:
        self._settings, self._store, self._draws = settings, store, draws
        self._samples = SampleReader(store.corpus, None, _ATTEMPTS)
        self._views: list[float | None] = list(store.settings["instants"])

    def read(self, clip: Clip, epoch: int | None) -> VideoClip:
        """VideoError where the store has no frame of it; StorageFailure where storage does not answer."""
        members = self._members(clip.name)
        try:
            with damage_of("no sample of stored frames"):
                told = parse_json(members["json"])
                turns = told["train"]
                chosen = (
                    told["test"][self._views.index(clip.view.instant)] if epoch is None else turns[epoch % len(turns)]
                )
                places = np.array(chosen, np.int64)
                if self._settings.order == "shuffled":
                    dice = None if epoch is None else dice_of(self._store.settings["seed"], clip.name, epoch)
                    places = shuffled(places, dice, told["file"])
                view = self._draws.view(clip, epoch)
                pixels = {place: self._decoded(members[f"{place:03d}.jpg"], view) for place in set(places.tolist())}
                frames, mask = filled(self._settings, [pixels[place] for place in places.tolist()])
                numbers, times = np.array(told["numbers"], np.int64), np.array(told["times"], np.float64)
                flaws, end = tuple(Flaw(*flaw) for flaw in told["flaws"]), float(told["end"])
                return VideoClip(frames, mask, numbers[places], times[places], flaws, end)
        except Damaged as error:
            raise VideoError(self._where(clip.name), "corrupt", str(error)) from None

    def read_crops(self, clips: Sequence[Clip]) -> list[VideoClip]:
        return [self.read(clip, None) for clip in clips]

    def _members(self, video: str) -> Mapping[str, bytes]:
        place = self._store.places.get(video)
        if place is None:
            reason, _, detail = self._store.rejected.get(video, "missing: the store has no frames of it").partition(
                ": "
            )
            raise VideoError(self._where(video), reason if reason in TROUBLES else "corrupt", detail)
        (found,) = self._samples.read([place])
        if isinstance(found, BadSample | BadShard):
            raise VideoError(self._where(video), "corrupt", str(found))
        assert isinstance(found, Found)
        return found.members

    def _where(self, video: str) -> str:
        return f"{self._store.corpus.url}, video {video}"

    def _decoded(self, jpeg: bytes, view: View) -> NDArray[np.uint8]:
        size = self._settings.size
        height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
        if min(height, width) != size:
            raise ValueError(f"a frame of {width} x {height}; expected a short side of {size}")
        pixels = simplejpeg.decode_jpeg(jpeg, "RGB")
        if view.crop is not None:
            return cropped(pixels, size, view.crop)
        fit = Fit.asked(self._settings)
        return square(pixels, size, view.place) if fit.side == "shortest" else fitted(pixels, size, fit)


def positions_in(numbers: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Where each of the frame numbers `wanted` stands among `numbers`, ascending."""
    places: list[int] = np.searchsorted(np.array(numbers, np.int64), np.array(wanted, np.int64)).tolist()
    return places
