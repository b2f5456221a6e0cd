"""Retrieval among the clips of a held-out set, while a model trains: every rank does its share, and all get the same figures.

    batches k of clips, in turn over ranks     each clip is read and encoded once, by one rank
    features, gathered                         all clips' and captions', on every rank; nothing else grows with the set
    queries in chunks, in turn over ranks      each rank ranks its share, block by block of scores
    ranks, gathered                            the same numbers everywhere, to the bit, for any number of ranks and workers

Captions that the tokenizer makes equal are one: each of their clips is right for each of them, and the best of these counts.
So a clip ranks distinct captions. Clips of one picture under two captions are not excused: a caption must tell them apart.
A damaged sample keeps its place: its caption and its clip are misses, and nothing finds them. Over `max_bad` the evaluation
stops, as training does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stillreel.animate.render.device import normalize, render_stills
from stillreel.configs import DataError, RequestError, StillreelError
from stillreel.configs.stream import DataSettings
from stillreel.pretrain.data.film import View
from stillreel.pretrain.data.together import Failure, Together
from stillreel.pretrain.data.tokens import tokenize
from stillreel.pretrain.data.workers import PATIENCE_S, load_batches
from stillreel.pretrain.evaluation.held_out import HeldOutBatch, HeldOutDataset, choose_samples, empty_frames
from stillreel.pretrain.evaluation.ranks import Groups, Ranked, as_ranks, rank_rows
from stillreel.pretrain.evaluation.results import Retrieval
from stillreel.pretrain.evaluation.shares import evaluating, gather_batches
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures, pick_rows
from stillreel.pretrain.model.heads import Dot
from stillreel.pretrain.objectives.gather import gather, rank_count
from stillreel.shards.stream.faults import Budget
from stillreel.shards.stream.stream import Blend

_VECTORS = 1024  # queries, and items, of a block of scores where a score is a product of two vectors
_PAIRS = 64  # where each pair is looked at by itself


@dataclass(frozen=True)
class ClipEvaluation:
    """What an evaluation found; the same on all ranks."""

    retrieval: Retrieval
    clips_per_s: float  # of all ranks together, reading and ranking included

    def metrics(self) -> dict[str, float]:
        """t2v_r1 ... v2t_mnr, missing, clips_per_s."""
        counts = {"missing": float(len(self.retrieval.missing)), "clips_per_s": self.clips_per_s}
        return {**self.retrieval.metrics(), **counts}


class HeldOut:
    """A held-out set, to be evaluated on again and again. All ranks make it, and evaluate, at the same points.

    Of `settings` counts what makes a clip of a sample, what is forgiven, and the seed; curriculum, lanes and window do not,
    so that figures of different steps can be compared. `fresh` recipes are those of epoch 0.
    """

    def __init__(
        self,
        blend: Blend,
        settings: DataSettings,
        *,
        batch: int = 64,
        words: int = 32,
        limit: int = 0,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        """`batch` clips are encoded at once on a rank; captions are cut to `words` tokens; at most `limit` clips (0: all)
        are read, the first of a permutation that the seed draws. Figures depend on these, and on neither ranks nor workers.
        """
        if batch < 1 or limit < 0:
            raise RequestError(
                f"batch={batch}, limit={limit}: expected at least 1 clip a batch, and 0 (all) clips or more"
            )
        self._ranks = rank_count()
        self._rank = dist.get_rank() if self._ranks > 1 else 0
        self._settings, self._batch, self._words = settings, batch, words
        spots = choose_samples(blend, settings.seed, limit)
        self.clips = len(spots)
        self._data = HeldOutDataset(blend, settings, spots, batch)
        self._steps = -(-len(self._data) // self._ranks)
        self._workers, self._pin_memory = workers, pin_memory
        self._together = Together(self._ranks, PATIENCE_S)

    def evaluate(self, model: VideoTextModel, *, autocast: torch.dtype | None = None) -> ClipEvaluation:
        """Retrieval by a model, which is in evaluation mode meanwhile; `autocast` is the type of the towers' arithmetic.

        Every rank encodes equally many batches, of one shape. Raises the same error on all ranks when one has it:
        DataError over the budget, StorageFailure, RequestError.
        """
        begin = time.monotonic()
        with torch.no_grad(), evaluating(model):
            encoded = self._encode(model, autocast)
            missing = self._missing(encoded.whole, encoded.damage)
            retrieval = _rank_all(model, encoded, missing, self._rank, self._ranks)
        seconds = gather(torch.tensor([time.monotonic() - begin], device=encoded.whole.device)).max().item()
        return ClipEvaluation(retrieval, self.clips / seconds)

    def _encode(self, model: VideoTextModel, autocast: torch.dtype | None) -> _Encoded:
        """Everything, encoded by all ranks and gathered."""
        weights = next(model.parameters())
        batches = load_batches(
            self._data,
            order=range(self._rank, len(self._data), self._ranks),
            workers=self._workers,
            pin_memory=self._pin_memory,
        )
        parts: list[list[Tensor | None]] = []
        damage: list[str] = []
        for _ in range(self._steps):
            batch, error = self._next(batches)
            self._together.agree((), error)
            batch = batch or self._nothing()
            damage += batch.damage
            token_ids = tokenize(batch.captions, self._words).to(weights.device)
            frames = normalize(_frames_of(batch, self._view, weights.device), dtype=weights.dtype)
            with torch.autocast(weights.device.type, autocast, enabled=autocast is not None):
                video, text = model.encode_video(frames), model.encode_text(token_ids)
            if isinstance(model.head, Dot):  # compares vectors: frames and words need not be kept
                video = video._replace(frames=video.frames[:, :0], mask=video.mask[:, :0])
                text = text._replace(tokens=text.tokens[:, :0], mask=text.mask[:, :0])
            parts.append([torch.tensor(batch.whole, device=weights.device), token_ids, *video, *text])
        whole, ids, *fields = (self._gathered(column) for column in zip(*parts, strict=True))
        assert whole is not None and ids is not None
        count = len(VideoFeatures._fields)
        return _Encoded(whole, ids, VideoFeatures(*fields[:count]), TextFeatures(*fields[count:]), damage)

    def _next(self, batches: Iterator[Any]) -> tuple[HeldOutBatch | None, StillreelError | None]:
        """The next batch, or why there is none; (None, None) where this rank has one less than others."""
        try:
            batch = next(batches)
        except StopIteration:
            return None, None
        except StillreelError as error:
            return None, error
        except Exception as error:  # whatever it is, the other ranks must hear of it
            return None, DataError(f"a loader worker failed or was killed: {type(error).__name__}: {error}")
        if isinstance(batch, Failure):
            return None, batch.error()
        return batch, None

    @property
    def _view(self) -> View:
        return View(self._settings.grammar, self._settings.frames, self._settings.size)

    def _nothing(self) -> HeldOutBatch:
        return HeldOutBatch([False] * self._batch, [""] * self._batch, empty_frames(self._batch, self._view), None, [])

    def _gathered(self, parts: Sequence[Tensor | None]) -> Tensor | None:
        """A field of own batches -> of all N clips, in their order."""
        found = [part for part in parts if part is not None]
        return gather_batches(found, self.clips) if found else None

    def _missing(self, whole: Tensor, damage: list[str]) -> tuple[str, ...]:
        """What is damaged, by name. DataError, on all ranks, where it is too much."""
        flags = whole.tolist()
        if all(flags):
            return ()
        told: list[list[str]] = [damage]
        if self._ranks > 1:
            told = [[] for _ in range(self._ranks)]
            dist.all_gather_object(told, damage)
        names = tuple(sorted(name for one in told for name in one))
        budget = Budget(self._settings.max_bad, self._settings.max_bad_run)
        try:
            budget.follow(flags)
            budget.count(len(flags), flags.count(False))
        except DataError as error:
            raise DataError(f"held-out set: {error}. First: {names[0]}") from None
        return names


@dataclass(frozen=True)
class _Encoded:
    """All N clips and their captions, on every rank; of those that are not whole, something meaningless."""

    whole: Tensor  # bool (N,)
    token_ids: Tensor  # (N, W)
    video: VideoFeatures
    text: TextFeatures
    damage: list[str]  # of this rank


def _rank_all(model: VideoTextModel, encoded: _Encoded, missing: tuple[str, ...], rank: int, ranks: int) -> Retrieval:
    """Both directions, each rank its share of queries. A block's scores are the same whoever computes it."""
    count, whole = len(encoded.whole), encoded.whole
    labels = _labels(encoded)
    groups = Groups.of(labels)
    size = _VECTORS if isinstance(model.head, Dot) else _PAIRS
    chunks = [slice(start, start + size) for start in range(0, count, size)]
    share = range(rank, len(chunks), ranks)

    def scores(captions: slice, clips: slice) -> Tensor:
        block = model.similarity(pick_rows(encoded.video, clips), pick_rows(encoded.text, captions))
        return block.masked_fill(~(whole[captions, None] & whole[clips]), float("nan"))

    by_text, by_video = [], []
    for number in share:
        own = chunks[number]
        by_text.append(rank_rows(torch.cat([scores(own, one) for one in chunks], dim=1), labels[own], labels))
        columns = torch.cat([scores(one, own) for one in chunks])
        by_video.append(rank_rows(groups.best(columns).T, labels[own], groups.labels))
    found = [
        as_ranks(_gather_ranked(parts, size, len(chunks), whole.device, count), labels, items)
        for parts, items in ((by_text, count), (by_video, len(groups.labels)))
    ]
    return Retrieval(found[0], found[1], missing=missing)


def _labels(encoded: _Encoded) -> Tensor:
    """int64 (N,): equal for equal token ids; damaged samples are each alone."""
    _, labels = encoded.token_ids.unique(dim=0, return_inverse=True)
    alone = -1 - torch.arange(len(labels), device=labels.device)
    return labels.where(encoded.whole, alone)


def _gather_ranked(parts: Sequence[Ranked], size: int, chunks: int, device: torch.device, count: int) -> Ranked:
    """Of all queries, in their order, from what each rank knows of its chunks."""
    rows = -(-chunks // rank_count())
    values = torch.zeros(rows, size, dtype=torch.float64, device=device)
    missed = torch.zeros(rows, size, dtype=torch.bool, device=device)
    for row, part in enumerate(parts):
        values[row, : len(part.values)], missed[row, : len(part.missed)] = part
    return Ranked(*(gather(one).flatten(0, 1)[:count] for one in (values, missed)))


def _frames_of(batch: HeldOutBatch, view: View, device: torch.device) -> Tensor:
    """Frames uint8 (B, T, H, W, 3) on the device, rendered there if they were not before."""
    if batch.frames is not None:
        return batch.frames.to(device, non_blocking=True)
    frames = empty_frames(len(batch.whole), view).to(device)
    if batch.stills is not None:
        rendered = render_stills(batch.stills.to(device), view.size)
        frames[torch.tensor(batch.whole, device=device)] = rendered
    return frames
