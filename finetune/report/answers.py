"""What a run's model says of a few clips: the captions that it ranks first for each, and the clips for its caption."""

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
from stillreel.configs import RequestError
from stillreel.configs.finetune import FinetuneSettings
from stillreel.configs.pretrain import PretrainSettings
from stillreel.finetune.evaluation.results import RESULTS, read_results
from stillreel.finetune.report.gallery import Gallery, read_benchmark, read_held_out, spread
from stillreel.finetune.report.history import History
from stillreel.pretrain.data.tokens import Tokenizer, tokenizer_of
from stillreel.pretrain.evaluation.ranks import rank_rows
from stillreel.pretrain.evaluation.results import DEPTHS
from stillreel.pretrain.model import VideoTextModel, load_model
from stillreel.pretrain.model.normalize import encode_frames
from stillreel.pretrain.model.towers import model_cfg_of
from stillreel.pretrain.run.checkpoint import step_name, steps_in
from stillreel.pretrain.run.folder import CHECKPOINTS, FINAL

_AT_ONCE = 64  # captions that are compared at once
_CLIPS = 8  # that are encoded at once
_GALLERY = 32  # clips that a caption is asked of, or more where more are shown
_CAPTIONS, _VIDEOS = 5, 3  # that are shown of each answer
_SIDE = 160  # pixels of a shown frame


class Choice(NamedTuple):
    """What the model ranks for a query: a caption by its number, or a clip of the gallery."""

    rank: int
    number: int
    is_right: bool


class Answer(NamedTuple):
    """A clip of the gallery; the captions as the model orders them for it, and the clips for its caption: the first few of each,
    and after them the right one if it is not among them."""

    clip: int
    caption: str
    captions: tuple[Choice, ...]
    clips: tuple[Choice, ...]


@dataclass(frozen=True)
class Answers:
    """Of a set with so many `clips`, of which `gallery` are asked of, and `captions` that differ. `chance` by the names of its
    figures, such as t2v_r1: what a random order of the whole set gives; none of a benchmark, whose captions are not all asked."""

    model: str
    about: str
    clips: int
    gallery: int
    captions: tuple[str, ...]
    chance: dict[str, float]
    shown: tuple[Answer, ...]
    strips: dict[int, Strip]  # of the clips that are shown, by their numbers in the gallery


def find_answers(history: History, count: int) -> Answers:
    """Ask the run's last model about `count` clips, evenly spread over the set, among all of its captions, and about their
    captions among a gallery of clips.

    On the CPU, in fp32; only the gallery is encoded. RequestError or DataError when the set or the model cannot be read.
    """
    where = _last_model(history.run)
    settings, gallery = _open(history, max(count, _GALLERY))
    model = load_model(where)
    tokenizer = tokenizer_of(model_cfg_of(model.clip))
    captions, labels = _distinct(gallery.captions, settings.context_length, tokenizer)
    with torch.no_grad():
        scores = _scores(model, gallery, captions, settings.context_length)
    own = labels[gallery.places]  # the caption of each clip
    shown = []
    for clip in spread(len(own), count):
        label = int(own[clip])
        right = torch.arange(len(captions)) == label
        shown.append(
            Answer(
                clip,
                captions[label],
                _choices(scores[clip], right, _CAPTIONS),
                _choices(scores[:, label], own == label, _VIDEOS),
            )
        )
    seen = {number for one in shown for number in (one.clip, *(choice.number for choice in one.clips))}
    return Answers(
        model=str(where.relative_to(history.run)),
        about=gallery.about,
        clips=len(labels),
        gallery=len(own),
        captions=tuple(captions),
        chance={} if history.is_finetuning else chance_of(labels.bincount().tolist()),
        shown=tuple(shown),
        strips={number: _strip(gallery, number) for number in sorted(seen)},
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


def _open(history: History, count: int) -> tuple[FinetuneSettings | PretrainSettings, Gallery]:
    """What the run was evaluated on: which benchmark it was, its results say."""
    if not history.is_finetuning:
        pretrained = PretrainSettings.resolve(history.settings)
        return pretrained, read_held_out(pretrained, count)
    if not (history.run / RESULTS).is_file():
        raise RequestError(f"the run has not been tested yet: it has no {RESULTS}, which names its benchmark")
    results = read_results(str(history.run / RESULTS))
    tuned = FinetuneSettings.resolve(history.settings)
    return tuned, read_benchmark(results["benchmark"], results["split"], tuned, count)


def _distinct(captions: list[str], words: int, tokenizer: Tokenizer) -> tuple[list[str], Tensor]:
    """Captions that the tokenizer does not make equal, and which of them each of the given ones is, int64 (N,)."""
    _, labels = tokenizer(captions, words).unique(dim=0, return_inverse=True)
    first: dict[int, str] = {}
    for label, caption in zip(labels.tolist(), captions, strict=True):
        first.setdefault(label, caption)
    return [first[label] for label in sorted(first)], labels


def _scores(model: VideoTextModel, gallery: Gallery, captions: list[str], words: int) -> Tensor:
    """(clips, captions)."""
    tokenizer = tokenizer_of(model_cfg_of(model.clip))
    texts = [
        model.encode_text(tokenizer(captions[at : at + _AT_ONCE], words)) for at in range(0, len(captions), _AT_ONCE)
    ]
    rows = []
    for at in range(0, len(gallery.frames), _CLIPS):
        mask = None if gallery.mask is None else gallery.mask[at : at + _CLIPS]
        video = encode_frames(model, gallery.frames[at : at + _CLIPS], mask)
        rows.append(torch.cat([model.similarity(video, text) for text in texts]).T.float())
    return torch.cat(rows)


def _choices(scores: Tensor, right: Tensor, first: int) -> tuple[Choice, ...]:
    """Of scores (N,), of which some are `right`, bool (N,): the `first` ones, and the right one with its rank."""
    order = scores.nan_to_num(nan=float("-inf")).argsort(descending=True, stable=True).tolist()
    choices = [Choice(rank, at, bool(right[at])) for rank, at in enumerate(order[:first], 1)]
    if not any(choice.is_right for choice in choices):
        best = next(at for at in order if right[at])
        ranked = rank_rows(scores[None], torch.tensor([1]), right.long())
        choices.append(Choice(round(float(ranked.values[0])), best, True))
    return tuple(choices)


def _strip(gallery: Gallery, number: int) -> Strip:
    """Of a clip of the gallery, the frames that it has."""
    frames: NDArray[np.uint8] = gallery.frames[number].numpy()
    if gallery.mask is not None:
        frames = frames[gallery.mask[number].numpy()]
    return make_strip(frames, min(_SIDE, frames.shape[1]))


def _last_model(run: Path) -> Path:
    """The model at the end of the run, or else of its latest checkpoint."""
    if (run / FINAL).is_dir():
        return run / FINAL
    steps = steps_in(run / CHECKPOINTS)
    if not steps:
        raise RequestError("the run has no checkpoint yet")
    return run / CHECKPOINTS / step_name(steps[-1])
