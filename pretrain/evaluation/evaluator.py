"""A model on a set of clips, whatever it is of: each clip and text encoded once, all scores, the figures of a protocol.

    batches of clips, in turn over ranks       read and encoded once, by one rank
    batches of texts, in turn over ranks       captions, or what is said of classes
    rows of scores, in turn over ranks         (texts A, videos B), gathered; views of a video are averaged
    ranks                                      the same on all ranks, to the bit, for any number of them and of workers

    held_out.py                                a set of clip shards, while a model is pretrained on others
    finetune/evaluation/benchmark.py           a split of a benchmark

A video that is missing or cannot be read keeps its column, of NaN: its queries are misses. Damage beyond `max_bad` stops.
Every rank holds all features and all scores: 4 bytes a pair, 400 MB for 10,000 captions of as many videos.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from stillreel.configs import DataError, RequestError
from stillreel.pretrain.data.together import Together, take_next
from stillreel.pretrain.data.tokens import tokenizer_of
from stillreel.pretrain.evaluation.ranks import Matches
from stillreel.pretrain.evaluation.results import (
    Choice,
    Recognition,
    Retrieval,
    evaluate_choice,
    evaluate_recognition,
    evaluate_retrieval,
)
from stillreel.pretrain.evaluation.shares import (
    evaluating,
    gather_batches,
    gather_features,
    gather_words,
    own_parts,
    own_rank,
)
from stillreel.pretrain.evaluation.transductive import evaluate_dual_softmax, evaluate_querybank
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures, pick_rows, unit
from stillreel.pretrain.model.heads import Dot
from stillreel.pretrain.model.normalize import encode_frames
from stillreel.pretrain.model.towers import model_cfg_of
from stillreel.pretrain.objectives.gather import gather, rank_count
from stillreel.shards.stream.faults import Budget

QUERYBANK_SCALE = 1 / 1.99  # of logits, as in the published runs of CLIP2Video
_TEXTS = 256  # encoded at once
_VECTORS, _PAIRS = 1024, 64  # rows of a block of scores: of products of vectors, and where each pair is looked at
_QUESTIONS = 16  # of multi-choice, whose options are compared at once, also with each other's videos


class EvalBatch(NamedTuple):
    """Up to B clips as they were read. Of one that is not `whole` the frames mean nothing."""

    frames: Tensor  # uint8 (B, T, H, W, 3), on any device
    mask: Tensor | None  # bool (B, T): where there is a frame; None: everywhere
    whole: list[bool]
    troubles: list[str]  # what is wrong with files, in sentences
    captions: Sequence[str] = ()  # where they are read with their clips


class EvalClips(Protocol):
    """The clips of a set, in batches that are the same for any ranks and workers; views of a video are side by side."""

    @property
    def count(self) -> int:
        """Of clips."""

    @property
    def batch(self) -> int:
        """Of clips that are encoded at once."""

    def read(self, numbers: range, device: torch.device) -> Iterator[EvalBatch]:
        """The batches of these numbers. A StillreelError stops the evaluation, on all ranks."""

    def blank(self) -> EvalBatch:
        """For a rank that has no batch left: something of the same shape for it to encode beside the others."""


@dataclass(frozen=True)
class EvalProtocol:
    """What a set is asked, and what of it is forgiven."""

    name: str  # of the set, in errors: "test split"
    context_length: int
    max_bad: float
    max_bad_run: int
    task: Literal["retrieval", "recognition", "choice"] = "retrieval"
    # Captions, what is said of classes, or the options of each video, as many for each; None: captions are read with the clips.
    texts: Sequence[str] | None = None
    matches: Matches | None = None  # of texts with videos; None as texts: captions of equal tokens are one
    videos: Sequence[str] | None = None  # ids, by which damage is told; None: by what is wrong
    missing: Sequence[str] = ()  # ids of those that are not there, which is no damage
    views: int = 1  # clips of a video, whose scores are averaged
    dual_softmax: bool = False
    querybank: Sequence[str] = ()  # training captions of a row of QB-norm; none: no such row
    prompts: int = 1  # texts of a class, side by side, the mean of whose vectors is compared
    cut: int = 0  # of `texts`, those that are longer than the context length
    described: str = ""  # in one line, as it stands beside every number


Rows: TypeAlias = tuple[Retrieval, ...] | tuple[Recognition, ...] | tuple[Choice, ...]


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found; the same on all ranks. The first row is of the scores as they are."""

    rows: Rows
    damaged: tuple[str, ...]  # ids of videos that are there and cannot be read, or what is wrong with each
    troubles: tuple[str, ...]  # what is wrong with files, in sentences
    clips_per_s: float  # of all ranks together, reading and ranking included

    def metrics(self) -> dict[str, float]:
        """Of the scores as they are: t2v_r1 ..., top1 and top5, or accuracy."""
        return self.rows[0].metrics()


class EncodedSet(NamedTuple):
    """Everything that is compared, on every rank: of B videos, each of some views side by side, and A texts."""

    video: VideoFeatures
    text: TextFeatures
    matches: Matches
    whole: Tensor  # bool (B,): videos that are there and could be read
    troubles: tuple[str, ...]
    known: Tensor | None = None  # bool (A,): captions that could be read; None: all


class Evaluator:
    """A set, to be asked of again and again. All ranks make it, and evaluate, at the same points."""

    def __init__(self, clips: EvalClips, protocol: EvalProtocol, *, together: Together) -> None:
        self.protocol = protocol
        self._clips, self._together = clips, together

    def evaluate(self, model: VideoTextModel, *, autocast: torch.dtype | None = None) -> EvaluationResult:
        """All figures of a model, which is in evaluation mode meanwhile; `autocast` is the type of the towers' arithmetic.

        Every rank encodes equally many batches. Raises the same error on all ranks when one has it: DataError over the
        budget, StorageFailure, RequestError.
        """
        begin = time.monotonic()
        with evaluating(model):
            encoded = self._encode(model, autocast)
            damaged = self._check_damage(encoded)
            missing = (*self.protocol.missing, *damaged)
            rows: Rows
            if self.protocol.task == "retrieval":
                rows = self._retrieve(model, encoded, missing, autocast)
            elif self.protocol.task == "choice":
                rows = (self._choose(model, encoded, missing),)
            else:
                rows = (self._recognize(model, encoded, missing),)
        seconds = gather(torch.tensor([time.monotonic() - begin], device=encoded.whole.device)).max().item()
        return EvaluationResult(rows, damaged, encoded.troubles, self._clips.count / seconds)

    def encode(self, model: VideoTextModel, *, autocast: torch.dtype | None = None) -> EncodedSet | None:
        """Features of all videos and captions with frames, words and patches, on rank 0; None on the others.

        All ranks must call it. RequestError where classes or options are asked for, or several views of a video.
        """
        if self.protocol.task != "retrieval" or self.protocol.views > 1:
            raise RequestError("two stages are for retrieval with one view a video: captions propose, pairs are scored")
        with evaluating(model):
            encoded = self._encode(model, autocast, fine=True)
            self._check_damage(encoded)
        return encoded if own_rank() == 0 else None

    def _encode(self, model: VideoTextModel, autocast: torch.dtype | None, *, fine: bool = False) -> EncodedSet:
        """Everything, encoded by all ranks and gathered; `fine` keeps what only a second stage compares."""
        count, size, device = self._clips.count, self._clips.batch, next(model.parameters()).device
        videos: list[VideoFeatures] = []
        texts: list[TextFeatures] = []
        flags: list[Tensor] = []
        ids: list[Tensor] = []
        troubles: list[str] = []
        tokenizer = tokenizer_of(model_cfg_of(model.clip))
        batches = self._clips.read(range(own_rank(), -(-count // size), rank_count()), device)
        for _ in own_parts(count, size):
            batch, error = take_next(batches)
            self._together.agree((), error)
            batch = batch or self._clips.blank()
            videos.append(_compared(model, encode_frames(model, batch.frames, batch.mask, autocast), fine=fine))
            flags.append(torch.tensor(batch.whole, device=device))
            troubles += batch.troubles
            if self.protocol.texts is None:
                ids.append(tokenizer(batch.captions, self.protocol.context_length).to(device))
                texts.append(_encode_ids(model, ids[-1], autocast, fine=fine))
        video, whole = gather_features(videos, size, count), gather_batches(flags, size, count)
        said = gather_words(troubles)
        if self.protocol.texts is None:
            matches = _equal_captions(gather_batches(ids, size, count), whole)
            return EncodedSet(video, gather_features(texts, size, count), matches, whole, said, whole)
        assert self.protocol.matches is not None
        text = self._encode_texts(model, self.protocol.texts, autocast, fine=fine)
        whole = whole.unflatten(0, (-1, self.protocol.views)).all(dim=1)
        return EncodedSet(video, text, self.protocol.matches, whole, said)

    def _encode_texts(
        self, model: VideoTextModel, texts: Sequence[str], autocast: torch.dtype | None, *, fine: bool = False
    ) -> TextFeatures:
        device, words = next(model.parameters()).device, self.protocol.context_length
        tokenizer = tokenizer_of(model_cfg_of(model.clip))
        parts = [
            _encode_ids(model, tokenizer(texts[rows] or [""], words).to(device), autocast, fine=fine)
            for rows in own_parts(len(texts), _TEXTS)
        ]
        return gather_features(parts, _TEXTS, len(texts))

    def _check_damage(self, encoded: EncodedSet) -> tuple[str, ...]:
        """Videos that are there and cannot be read, by name. DataError, on all ranks, where they are too many."""
        whole, ask = encoded.whole.tolist(), self.protocol
        gone = set(ask.missing)
        named = [(name, good) for name, good in zip(ask.videos or (), whole, strict=False) if name not in gone]
        flags = [good for _, good in named] if ask.videos else whole
        budget = Budget(ask.max_bad, ask.max_bad_run)
        try:
            budget.follow(flags)
            budget.count(len(flags), flags.count(False))
        except DataError as error:
            raise DataError(f"{ask.name}: {error}. First: {encoded.troubles[0]}") from None
        return tuple(name for name, good in named if not good) if ask.videos else encoded.troubles

    def _retrieve(
        self, model: VideoTextModel, encoded: EncodedSet, missing: Sequence[str], autocast: torch.dtype | None
    ) -> tuple[Retrieval, ...]:
        def scores_of(text: TextFeatures) -> Tensor:
            scores: Tensor = self._scores(model, encoded.video, text).unflatten(1, (len(encoded.whole), -1)).mean(dim=2)
            return scores.masked_fill(~encoded.whole, float("nan"))

        scores = scores_of(encoded.text)
        if encoded.known is not None:
            scores = scores.masked_fill(~encoded.known[:, None], float("nan"))
        rows = [evaluate_retrieval(scores, encoded.matches, missing)]
        if self.protocol.dual_softmax:
            rows.append(evaluate_dual_softmax(model.logits(scores), encoded.matches, scale=1.0))
        if self.protocol.querybank:
            bank = scores_of(self._encode_texts(model, self.protocol.querybank, autocast))
            logits = model.logits(scores)
            rows.append(evaluate_querybank(logits, model.logits(bank), encoded.matches, scale=QUERYBANK_SCALE))
        return tuple(rows)

    def _recognize(self, model: VideoTextModel, encoded: EncodedSet, missing: Sequence[str]) -> Recognition:
        text = encoded.text if self.protocol.prompts == 1 else _ensemble(model, encoded.text, self.protocol.prompts)
        shares = model.logits(self._scores(model, encoded.video, text)).T.softmax(dim=1)
        scores = shares.unflatten(0, (len(encoded.whole), -1)).mean(dim=1)
        known = scores.masked_fill(~encoded.whole[:, None], float("nan"))
        return evaluate_recognition(known, encoded.matches.videos, missing)

    def _choose(self, model: VideoTextModel, encoded: EncodedSet, missing: Sequence[str]) -> Choice:
        """Each video with its own texts alone."""
        count, matches = len(encoded.whole), encoded.matches
        rows = [_of_own(model, encoded, part, self.protocol.views) for part in own_parts(count, _QUESTIONS)]
        scores = gather_batches(rows, _QUESTIONS, count).masked_fill(~encoded.whole[:, None], float("nan"))
        right = matches.captions.unflatten(0, (count, -1)) == matches.videos[:, None]
        return evaluate_choice(scores, right.long().argmax(dim=1), missing)

    def _scores(self, model: VideoTextModel, video: VideoFeatures, text: TextFeatures) -> Tensor:
        """Scores (A, clips) of texts with all clips. A block's are the same whoever computes it."""
        size = _VECTORS if isinstance(model.head, Dot) else _PAIRS
        columns = [slice(start, start + size) for start in range(0, len(video.pooled), size)]
        rows = [
            torch.cat([model.similarity(pick_rows(video, one), pick_rows(text, own)) for one in columns], dim=1)
            for own in own_parts(len(text.pooled), size)
        ]
        return gather_batches(rows, size, len(text.pooled))


def _of_own(model: VideoTextModel, encoded: EncodedSet, part: slice, views: int) -> Tensor:
    """Scores (n, O) of the videos of a part with the O texts that go with each; of a part that is beyond the last none."""
    count = len(encoded.whole)
    options = len(encoded.text.pooled) // count
    start, stop = min(part.start, count - 1), min(part.stop, count)
    video = pick_rows(encoded.video, slice(start * views, stop * views))
    text = pick_rows(encoded.text, slice(start * options, stop * options))
    crossed = model.similarity(video, text).unflatten(1, (-1, views)).mean(dim=2).unflatten(0, (-1, options))
    own: Tensor = crossed.diagonal(dim1=0, dim2=2).T
    return own[: max(count - part.start, 0)]


def _encode_ids(model: VideoTextModel, token_ids: Tensor, autocast: torch.dtype | None, *, fine: bool) -> TextFeatures:
    with torch.autocast(token_ids.device.type, autocast, enabled=autocast is not None):
        text = model.encode_text(token_ids)
    if isinstance(model.head, Dot) and not fine:
        return text._replace(tokens=text.tokens[:, :0], mask=text.mask[:, :0])
    return text


def _compared(model: VideoTextModel, video: VideoFeatures, *, fine: bool) -> VideoFeatures:
    """What the head compares: frames need not be kept where it is vectors, and patches are the re-ranker's (`fine`)."""
    if fine:
        return video._replace(draws=None)
    video = video._replace(patches=None, draws=None)
    if isinstance(model.head, Dot):
        video = video._replace(frames=video.frames[:, :0], mask=video.mask[:, :0])
    return video


def _ensemble(model: VideoTextModel, text: TextFeatures, prompts: int) -> TextFeatures:
    """One vector a class: the mean of those of its prompts, each of length one. RequestError where a head compares more."""
    if not isinstance(model.head, Dot):
        raise RequestError(
            f"{prompts} prompts a class are averaged as vectors, and this model's head compares more: give one"
        )

    def mean(vectors: Tensor) -> Tensor:
        return unit(unit(vectors).unflatten(0, (-1, prompts)).mean(dim=1))

    aligned = None if text.aligned is None else mean(text.aligned)
    return pick_rows(text, slice(None, None, prompts))._replace(pooled=mean(text.pooled), aligned=aligned)


def _equal_captions(token_ids: Tensor, whole: Tensor) -> Matches:
    """Captions (N, W) that the tokenizer makes equal are one: each of their clips is right for each of them, and the best of
    these counts. So a clip ranks distinct captions. Damaged samples are each alone."""
    _, labels = token_ids.unique(dim=0, return_inverse=True)
    labels = labels.where(whole, -1 - torch.arange(len(labels), device=labels.device))
    return Matches(labels, labels)
