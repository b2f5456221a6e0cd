"""A held-out set, read from its first sample to its last in batches that do not depend on who reads them.

Batch k is samples k * batch ... of those that are read, whatever the ranks and workers: so a clip meets the same clips in the
encoder, and its features are the same to the bit. All batches are full; a slot that has no whole sample is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stillreel.animate.render.device import Still, StillBatch, batch_stills
from stillreel.configs import DataError, StillreelError
from stillreel.configs.stream import DataSettings
from stillreel.configs.system.storage import Folder
from stillreel.pretrain.data.film import Filmer, View
from stillreel.pretrain.data.together import Failure
from stillreel.shards.format.sample import decode_members
from stillreel.shards.stream.cache import ShardCache
from stillreel.shards.stream.faults import BadSample, BadShard
from stillreel.shards.stream.order import Ints, permutation
from stillreel.shards.stream.reader import Found, Place, SampleReader
from stillreel.shards.stream.stream import Blend, Sample


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

    def make(self, spots: Sequence[Spot], batch: int) -> HeldOutBatch:
        frames = empty_frames(batch, self._view) if self._renders else None
        whole, captions = [False] * batch, [""] * batch
        stills: list[Still] = []
        damage: list[str] = []
        for slot, (spot, answer) in enumerate(zip(spots, self._read(spots), strict=True)):
            try:
                sample = _opened(answer, spot.corpus)
                if frames is not None:
                    captions[slot] = self._filmer.film(sample, self._view, frames[slot].numpy()).caption
                else:
                    still, told = self._filmer.prepare(sample, self._view, slot)
                    captions[slot] = told.caption
                    stills.append(still)
                whole[slot] = True
            except DataError as error:
                damage.append(self._name(spot, answer, error))
                if frames is not None:
                    frames[slot] = 0
        return HeldOutBatch(whole, captions, frames, batch_stills(stills) if stills else None, damage)

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
    # Recipes that are drawn anew are those of epoch 0, at every evaluation.
    return Sample(corpus, answer.key, 0, decode_members(answer.key, answer.members))


def empty_frames(batch: int, view: View) -> Tensor:
    """Black frames uint8 (B, T, H, W, 3)."""
    return torch.zeros((batch, view.frames, view.size, view.size, 3), dtype=torch.uint8)
