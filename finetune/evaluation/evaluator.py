"""A model on a split of a benchmark: every video and caption encoded once, all scores, the figures of its protocol.

    batches of clips, in turn over ranks       decoded and encoded once, by one rank
    batches of captions, or of class texts     likewise
    rows of scores, in turn over ranks         (captions A, videos B), gathered; views of a video are averaged
    ranks                                      the same on all ranks, to the bit, for any number of them

A video that is missing or gives no frame keeps its column, of NaN: its queries are misses. Damage beyond `max_bad` stops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from stillreel.configs import DataError, RequestError, StillreelError
from stillreel.configs.finetune import ProtocolSettings
from stillreel.finetune.benchmarks import Located, SplitName
from stillreel.finetune.data.clips import Clip, empty_clips
from stillreel.finetune.data.encode import EncodedClips, encode_clips, encode_frames
from stillreel.finetune.data.loader import class_text, clips_of, instants_of
from stillreel.finetune.data.store import FrameStore
from stillreel.finetune.video import View
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.data.tokens import tokenize
from stillreel.pretrain.evaluation import (
    Matches,
    Recognition,
    Retrieval,
    evaluate_dual_softmax,
    evaluate_querybank,
    evaluate_recognition,
    evaluate_retrieval,
)
from stillreel.pretrain.evaluation.shares import evaluating, gather_batches
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures, pick_rows
from stillreel.pretrain.model.heads import Dot
from stillreel.pretrain.objectives.gather import rank_count
from stillreel.shards.stream.faults import Budget
from stillreel.shards.stream.order import permutation

QUERYBANK_SCALE = 1 / 1.99  # of logits, as in the published runs of CLIP2Video
_CAPTIONS = 256  # encoded at once
_VECTORS, _PAIRS = 1024, 64  # rows of a block of scores: of products of vectors, and where each pair is looked at

Features = TypeVar("Features", TextFeatures, VideoFeatures)


@dataclass(frozen=True)
class Outcome:
    """What an examination found; the same on all ranks. The first row is of the scores as they are."""

    rows: tuple[Retrieval, ...] | tuple[Recognition, ...]
    videos: int
    damaged: tuple[str, ...]  # ids of videos that are there and give no frame
    troubles: tuple[str, ...]  # what is wrong with files, in sentences
    videos_per_s: float

    def metrics(self) -> dict[str, float]:
        """Of the scores as they are: t2v_r1 ... or top1 and top5."""
        return self.rows[0].metrics()


class Encoded(NamedTuple):
    """Everything that two stages compare of B videos and A captions."""

    video: VideoFeatures
    text: TextFeatures
    matches: Matches
    whole: Tensor  # bool (B,): videos that are there and could be read


class Evaluator:
    """A split, to be asked of again and again. All ranks make it, and examine, at the same points."""

    def __init__(
        self,
        located: Located,
        split: SplitName,
        settings: ProtocolSettings,
        *,
        batch: int = 32,
        workers: int = 0,
        together: Together,
        store: FrameStore | None = None,
        selection: str = "",
    ) -> None:
        """`batch` clips are encoded at once on a rank, by `workers` that read; `selection` says how the model was chosen, if it
        was: "on validation", "last step"."""
        self._store, self._selection = store, selection
        self._located, self._split, self._settings = located, split, settings
        self._benchmark = located.benchmark
        self._videos = self._benchmark.splits[split].videos
        self._batch, self._workers, self._together = batch, workers, together
        self._ranks = rank_count()
        self._rank = dist.get_rank() if self._ranks > 1 else 0

    @property
    def metric(self) -> str:
        """What a checkpoint is chosen by."""
        return "t2v_r1" if self._benchmark.protocol.task == "retrieval" else "top1"

    def describe(self) -> str:
        """The protocol in one line, as it stands beside every number."""
        video, views = self._settings.video_settings(), self._settings.views
        shuffled = ", shuffled" if video.order == "shuffled" else ""
        seen = f"{video.frames} frames by {video.sampler}{shuffled}, {video.size} px, {self._settings.context_length} tokens"
        many = f", {views.segments} x {views.crops} views" if views.segments * views.crops > 1 else ""
        chosen = f"; selection: {self._selection}" if self._selection else ""
        return f"{self._located.describe(self._split)}; {seen}{many}{chosen}"

    def examine(self, model: VideoTextModel, *, autocast: torch.dtype | None = None) -> Outcome:
        """All figures of a model, which is in evaluation mode meanwhile. Raises the same error on all ranks when one has it."""
        begin = time.monotonic()
        with torch.no_grad(), evaluating(model):
            video, whole, troubles = self._encode_videos(model, autocast)
            damaged = self._check_damage(whole, troubles)
            rows = (
                self._retrieve(model, video, whole, damaged, autocast)
                if self._benchmark.protocol.task == "retrieval"
                else self._recognize(model, video, whole, damaged, autocast)
            )
        return Outcome(rows, len(self._videos), damaged, troubles, len(self._videos) / (time.monotonic() - begin))

    def encode(self, model: VideoTextModel, *, autocast: torch.dtype | None = None) -> Encoded | None:
        """Features of all videos and captions with frames, words and patches, on rank 0; None on the others.

        All ranks must call it. RequestError where the benchmark asks for classes, or for several views of a video.
        """
        views = self._settings.views
        if self._benchmark.protocol.task != "retrieval" or views.segments * views.crops > 1:
            raise RequestError("two stages are for retrieval with one view a video: captions propose, pairs are scored")
        with torch.no_grad(), evaluating(model):
            video, whole, troubles = self._encode_videos(model, autocast, fine=True)
            self._check_damage(whole, troubles)
            captions = [caption for one in self._videos for caption in one.captions]
            text = self._encode_texts(model, captions, video.pooled.device, autocast, fine=True)
        return Encoded(video, text, self._matches(), whole) if self._rank == 0 else None

    def _matches(self) -> Matches:
        counts = torch.tensor([len(one.captions) for one in self._videos])
        numbers = torch.arange(len(counts))
        return Matches(numbers.repeat_interleave(counts), numbers)

    def _retrieve(
        self,
        model: VideoTextModel,
        video: VideoFeatures,
        whole: Tensor,
        damaged: Sequence[str],
        autocast: torch.dtype | None,
    ) -> tuple[Retrieval, ...]:
        matches = self._matches()
        captions = [caption for one in self._videos for caption in one.captions]
        missing = (*self._located.missing.get(self._split, ()), *damaged)

        def scores_of(texts: Sequence[str]) -> Tensor:
            scores = self._scores(model, video, texts, autocast)
            return scores.unflatten(1, (len(whole), -1)).mean(dim=2).masked_fill(~whole, float("nan"))

        scores = scores_of(captions)
        rows = [evaluate_retrieval(scores, matches, missing)]
        logits = model.logits(scores)
        if self._settings.dual_softmax:
            rows.append(evaluate_dual_softmax(logits, matches, scale=1.0))
        if self._settings.querybank:
            bank = model.logits(scores_of(self._bank()))
            rows.append(evaluate_querybank(logits, bank, matches, scale=QUERYBANK_SCALE))
        return tuple(rows)

    def _recognize(
        self,
        model: VideoTextModel,
        video: VideoFeatures,
        whole: Tensor,
        damaged: Sequence[str],
        autocast: torch.dtype | None,
    ) -> tuple[Recognition, ...]:
        texts = [class_text(label, self._settings.prompt) for label in self._benchmark.labels]
        shares = model.logits(self._scores(model, video, texts, autocast)).T.softmax(dim=1)
        scores = shares.unflatten(0, (len(whole), -1)).mean(dim=1)
        labels = torch.tensor([one.label for one in self._videos])
        missing = (*self._located.missing.get(self._split, ()), *damaged)
        return (evaluate_recognition(scores.masked_fill(~whole[:, None], float("nan")), labels, missing),)

    def _bank(self) -> list[str]:
        """Training captions, drawn: RequestError where there are none."""
        train = self._benchmark.splits.get("train")
        captions = [caption for one in train.videos for caption in one.captions] if train else []
        if not captions:
            raise RequestError(
                f"querybank={self._settings.querybank}: no training captions were found; give their files, or 0"
            )
        chosen = permutation(len(captions), 0, "querybank")[: self._settings.querybank]
        return [captions[number] for number in sorted(chosen.tolist())]

    def _encode_videos(
        self, model: VideoTextModel, autocast: torch.dtype | None, *, fine: bool = False
    ) -> tuple[VideoFeatures, Tensor, tuple[str, ...]]:
        """Features of all clips, views of a video side by side; which videos (B,) are whole; what is wrong with files."""
        clips = self._clips()
        batches = encode_clips(
            model,
            clips,
            self._settings.video_settings(),
            batch=self._batch,
            workers=self._workers,
            autocast=autocast,
            share=(self._rank, self._ranks),
            store=self._store,
        )
        parts: list[EncodedClips] = []
        for _ in range(-(-len(clips) // (self._batch * self._ranks))):
            batch, error = _next(batches)
            self._together.agree((), error)
            batch = batch or self._nothing(model, autocast)
            parts.append(batch._replace(video=_compared(model, batch.video, fine=fine)))
        features = gather_features([part.video for part in parts], self._batch, len(clips))
        flags = [torch.tensor(part.whole + [False] * (self._batch - len(part.whole))) for part in parts]
        device = features.pooled.device
        whole = (
            gather_batches([one.to(device) for one in flags], len(clips))
            .unflatten(0, (len(self._videos), -1))
            .all(dim=1)
        )
        told: list[list[str]] = [[trouble for part in parts for trouble in part.troubles]]
        if self._ranks > 1:
            own, told = told[0], [[] for _ in range(self._ranks)]
            dist.all_gather_object(told, own)
        return features, whole, tuple(sorted({trouble for one in told for trouble in one}))

    def _clips(self) -> list[Clip]:
        views = self._settings.views
        places = [0.0, 0.5, 1.0] if views.crops == 3 else [0.5]
        chosen = [View(*one) for one in product(instants_of(views), places)]
        return [clip._replace(view=view) for clip in clips_of(self._located, self._split) for view in chosen]

    def _nothing(self, model: VideoTextModel, autocast: torch.dtype | None) -> EncodedClips:
        """What a rank has that has no batch left: for the others' sake, of the same shape."""
        frames, mask = empty_clips(1, self._settings.video_settings())
        return EncodedClips(0, encode_frames(model, frames, mask, autocast), [False], [])

    def _check_damage(self, whole: Tensor, troubles: Sequence[str]) -> tuple[str, ...]:
        """Videos that are there and give no frame. DataError, on all ranks, where they are too many."""
        gone = set(self._located.missing.get(self._split, ()))
        there = [(one.id, good) for one, good in zip(self._videos, whole.tolist(), strict=True) if one.id not in gone]
        budget = Budget(self._settings.max_bad, self._settings.max_bad_run)
        damaged = tuple(name for name, good in there if not good)
        try:
            budget.follow([good for _, good in there])
            budget.count(len(there), len(damaged))
        except DataError as error:
            raise DataError(f"{self._split} split: {error}. First: {troubles[0]}") from None
        return damaged

    def _scores(
        self, model: VideoTextModel, video: VideoFeatures, texts: Sequence[str], autocast: torch.dtype | None
    ) -> Tensor:
        """Scores (A, clips) of texts with all clips."""
        device = video.pooled.device
        vectors = isinstance(model.head, Dot)
        size = _VECTORS if vectors else _PAIRS
        text = self._encode_texts(model, texts, device, autocast)
        columns = [slice(start, start + size) for start in range(0, len(video.pooled), size)]

        def block(rows: slice) -> Tensor:
            own = pick_rows(text, rows)
            return torch.cat([model.similarity(pick_rows(video, one), own) for one in columns], dim=1)

        return self._in_turn(len(texts), size, block)

    def _encode_texts(
        self,
        model: VideoTextModel,
        texts: Sequence[str],
        device: torch.device,
        autocast: torch.dtype | None,
        *,
        fine: bool = False,
    ) -> TextFeatures:
        parts = []
        for rows in self._shares(len(texts), _CAPTIONS):
            ids = tokenize(texts[rows] or [""], self._settings.context_length).to(device)
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                text = model.encode_text(ids)
            if isinstance(model.head, Dot) and not fine:
                text = text._replace(tokens=text.tokens[:, :0], mask=text.mask[:, :0])
            parts.append(text)
        return gather_features(parts, _CAPTIONS, len(texts))

    def _in_turn(self, count: int, size: int, work: Callable[[slice], Tensor]) -> Tensor:
        """Rows of a matrix, `size` at a time in turn over ranks, gathered."""
        parts = [_padded(work(rows), size) for rows in self._shares(count, size)]
        return gather_batches(parts, count)

    def _shares(self, count: int, size: int) -> Iterator[slice]:
        """This rank's parts of `count` rows; as many as every other rank's, so that the last ones may be empty."""
        for number in range(-(-count // (size * self._ranks))):
            start = (number * self._ranks + self._rank) * size
            yield slice(start, start + size)


def gather_features(parts: Sequence[Features], size: int, count: int) -> Features:
    """Of own batches of at most `size` rows, all ranks' `count` rows in order."""
    fields = [
        None if column[0] is None else gather_batches([_padded(one, size) for one in column], count)
        for column in zip(*parts, strict=True)
    ]
    return type(parts[0])(*fields)


def _compared(model: VideoTextModel, video: VideoFeatures, *, fine: bool) -> VideoFeatures:
    """What the head compares: frames need not be kept where it is vectors, and patches are the re-ranker's (`fine`)."""
    if fine:
        return video._replace(draws=None)
    video = video._replace(patches=None, draws=None)
    if isinstance(model.head, Dot):
        video = video._replace(frames=video.frames[:, :0], mask=video.mask[:, :0])
    return video


def _padded(rows: Tensor, size: int) -> Tensor:
    """Rows (b, ...) and zeros to make them `size`."""
    return rows if len(rows) == size else torch.cat([rows, rows.new_zeros(size - len(rows), *rows.shape[1:])])


def _next(batches: Iterator[EncodedClips]) -> tuple[EncodedClips | None, StillreelError | None]:
    """The next batch, or why there is none; (None, None) where this rank has one less than others."""
    try:
        return next(batches, None), None
    except StillreelError as error:
        return None, error
