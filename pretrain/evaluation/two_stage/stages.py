"""The two stages of a model: vectors, whose products propose, and scores of pairs, which order what was proposed.

A clip's vector times a query's is the dual encoder's similarity without its temperature. With TAB that is a weighted sum of two
cosines, and so the product of two vectors of twice the width. `mug` and `tight` compare no vectors: their candidates come
from the cosine of what is pooled, and the fine stage is the head itself, unless there is a re-ranker.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures, in_fp32, pick_rows, unit
from stillreel.pretrain.model.heads import Dot
from stillreel.pretrain.model.rerank import Memory

_ROWS = 256  # clips that a head compares with a caption at once


def vectors_of_clips(video: VideoFeatures) -> Tensor:
    """(B, E), or (B, 2 E) with TAB."""
    whole = unit(video.pooled)
    return whole if video.aligned is None else torch.cat([whole, video.aligned], dim=1)


def vectors_of_queries(model: VideoTextModel, pooled: Tensor, aligned: Tensor | None) -> Tensor:
    """What is multiplied with the vectors of clips, of texts or of clips: (A, E) or (A, 2 E)."""
    if aligned is None:
        return unit(pooled)
    weight = model.settings.tab.weight
    return torch.cat([weight * unit(pooled), (1 - weight) * aligned], dim=1)


def coarse_scores(model: VideoTextModel, video: VideoFeatures, text: TextFeatures) -> Tensor:
    """Logits (A, B) of all pairs by their vectors, in fp32: with the temperature, so that they can be mixed with fine ones."""
    video, text = in_fp32(video), in_fp32(text)
    with torch.no_grad():
        cosines = vectors_of_queries(model, text.pooled, text.aligned) @ vectors_of_clips(video).T
        return coarse_logits(model, cosines)


def coarse_logits(model: VideoTextModel, products: Tensor) -> Tensor:
    """Products of vectors over the temperature, which makes them logits as the fine ones are."""
    tau = model.settings.temperature
    return products / tau if tau else model.clip.logit_scale.detach().exp() * products


def has_fine_stage(model: VideoTextModel) -> bool:
    """Whether the model can compare more than two vectors."""
    return model.reranker is not None or not isinstance(model.head, Dot)


def read_clips(model: VideoTextModel, video: VideoFeatures) -> VideoFeatures | Memory:
    """What the fine stage needs of clips that are asked for by many captions: the re-ranker reads each but once.

    That takes 2 * layers * S numbers of the joint width for each clip of S tokens; `VideoFeatures` do as well, more slowly.
    """
    if model.reranker is None:
        return video
    with torch.no_grad():
        parts = [
            model.reranker.read(in_fp32(pick_rows(video, slice(at, at + _ROWS))))
            for at in range(0, len(video.mask), _ROWS)
        ]
        return Memory(*(torch.cat(column) for column in zip(*parts, strict=True)))


def fine_scores(model: VideoTextModel, video: VideoFeatures | Memory, text: TextFeatures, clips: Tensor) -> Tensor:
    """Logits (A, K) of A texts, each with its own candidates, rows `clips` (A, K) of the videos, in fp32.

    By the re-ranker, or by a head that compares pairs. RequestError where the model has neither.
    """
    text = in_fp32(text)
    with torch.no_grad():
        if isinstance(video, Memory):
            return model.needed_reranker().candidates(video, text, clips)
        video = in_fp32(video)
        if model.reranker is not None or isinstance(model.head, Dot):
            return model.needed_reranker().candidates(video, text, clips)
        scores = text.pooled.new_empty(clips.shape)
        for at, own in enumerate(clips):
            one = pick_rows(text, slice(at, at + 1))
            for start in range(0, len(own), _ROWS):
                rows = own[start : start + _ROWS]
                scores[at, start : start + _ROWS] = model.similarity(pick_rows(video, rows), one)[0]
        return model.logits(scores)
