"""What can be indexed: a folder of video files, or a data set of clip shards. Both list entries, and give their frames."""

from __future__ import annotations

import logging
import mimetypes
import os
import stat
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stillreel.configs import DataError, RequestError
from stillreel.configs.stream import DataSettings
from stillreel.configs.system.storage import Folder
from stillreel.configs.video import VideoOptions, VideoSettings
from stillreel.finetune.benchmarks.files import Inventory
from stillreel.finetune.search.store import Entry
from stillreel.pretrain.data.film import Filmer, View
from stillreel.pretrain.video import VideoError, VideoReader
from stillreel.pretrain.video.errors import Flaw
from stillreel.shards.format.containers import VIDEO_ENDINGS
from stillreel.shards.format.manifest import MANIFEST
from stillreel.shards.format.sample import decode_members
from stillreel.shards.stream.corpus import CATALOG, Corpus, open_corpus
from stillreel.shards.stream.faults import BadShard
from stillreel.shards.stream.reader import Found, Place, SampleReader
from stillreel.shards.stream.stream import Blend, Sample

_log = logging.getLogger(__name__)
_FPS = 3  # of a clip whose data set does not say how fast its frames go
_ATTEMPTS = 4  # of a read that storage does not answer


class Filmed(NamedTuple):
    """T frames of an entry, of which `mask` holds; when they are shown, in seconds; and what is wrong nevertheless."""

    frames: NDArray[np.uint8]  # (T, H, W, 3)
    mask: NDArray[np.bool_]  # (T,)
    times: NDArray[np.float64]  # (K,), K = mask.sum()
    end: float
    flaws: tuple[Flaw, ...]


class OpenFile(NamedTuple):
    """A file that is open, so that it stays the one that it was when it was looked at; and its media type."""

    handle: int
    kind: str

    @property
    def path(self) -> Path:
        return Path(f"/dev/fd/{self.handle}")

    def close(self) -> None:
        os.close(self.handle)


class VideoFolder:
    """Every video file under a folder."""

    def __init__(self, root: str, settings: VideoSettings) -> None:
        self.root = str(Path(root).expanduser().absolute())
        self._reader = VideoReader(settings)

    def survey(self) -> list[Entry]:
        """The files by path, as they are now. RequestError where there are none."""
        found = []
        inventory = Inventory(self.root, "VIDEOS")
        for name in inventory.videos:
            try:
                about = Path(self.root, name).stat()
                found.append(Entry(name, about.st_size, about.st_mtime_ns))
            except OSError:  # a link to nowhere, or removed a moment ago: reading says it
                found.append(Entry(name, -1, -1))
        others = inventory.others()
        if not found:
            raise RequestError(
                f"{self.root} holds no videos: no file there ends in {', '.join(VIDEO_ENDINGS)}"
                f"{f' ({others})' if others else ''}; nor is it a data set of clips, which has {MANIFEST} or {CATALOG}"
            )
        if others:
            _log.info(f"{self.root}: {others}: passed over, as none of {', '.join(VIDEO_ENDINGS)}")
        return found

    def read(self, entry: Entry, file: OpenFile | None = None) -> Filmed:
        """The frames of a file, which may be open already. VideoError where it gives none."""
        clip = self._reader.read(file.path if file else Path(self.root, entry.path))
        return Filmed(clip.frames, clip.mask, clip.times, clip.end, clip.flaws)

    def file(self, entry: Entry) -> OpenFile | None:
        """The file that was indexed, for the caller to close. DataError where it is another one by now, or lies elsewhere."""
        where = PurePosixPath(entry.path)
        if where.is_absolute() or ".." in where.parts:
            raise DataError(f"{entry.path}: the index names a file outside of its folder")
        try:
            handle = _open_beneath(self.root, where.parts)
        except OSError:
            raise DataError(f"{entry.path} is not there any more, or is or lies behind a link") from None
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or (about.st_size, about.st_mtime_ns) != (entry.size, entry.version):
            os.close(handle)
            raise DataError(f"{entry.path} has changed since it was indexed")
        kind = mimetypes.guess_type(where.name)[0] or ""
        return OpenFile(handle, kind if kind.startswith("video/") else "application/octet-stream")


def _open_beneath(root: str, parts: tuple[str, ...]) -> int:
    """A file under a folder, opened for reading without following links. OSError where there is one on the way."""
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for number, part in enumerate(parts, 1):
        above, kind = at, os.O_DIRECTORY if number < len(parts) else os.O_NONBLOCK
        try:
            at = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | kind, dir_fd=above)
        finally:
            os.close(above)
    return at


class ClipShards:
    """Every sample of a data set of clips, by tar and key: one of ours, or foreign tars with a catalog."""

    def __init__(self, root: str, settings: VideoSettings) -> None:
        self._corpus: Corpus = open_corpus(root)
        self.root = self._corpus.url
        if any(plan["settings"].get("kind") for plan in self._corpus.plans):
            raise RequestError(f"{root} holds frames that `finetune prepare=true` stored; index the videos themselves")
        self._blend = Blend((self._corpus,), (1.0,))
        self._view = View("", settings.frames, settings.size)
        self._options = VideoOptions.model_validate(settings.model_dump(include=set(VideoOptions.model_fields)))

    def survey(self) -> list[Entry]:
        """The samples by path; `version` is the beginning of their digest. A shard that cannot be listed is one entry."""
        found = []
        for number, shard in enumerate(self._corpus.shards):
            index = self._reader.index(number)
            if isinstance(index, BadShard):
                found.append(Entry(shard.tar, -1, -1))
                continue
            for sample in index:
                version = int.from_bytes(sample.sha256[:8], "little", signed=True)
                found.append(Entry(f"{shard.tar}/{sample.key}", sample.length, version))
        return sorted(found)

    def read(self, entry: Entry, file: OpenFile | None = None) -> Filmed:
        """The frames of a sample, which is no file. VideoError where it is damaged."""
        place = self._places.get(entry.path)
        if place is None:
            shards = (n for n, shard in enumerate(self._corpus.shards) if entry.path.startswith(shard.tar))
            bad = self._reader.index(next(shards, 0))
            raise VideoError(entry.path, "corrupt", str(bad) if isinstance(bad, BadShard) else "no such sample")
        (found,) = self._reader.read([place])
        if not isinstance(found, Found):
            raise VideoError(entry.path, "corrupt", str(found))
        frames = np.zeros((self._view.frames, self._view.size, self._view.size, 3), np.uint8)
        try:
            sample = Sample(0, found.key, None, decode_members(found.key, found.members))
            video = self._filmer.film(sample, 0, view=self._view, frames=frames[None]).video
        except DataError as error:
            raise VideoError(entry.path, "corrupt", str(error)) from None
        count, fps = len(frames), self._fps
        if video is not None:
            mask = np.arange(count) < video.frames
            flaws = tuple(Flaw(*flaw.split(": ", 1)) for flaw in video.flaws)
            return Filmed(frames, mask, np.array(video.times), video.end, flaws)
        return Filmed(frames, np.ones(count, np.bool_), np.arange(count) / fps, count / fps, ())

    def file(self, entry: Entry) -> OpenFile | None:
        """None: a clip is rendered, and is no file."""
        return None

    @cached_property
    def _reader(self) -> SampleReader:
        return SampleReader(self._corpus, None, _ATTEMPTS)

    @cached_property
    def _filmer(self) -> Filmer:
        frames, size = self._view.frames, self._view.size
        return Filmer(self._blend, DataSettings(frames=frames, size=size, context_length=0, video=self._options))

    @cached_property
    def _places(self) -> dict[str, Place]:
        places: dict[str, Place] = {}
        for number, shard in enumerate(self._corpus.shards):
            index = self._reader.index(number)
            if not isinstance(index, BadShard):
                places |= {f"{shard.tar}/{one.key}": Place(number, at) for at, one in enumerate(index)}
        return places

    @property
    def _fps(self) -> int:
        return next((int(plan["settings"].get("fps", _FPS)) for plan in self._corpus.plans), _FPS)


Source = VideoFolder | ClipShards


def open_source(root: str, settings: VideoSettings) -> Source:
    """The data set of clips at a path or URL, if there is one, else the folder of videos. RequestError for neither."""
    folder = Folder(root)
    if folder.exists(MANIFEST) or folder.exists(CATALOG):
        return ClipShards(root, settings)
    if not folder.is_local:
        raise RequestError(f"{root}: videos must lie on a disk; data sets of clips may lie anywhere")
    return VideoFolder(folder.path, settings)
