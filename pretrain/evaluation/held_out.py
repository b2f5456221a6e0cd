"""A held-out set of clip shards, read from its first sample to its last in batches that do not depend on who reads them.

Batch k is samples k * batch ... of those that are read, whatever the ranks and workers: so a clip meets the same clips in the
encoder, and its features are the same to the bit. All batches are full; a slot that has no whole sample is empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stillreel.animate.render.device import Still, StillBatch, batch_stills, render_stills
from stillreel.configs import DataError, RequestError, StillreelError
from stillreel.configs.stream import DataSettings
from stillreel.configs.system.storage import Folder
from stillreel.pretrain.data.dataset import frame_mask
from stillreel.pretrain.data.film import Filmer, View
from stillreel.pretrain.data.together import Failure, Together
from stillreel.pretrain.data.workers import load_batches
from stillreel.pretrain.evaluation.evaluator import EvalBatch, EvalProtocol, Evaluator
from stillreel.pretrain.video.beside import Shown
from stillreel.shards.format.sample import decode_members
from stillreel.shards.stream.cache import ShardCache
from stillreel.shards.stream.faults import BadSample, BadShard
from stillreel.shards.stream.order import Ints, permutation
from stillreel.shards.stream.reader import Found, Place, SampleReader
from stillreel.shards.stream.stream import Blend, Sample


def held_out_evaluator(
    blend: Blend,
    settings: DataSettings,
    *,
    together: Together,
    batch: int = 64,
    limit: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
) -> Evaluator:
    """Retrieval among the clips of a held-out set, to be asked for again and again while a model trains.

    `batch` clips are encoded at once on a rank; at most `limit` clips (0: all) are read, the first of a permutation that the
    seed draws. Of `settings` counts what makes a clip of a sample, what is forgiven, `context_length` and the seed; curriculum,
    lanes and window do not, so that figures of different steps can be compared. `fresh` recipes are those of epoch 0.
    """
    if batch < 1 or limit < 0:
        raise RequestError(f"batch={batch}, limit={limit}: expected at least 1 clip a batch, and 0 (all) clips or more")
    protocol = EvalProtocol(
        name="held-out set",
        context_length=settings.context_length,
        max_bad=settings.max_bad,
        max_bad_run=settings.max_bad_run,
    )
    clips = HeldOutClips(blend, settings, choose_samples(blend, settings.seed, limit), batch, workers, pin_memory)
    return Evaluator(clips, protocol, together=together)


class HeldOutClips:
    """As an evaluator reads them: with their captions, and rendered on the model's device if they were not before."""

    def __init__(
        self, blend: Blend, settings: DataSettings, spots: Sequence[Spot], batch: int, workers: int, pin_memory: bool
    ) -> None:
        self.count, self.batch = len(spots), batch
        self._view = View(settings.grammar, settings.frames, settings.size)
        data = HeldOutDataset(blend, settings, spots, batch)
        self._load = partial(load_batches, data, workers=workers, pin_memory=pin_memory)

    def read(self, numbers: range, device: torch.device) -> Iterator[EvalBatch]:
        for read in self._load(order=numbers):
            if isinstance(read, Failure):
                raise read.error()
            yield EvalBatch(self._frames_of(read, device), read.mask, read.whole, read.damage, read.captions)

    def blank(self) -> EvalBatch:
        return EvalBatch(empty_frames(self.batch, self._view), None, [False] * self.batch, [], [""] * self.batch)

    def _frames_of(self, read: HeldOutBatch, device: torch.device) -> Tensor:
        if read.frames is not None:
            return read.frames
        frames = empty_frames(self.batch, self._view).to(device)
        if read.stills is not None:
            frames[torch.tensor(read.whole, device=device)] = render_stills(read.stills, device)
        return frames


class Spot(NamedTuple):
    """Where a sample lies."""

    corpus: int
    place: Place


def choose_samples(blend: Blend, seed: int, limit: int) -> list[Spot]:
    """All samples of a blend in the order of their tars, or the first `limit` of a permutation that the seed draws (0: all).

    A smaller limit's samples are among those of a larger one. Weights do not enter.
    """
    sizes = [
        (corpus, at, shard.samples) for corpus, one in enumerate(blend.corpora) for at, shard in enumerate(one.shards)
    ]
    ends = np.cumsum([size for _, _, size in sizes])
    total = int(ends[-1])
    chosen: Ints = np.arange(total) if not 0 < limit < total else np.sort(permutation(total, seed, "held out")[:limit])
    within = np.searchsorted(ends, chosen, side="right")
    return [
        Spot(sizes[at][0], Place(sizes[at][1], int(number - ends[at] + sizes[at][2])))
        for number, at in zip(chosen.tolist(), within.tolist(), strict=True)
    ]


class HeldOutBatch(NamedTuple):
    """B slots. Of a slot that is not `whole` the frames are black, the caption is empty, and `stills` has nothing."""

    whole: list[bool]
    captions: list[str]
    frames: Tensor | None  # uint8 (B, T, H, W, 3)
    stills: StillBatch | None  # of the whole slots, in their order, for the device to render; None: there are none
    damage: list[str]  # what is wrong with those that were read and are not whole
    mask: Tensor | None = None  # bool (B, T): where there is a frame; None: everywhere


class HeldOutDataset(Dataset[HeldOutBatch | Failure]):
    """Batches by number. Holds settings only, so it can be sent to workers of any start method; each opens the set for itself."""

    def __init__(self, blend: Blend, settings: DataSettings, spots: Sequence[Spot], batch: int) -> None:
        cv2.setNumThreads(1)  # its threads do not survive a fork, see ClipDataset
        self._blend = blend
        self._settings = settings
        self._spots = spots
        self._batch = batch
        self._maker: _BatchMaker | None = None

    def __len__(self) -> int:
        return -(-len(self._spots) // self._batch)

    def __getitem__(self, number: int) -> HeldOutBatch | Failure:
        try:
            self._maker = self._maker or _BatchMaker(self._blend, self._settings)
            spots = self._spots[number * self._batch : (number + 1) * self._batch]
            return self._maker.make(spots, self._batch)
        except StillreelError as error:
            return Failure(type(error), str(error))


class _BatchMaker:
    """Makes batches in one process."""

    def __init__(self, blend: Blend, settings: DataSettings) -> None:
        cache = None
        if settings.cache:
            cache = ShardCache(settings.cache, int(settings.cache_gb * 1e9), settings.attempts)
        self._readers = [SampleReader(corpus, cache, settings.attempts) for corpus in blend.corpora]
        self._where = [Folder(corpus.tars).url for corpus in blend.corpora]
        self._filmer = Filmer(blend, settings)
        self._view = View(settings.grammar, settings.frames, settings.size)
        self._renders = settings.render == "loader"
        self._masks = self._renders and any(corpus.is_foreign for corpus in blend.corpora)

    def make(self, spots: Sequence[Spot], batch: int) -> HeldOutBatch:
        frames = empty_frames(batch, self._view) if self._renders else None
        whole, captions = [False] * batch, [""] * batch
        videos: list[Shown | None] = [None] * batch
        stills: list[Still] = []
        damage: list[str] = []
        for slot, (spot, answer) in enumerate(zip(spots, self._read(spots), strict=True)):
            try:
                sample = _opened(answer, spot.corpus)
                if frames is not None:
                    told = self._filmer.film(sample, slot, view=self._view, frames=frames.numpy())
                else:
                    still, told = self._filmer.prepare(sample, slot, view=self._view)
                    stills.append(still)
                captions[slot], videos[slot] = told.caption, told.video
                whole[slot] = True
            except DataError as error:
                damage.append(self._name(spot, answer, error))
                if frames is not None:
                    frames[slot] = 0
        mask = frame_mask(videos, self._view.frames) if self._masks else None
        return HeldOutBatch(whole, captions, frames, batch_stills(stills) if stills else None, damage, mask)

    def _read(self, spots: Sequence[Spot]) -> list[Found | BadSample | BadShard]:
        answers: dict[Spot, Found | BadSample | BadShard] = {}
        for corpus in {spot.corpus for spot in spots}:
            mine = [spot for spot in spots if spot.corpus == corpus]
            answers.update(zip(mine, self._readers[corpus].read([spot.place for spot in mine]), strict=True))
        return [answers[spot] for spot in spots]

    def _name(self, spot: Spot, answer: Found | BadSample | BadShard, error: DataError) -> str:
        if isinstance(answer, Found):
            return str(BadSample(self._where[spot.corpus], answer.key, str(error)))
        return f"sample {spot.place.sample} of {answer}" if isinstance(answer, BadShard) else str(answer)


def _opened(answer: Found | BadSample | BadShard, corpus: int) -> Sample:
    if not isinstance(answer, Found):
        raise answer
    # Recipes that are drawn anew are those of epoch 0, at every evaluation; of videos nothing is drawn.
    return Sample(corpus, answer.key, None, decode_members(answer.key, answer.members))


def empty_frames(batch: int, view: View) -> Tensor:
    """Black frames uint8 (B, T, H, W, 3)."""
    return torch.zeros((batch, view.frames, view.size, view.size, 3), dtype=torch.uint8)
