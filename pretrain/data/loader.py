"""The loader of a rank: batches in order, what the trainer has consumed of them, and a stop of all ranks together."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

from stillreel.configs import DataError, StillreelError
from stillreel.configs.stream import DataSettings
from stillreel.pretrain.data.dataset import BatchDataset, ClipBatch, ClipDataset, Share
from stillreel.pretrain.data.together import Together, take_next
from stillreel.pretrain.data.tokens import CLIPS_OWN, Tokenizer
from stillreel.pretrain.data.workers import PATIENCE_S, load_batches
from stillreel.shards.stream.faults import Budget
from stillreel.shards.stream.stream import Blend, State

_NAMED = 1000  # damaged samples that are kept by name
_SHOWN = 20  # of them logged as they come
_log = logging.getLogger(__name__)


class BatchLoader:
    """Iterate once; `state` is then, at any moment, where another loader goes on after the batches handed out so far.

        for batch in loader:              batch k
            train(batch)
            save(model, loader.state)     batches up to k are consumed; what workers have prefetched is not

    Batches that were handed out count as consumed, so a trainer saves after its step, not before. All ranks make their loaders
    at the same point and take the same number of steps. When one rank's data fail, all ranks raise the same error in the
    same step: DataError over the budget, StorageFailure, RequestError. The budget begins anew with each loader.
    """

    def __init__(
        self,
        dataset: BatchDataset,
        budget: Budget,
        *,
        workers: int = 0,
        start_method: str | None = None,
        pin_memory: bool = False,
        prefetch: int = 2,
    ) -> None:
        """`prefetch` is in batches a worker."""
        self._share = dataset.share
        self._state = dataset.state
        self._read = partial(
            load_batches,
            dataset,
            workers=workers,
            start_method=start_method,
            prefetch=prefetch,
            pin_memory=pin_memory,
        )
        self._together = Together(self._share.ranks, PATIENCE_S)
        self.budget = budget
        self.damage: dict[str, None] = {}  # named once each, in the order in which they were met

    @property
    def state(self) -> State:
        return self._state

    def __iter__(self) -> Iterator[ClipBatch]:
        batches = self._read()
        while True:
            batch, error = self._next(batches)
            if batch is None and error is None:
                return
            read, bad = (len(batch.whole), batch.whole.count(False)) if batch else (0, 0)
            self.budget.count(*self._together.agree((read, bad), error))
            assert batch is not None
            state = self._state
            self._state = state._replace(samples=state.samples + self._share.batch, steps=state.steps + 1)
            yield batch

    def _next(self, batches: Iterator[Any]) -> tuple[ClipBatch | None, StillreelError | None]:
        """The next batch, or why there is none; (None, None) at the end."""
        batch, error = take_next(batches)
        if batch is not None:
            self._name(batch.damage)
            try:
                self.budget.follow(batch.whole)
            except DataError as stopped:
                return None, stopped
        return batch, error

    def _name(self, damage: list[str]) -> None:
        for one in damage:
            if one in self.damage or len(self.damage) >= _NAMED:
                continue
            self.damage[one] = None
            if len(self.damage) <= _SHOWN:
                more = "; later ones are counted only" if len(self.damage) == _SHOWN else ""
                _log.warning(f"damaged, passed over: {one}{more}")


class ClipLoader(BatchLoader):
    """Of a stream of clip shards."""

    def __init__(
        self,
        blend: Blend,
        settings: DataSettings,
        share: Share,
        *,
        workers: int = 0,
        state: State | None = None,
        steps: int | None = None,
        start_method: str | None = None,
        pin_memory: bool = False,
        prefetch: int = 2,
        tokenizer: Tokenizer = CLIPS_OWN,
    ) -> None:
        """`state` of None starts anew; `steps` of None never ends; `prefetch` is in batches a worker."""
        start = state or blend.start(settings.order(), 0, share.batch)
        super().__init__(
            ClipDataset(blend, settings, share, start, steps, tokenizer),
            Budget(settings.max_bad, settings.max_bad_run),
            workers=workers,
            start_method=start_method,
            pin_memory=pin_memory,
            prefetch=prefetch,
        )
