"""A rank's share of every global batch, as a torch dataset: each worker makes whole batches, in turn.

    batch of 6, 2 ranks, 2 workers each        slots 0 2 4 are rank 0's, 1 3 5 rank 1's
    rank 0, worker 0: steps 0 2 4 ...          worker 1: steps 1 3 5 ...

The DataLoader takes from its workers in turn, so steps come in order; which worker made one decides nothing in it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple, Protocol

import cv2
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from stillreel.animate.render.device import StillBatch, batch_stills
from stillreel.configs import RequestError, StillreelError
from stillreel.configs.stream import DataSettings
from stillreel.pretrain.data.film import Filmer, Told, View, view_at
from stillreel.pretrain.data.identity import Identity, identify
from stillreel.pretrain.data.together import Failure
from stillreel.pretrain.data.tokens import CLIPS_OWN, Tokenizer
from stillreel.pretrain.video.beside import Shown
from stillreel.shards.stream.stream import Blend, Slot, State, Stream, slots_of


class Share(NamedTuple):
    """Which part of each global batch of `batch` clips a rank has: slots rank, rank + ranks, ..."""

    batch: int
    rank: int = 0
    ranks: int = 1

    def check(self) -> None:
        """RequestError when ranks cannot share a batch evenly: gradients are averaged over ranks, so shares must be equal."""
        if not 0 <= self.rank < self.ranks or self.batch < 1 or self.batch % self.ranks:
            raise RequestError(f"a batch of {self.batch} cannot be shared evenly: rank {self.rank} of {self.ranks}")


class ClipBatch(NamedTuple):
    """A rank's share of a global batch: B clips of T frames.

    `sources` are the sources' own keys of the pictures, `token_ids` int64 (B, L) those of the captions (None: context_length=0).
    `frames` uint8 (B, T, H, W, 3), or `stills`, of which a device makes them. `whole` says of each
    slot whether its own sample was; `damage` names those that were passed over. `mask` bool (B, T) is False where a clip has
    no frame (None: it has all).
    """

    step: int
    keys: list[str]
    captions: list[str]
    sources: list[str]
    token_ids: Tensor | None
    frames: Tensor | None
    stills: StillBatch | None
    view: View
    whole: list[bool]
    damage: list[str]
    identity: Identity
    mask: Tensor | None = None


class BatchMaker(Protocol):
    """Makes batches in one process."""

    def make(self, step: int, consumed: int) -> ClipBatch:
        """The rank's share of the batch of step `step`, which comes after `consumed` samples. Raises StillreelError."""


class BatchDataset(IterableDataset[Any]):
    """Batches of a rank from a state on, without end or for `steps` steps. Give it to a DataLoader with batch_size=None.

    Holds settings only, so it can be sent to workers of any start method; each opens its data for itself.
    """

    def __init__(self, share: Share, state: State, steps: int | None) -> None:
        share.check()
        # OpenCV's threads do not survive a fork, and a worker that tried to end them would wait for ever: end them here.
        cv2.setNumThreads(1)
        self.share = share
        self.state = state
        self._steps = steps

    @abstractmethod
    def open(self) -> BatchMaker:
        """What makes the batches, in the process that calls it."""

    def __iter__(self) -> Iterator[ClipBatch | Failure]:
        info = get_worker_info()
        first, stride = (info.id, info.num_workers) if info else (0, 1)
        try:
            maker = self.open()
            for number in count(first, stride):
                if self._steps is not None and number >= self._steps:
                    return
                consumed = self.state.samples + number * self.share.batch
                yield maker.make(self.state.steps + number, consumed)
        except StillreelError as error:
            yield Failure(type(error), str(error))


class ClipDataset(BatchDataset):
    """Batches of a stream of clip shards."""

    def __init__(
        self,
        blend: Blend,
        settings: DataSettings,
        share: Share,
        state: State,
        steps: int | None,
        tokenizer: Tokenizer = CLIPS_OWN,
    ) -> None:
        super().__init__(share, state, steps)
        if settings.context_length:
            tokenizer([""], settings.context_length)  # loads the vocabulary now, once: forked workers have it then
        blend.check(state, settings.order())
        self._blend = blend
        self._settings = settings
        self._tokenizer = tokenizer

    def open(self) -> BatchMaker:
        return _ClipMaker(self._blend, self._settings, self.share, self._tokenizer)


class _ClipMaker:
    def __init__(self, blend: Blend, settings: DataSettings, share: Share, tokenizer: Tokenizer) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._share = share
        self._stream = Stream(blend, settings)
        self._filmer = Filmer(blend, settings)
        # All ranks have a mask or none has, whatever is in their share.
        self._masks = settings.render == "loader" and any(corpus.is_foreign for corpus in blend.corpora)
        # What lies a quarter of a window ahead is fetched now: then a lane's next shards are there before it needs them.
        self._ahead = settings.lanes * max(settings.window // 4, 1)

    def make(self, step: int, consumed: int) -> ClipBatch:
        positions = slots_of(consumed, *self._share)
        view = view_at(self._settings, step)
        if self._settings.cache:
            self._stream.prefetch(positions + self._ahead)
        if self._settings.render == "loader":
            frames = torch.empty((len(positions), view.frames, view.size, view.size, 3), dtype=torch.uint8)
            filmed = self._stream.read(positions, partial(self._filmer.film, view=view, frames=frames.numpy()))
            return self._batch(step, view, filmed, [slot.value for slot in filmed], frames=frames)
        prepared = self._stream.read(positions, partial(self._filmer.prepare, view=view))
        stills = batch_stills([slot.value[0] for slot in prepared])
        return self._batch(step, view, prepared, [slot.value[1] for slot in prepared], stills=stills)

    def _batch(
        self,
        step: int,
        view: View,
        slots: Sequence[Slot[Any]],
        told: Sequence[Told],
        *,
        frames: Tensor | None = None,
        stills: StillBatch | None = None,
    ) -> ClipBatch:
        keys, captions, sources = (
            [slot.key for slot in slots],
            [one.caption for one in told],
            [one.source for one in told],
        )
        return ClipBatch(
            step,
            keys,
            captions,
            sources,
            self._tokenizer(captions, self._settings.context_length) if self._settings.context_length else None,
            frames,
            stills,
            view,
            [not slot.passed for slot in slots],
            [text for slot, one in zip(slots, told, strict=True) for text in _damage_of(slot, one)],
            identify(keys, captions, sources, seed=self._settings.seed, step=step),
            frame_mask([one.video for one in told], view.frames) if self._masks else None,
        )


def _damage_of(slot: Slot[Any], told: Told) -> list[str]:
    """What was passed over on the way to a slot's clip, and what is wrong with its own video nevertheless."""
    flaws = told.video.flaws if told.video else []
    return [*map(str, slot.passed), *(f"{told.source}: {flaw}" for flaw in flaws)]


def frame_mask(videos: Sequence[Shown | None], frames: int) -> Tensor:
    """Where clips have frames, bool (B, T): everywhere, but for videos that gave fewer."""
    shown = torch.tensor([frames if video is None else video.frames for video in videos])
    return torch.arange(frames) < shown[:, None]
