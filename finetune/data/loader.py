"""Videos and their captions as training reads them: batches by position, the same for any ranks and workers.

    consumed = 1280, a batch of 128, rank 1 of 2
        | slots of the global batch, dealt in turn
    positions 1281, 1283, ...                       position p is pair p mod N of epoch p // N's permutation
        |
    pair (video7010, its 3rd caption)               all captions of all videos are the N pairs
        | decode; frames that are drawn are drawn by (seed, video, epoch)
    a row of a ClipBatch

So the state of a run is its step. A slot whose video is damaged gets what lies _STAND_IN positions later, and so on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from stillreel.configs import RequestError
from stillreel.configs.finetune import FinetuneSettings, ViewSettings
from stillreel.configs.prompts import templates_of
from stillreel.configs.settings import canonical_json
from stillreel.finetune.benchmarks import Located, SplitName
from stillreel.finetune.benchmarks.classes import plain
from stillreel.finetune.data.clips import Clip, Draws, empty_clips, fill_clip
from stillreel.finetune.data.store import FrameStore, open_source
from stillreel.pretrain.data import BatchDataset, BatchLoader, BatchMaker, ClipBatch, Share, View
from stillreel.pretrain.data.identity import identify
from stillreel.pretrain.data.tokens import CLIPS_OWN, Tokenizer, count_cut
from stillreel.pretrain.video import Span, VideoError
from stillreel.shards.stream.faults import BadSample, Budget, fill_slots
from stillreel.shards.stream.order import Ints, permutation
from stillreel.shards.stream.stream import State, slots_of

_STAND_IN = 509  # positions; a prime, so that a small set's differ


class Pair(NamedTuple):
    """A video with one of its captions. `key` is the pair's own, `source` that of its video."""

    key: str
    source: str
    clip: Clip
    caption: str


def clips_of(located: Located, name: SplitName) -> list[Clip]:
    """The videos of a split, as they are to be read."""
    return [
        Clip(video.id, located.paths.get(video.id), Span(*video.span) if video.span else None)
        for video in located.benchmark.splits[name].videos
    ]


def pairs_of(located: Located, name: SplitName, prompt: str) -> list[Pair]:
    """All pairs of a split that has all its videos: each with each of its captions, or with the text of its class."""
    pairs = []
    for video, clip in zip(located.benchmark.splits[name].videos, clips_of(located, name), strict=True):
        texts = video.captions
        if video.label is not None:
            texts = (class_text(located.benchmark.labels[video.label], prompt),)
        pairs += [Pair(f"{video.id}#{number}", video.id, clip, text) for number, text in enumerate(texts)]
    return pairs


def describe_cut(pairs: Sequence[Pair], words: int, tokenizer: Tokenizer) -> str:
    """How many of their captions are cut at the context length."""
    captions = [pair.caption for pair in pairs]
    cut = count_cut(captions, words, tokenizer)
    return f"train: {cut:,} of {len(captions):,} captions are longer than {words} tokens, and cut"


def draws_of(settings: FinetuneSettings) -> Draws:
    """What training draws of its videos."""
    return Draws(settings.seed, crops=settings.crop == "random")


def instants_of(views: ViewSettings) -> list[float | None]:
    """Of each part of a video, for the clips along time that a test averages; None is the sampler's own."""
    if views.segments == 1:
        return [None]
    return [(number + 0.5) / views.segments for number in range(views.segments)]


def class_text(label: str, prompt: str) -> str:
    """What is said of a class; of an ensemble the first.

    >>> class_text("Moving [something] up", "a video of {}.")
    'a video of moving something up.'
    """
    return templates_of(prompt)[0].replace("{}", plain(label))


def start_state(pairs: Sequence[Pair], seed: int, together: int = 1) -> State:
    """Of a run that has read nothing of these pairs."""
    named: list[object] = [seed, [(pair.key, pair.caption) for pair in pairs]]
    named += [together] if together > 1 else []  # a checkpoint from before there was the setting goes on
    return State(0, 0, int(hashlib.sha256(canonical_json(named)).hexdigest()[:16], 16) >> 1)


def pair_loader(
    pairs: Sequence[Pair],
    settings: FinetuneSettings,
    share: Share,
    state: State,
    steps: int,
    *,
    store: FrameStore | None = None,
    pin_memory: bool = False,
    tokenizer: Tokenizer = CLIPS_OWN,
) -> BatchLoader:
    """Batches from `state` on. RequestError when the state is of other pairs or another seed."""
    if state.fingerprint != start_state(pairs, settings.seed, settings.together).fingerprint:
        raise RequestError(
            "the checkpoint is of other training pairs or another seed, or they were together otherwise: videos were added or "
            "removed, or captions have changed. Go on with what it was trained on, or give another OUT to start anew"
        )
    return BatchLoader(
        PairDataset(pairs, settings, share, state, steps, store, tokenizer),
        Budget(settings.max_bad, settings.max_bad_run),
        workers=settings.workers,
        pin_memory=pin_memory,
    )


class PairDataset(BatchDataset):
    """Batches of pairs."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        settings: FinetuneSettings,
        share: Share,
        state: State,
        steps: int | None,
        store: FrameStore | None = None,
        tokenizer: Tokenizer = CLIPS_OWN,
    ) -> None:
        super().__init__(share, state, steps)
        tokenizer([""], settings.context_length)  # loads the vocabulary now, once: forked workers have it then
        self._pairs, self._settings, self._store = pairs, settings, store
        self._tokenizer = tokenizer

    def open(self) -> BatchMaker:
        return _PairMaker(self._pairs, self._settings, self.share, self._store, self._tokenizer)


class _PairMaker:
    """Makes batches in one process."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        settings: FinetuneSettings,
        share: Share,
        store: FrameStore | None,
        tokenizer: Tokenizer,
    ) -> None:
        self._tokenizer = tokenizer
        self._pairs, self._settings, self._share = pairs, settings, share
        self._source = open_source(settings.video_settings(), store, draws_of(settings))
        self._orders: dict[int, Ints] = {}  # of the latest epochs

    def make(self, step: int, consumed: int) -> ClipBatch:
        positions = slots_of(consumed, *self._share)
        video = self._settings.video_settings()
        frames, mask = empty_clips(len(positions), video)

        def read(rows: list[int], places: Ints) -> list[tuple[Pair, list[str]] | BadSample]:
            return [self._read(place, frames[row], mask[row]) for row, place in zip(rows, places.tolist(), strict=True)]

        filled = fill_slots(positions, _STAND_IN, read)
        found = [pair for (pair, _), _ in filled]
        whole = [not passed for _, passed in filled]
        damage = [text for (_, flaws), passed in filled for text in (*map(str, passed), *flaws)]
        keys, captions, sources = zip(*((pair.key, pair.caption, pair.source) for pair in found), strict=True)
        return ClipBatch(
            step,
            list(keys),
            list(captions),
            list(sources),
            self._tokenizer(captions, self._settings.context_length),
            frames,
            None,
            View("", video.frames, video.size),
            whole,
            damage,
            identify(keys, captions, sources, seed=self._settings.seed, step=step),
            mask,
        )

    def _read(self, position: int, frames: torch.Tensor, mask: torch.Tensor) -> tuple[Pair, list[str]] | BadSample:
        """The pair at a position and what is wrong with its file nevertheless; or why it has no frame."""
        epoch, place = divmod(position, len(self._pairs))
        pair = self._pairs[int(self._order(epoch)[place])]
        try:
            return pair, fill_clip(self._source, pair.clip, frames.numpy(), mask.numpy(), epoch)
        except VideoError as trouble:
            return BadSample(trouble.file, pair.source, f"{trouble.reason}: {trouble.detail}")

    def _order(self, epoch: int) -> Ints:
        if epoch not in self._orders:
            while len(self._orders) > 3:
                del self._orders[min(self._orders)]
            self._orders[epoch] = order_of(len(self._pairs), self._settings, epoch)
        return self._orders[epoch]


def order_of(pairs: int, settings: FinetuneSettings, epoch: int) -> Ints:
    """Numbers of the pairs in the order of an epoch: a permutation of runs of `together`, each in the order of the list."""
    size = settings.together
    runs = permutation(-(-pairs // size), settings.seed, "pairs", epoch)
    order: Ints = (runs[:, None] * size + np.arange(size)).ravel()
    return order[order < pairs]
