"""What a run's model says of a few held-out clips: the captions that it ranks first, and where the right one is."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillreel.animate.preview.strip import Strip, make_strip
from stillreel.configs import DataError, RequestError
from stillreel.configs.pretrain import PretrainSettings
from stillreel.pretrain.data.together import Failure
from stillreel.pretrain.data.tokens import Tokenizer, tokenizer_of
from stillreel.pretrain.evaluation.held_out import HeldOutDataset, Spot, choose_samples
from stillreel.pretrain.evaluation.ranks import rank_rows
from stillreel.pretrain.evaluation.results import DEPTHS
from stillreel.pretrain.model import VideoTextModel, load_model
from stillreel.pretrain.model.normalize import normalize, pixels_of
from stillreel.pretrain.model.towers import model_cfg_of
from stillreel.pretrain.run.checkpoint import step_name, steps_in
from stillreel.pretrain.run.folder import CHECKPOINTS, FINAL
from stillreel.shards.stream.stream import open_blend

Pixels = NDArray[np.uint8]

_AT_ONCE = 64  # clips that are read, and captions that are compared, at once
_FIRST = 5  # captions that are shown of a clip
_SIDE = 160  # pixels of a shown frame


class Choice(NamedTuple):
    """A caption that the model ranks for a clip."""

    rank: int
    caption: str
    is_right: bool


class Answer(NamedTuple):
    """A clip, and its captions as the model orders them: the first few, and after them the right one if it is not among them."""

    strip: Strip
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Answers:
    """Of a held-out set of `clips` with `captions` that differ; `chance` by the names of its figures, such as t2v_r1."""

    model: str
    clips: int
    captions: int
    chance: dict[str, float]
    shown: tuple[Answer, ...]


def find_answers(run: Path, settings: PretrainSettings, count: int) -> Answers:
    """Ask the run's last model about `count` clips of its evaluation, evenly spread over the set, among all of its captions.

    On the CPU, in fp32; only these clips are encoded. RequestError or DataError when the set or the model cannot be read.
    """
    if not settings.eval.data:
        raise RequestError("the run had no held-out set (eval.data)")
    where = _last_model(run)
    held_out = _read(settings, count)
    model = load_model(where)
    captions, labels = _distinct(held_out.captions, settings.context_length, tokenizer_of(model_cfg_of(model.clip)))
    with torch.no_grad():
        scores = _scores(model, held_out.frames, captions, settings.context_length)
    shown = tuple(
        Answer(make_strip(frames, min(_SIDE, frames.shape[1])), _choices(row, captions, int(labels[at])))
        for frames, row, at in zip(held_out.frames, scores, held_out.shown, strict=True)
    )
    return Answers(
        model=str(where.relative_to(run)),
        clips=len(labels),
        captions=len(captions),
        chance=chance_of(labels.bincount().tolist()),
        shown=shown,
    )


def chance_of(sizes: list[int]) -> dict[str, float]:
    """What a random order gives, of a set whose captions have these many clips each: recalls in percent, and mean ranks.

    One of a caption's m clips is among the first k of N with 1 - C(N-m, k) / C(N, k); before the first of them stand, on
    average, (N-m) / (m+1) others. A clip ranks captions that differ, of which one is right.
    """
    clips, captions = sum(sizes), len(sizes)
    chance = {
        "t2v_mnr": 1 + sum(size * (clips - size) / (size + 1) for size in sizes) / clips,
        "v2t_mnr": (captions + 1) / 2,
    }
    for depth in DEPTHS:
        misses = sum(size * comb(clips - size, depth) for size in sizes) / clips
        chance[f"t2v_r{depth}"] = 100 * (1 - misses / comb(clips, depth)) if depth <= clips else 100.0
        chance[f"v2t_r{depth}"] = 100 * min(depth / captions, 1.0)
    return chance


class _HeldOut(NamedTuple):
    """A held-out set: all captions, and the frames of the clips that are shown, by their place among the captions."""

    captions: list[str]
    shown: list[int]
    frames: list[Pixels]


def _read(settings: PretrainSettings, count: int) -> _HeldOut:
    blend = open_blend(settings.eval.data)
    # What a loader renders agrees with what a device does.
    data = settings.model_copy(update={"render": "loader"})
    spots = choose_samples(blend, data.seed, settings.eval.clips)
    wanted = _spread(spots, count)
    batches = HeldOutDataset(blend, data, spots, _AT_ONCE)
    found = _HeldOut([], [], [])
    for number in range(len(batches)):
        batch = batches[number]
        if isinstance(batch, Failure):
            raise batch.error()
        assert batch.frames is not None
        for slot, is_whole in enumerate(batch.whole):
            if is_whole and number * _AT_ONCE + slot in wanted:
                found.shown.append(len(found.captions))
                found.frames.append(batch.frames[slot].numpy().copy())
            if is_whole:
                found.captions.append(batch.captions[slot])
    if not found.frames:
        raise DataError(f"{settings.eval.data}: none of the clips to be shown is whole")
    return found


def _spread(spots: list[Spot], count: int) -> set[int]:
    """Numbers of `count` samples, evenly spread."""
    return set(np.linspace(0, len(spots) - 1, min(count, len(spots))).round().astype(int).tolist())


def _distinct(captions: list[str], words: int, tokenizer: Tokenizer) -> tuple[list[str], Tensor]:
    """Captions that the tokenizer does not make equal, and which of them each of the given ones is, int64 (N,)."""
    _, labels = tokenizer(captions, words).unique(dim=0, return_inverse=True)
    first: dict[int, str] = {}
    for label, caption in zip(labels.tolist(), captions, strict=True):
        first.setdefault(label, caption)
    return [first[label] for label in sorted(first)], labels


def _scores(model: VideoTextModel, frames: list[Pixels], captions: list[str], words: int) -> Tensor:
    """(clips, captions)."""
    dtype, tokenizer = next(model.parameters()).dtype, tokenizer_of(model_cfg_of(model.clip))
    video = model.encode_video(normalize(torch.from_numpy(np.stack(frames)), *pixels_of(model), dtype=dtype))
    blocks = [
        model.similarity(video, model.encode_text(tokenizer(captions[at : at + _AT_ONCE], words)))
        for at in range(0, len(captions), _AT_ONCE)
    ]
    return torch.cat(blocks).T.float()


def _choices(scores: Tensor, captions: list[str], right: int) -> tuple[Choice, ...]:
    order = scores.nan_to_num(nan=float("-inf")).argsort(descending=True, stable=True).tolist()
    choices = [Choice(rank, captions[at], at == right) for rank, at in enumerate(order[:_FIRST], 1)]
    if not any(choice.is_right for choice in choices):
        ranked = rank_rows(scores[None], torch.tensor([right]), torch.arange(len(captions)))
        choices.append(Choice(round(float(ranked.values[0])), captions[right], True))
    return tuple(choices)


def _last_model(run: Path) -> Path:
    """The model at the end of the run, or else of its latest checkpoint."""
    if (run / FINAL).is_dir():
        return run / FINAL
    steps = steps_in(run / CHECKPOINTS)
    if not steps:
        raise RequestError("the run has no checkpoint yet")
    return run / CHECKPOINTS / step_name(steps[-1])
