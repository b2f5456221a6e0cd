"""The coarse model learns the re-ranker's order of each caption's nearest clips, and of each clip's nearest captions.

Tian et al., TeachCLIP (CVPR 2024, arXiv 2308.01217) teach a dual encoder the rows and the columns of a heavier model's
similarities of a batch, by Pearson's distance of their softmaxes: that of Huang et al., DIST (arXiv 2205.10536), to which
neither the scale nor the offset of the teacher's shares matters. Their teacher scores all pairs of a batch; ours, for the price
of k pairs a row, those among which the order matters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stillreel.pretrain.model.features import TextFeatures, VideoFeatures, pick_rows
from stillreel.pretrain.model.rerank import Reranker
from stillreel.pretrain.objectives.identity import Truth

_TINY = 1e-12  # a variance of shares below which there is no order to learn


def distillation_loss(
    teacher: Reranker,
    own: tuple[VideoFeatures, TextFeatures],
    whole: tuple[VideoFeatures, TextFeatures],
    by_caption: Tensor,
    by_clip: Tensor,
    truth: Truth,
    count: int,
) -> Tensor:
    """The mean of both directions: own captions among all clips, own clips among all captions.

    `by_caption` and `by_clip` are the coarse logits (b, B). Of each row, its partner and the `count` - 1 others with the
    largest ones are compared, excused pairs not among them. The teacher gets no gradient.
    """
    clips, captions = (nearest(logits, truth, count) for logits in (by_caption, by_clip))
    with torch.no_grad():
        of_clips, of_captions = _teach(teacher, own, whole, clips, captions, truth.slots)
    excused = truth.excused
    distances = [
        pearson_distance(logits.gather(1, columns), taught, ~excused.gather(1, columns))
        for logits, columns, taught in ((by_caption, clips, of_clips), (by_clip, captions, of_captions))
    ]
    return (distances[0] + distances[1]) / 2


def _teach(
    teacher: Reranker,
    own: tuple[VideoFeatures, TextFeatures],
    whole: tuple[VideoFeatures, TextFeatures],
    clips: Tensor,
    captions: Tensor,
    slots: Tensor,
) -> tuple[Tensor, Tensor]:
    """The teacher's logits (b, k) of own captions with `clips` (b, k), and of own clips, columns `slots`, with `captions` (b, k).

    A column of candidates at a time, b pairs with all places of their captions: no shape depends on a value, so nobody waits
    for the device, and a compiled block has the same few shapes in every step. `Reranker.candidates`, for evaluation, cuts
    padding off and reads no clip twice at once, and for that asks the device what there is.
    """
    if len(whole[0].mask) <= clips.numel():  # as many ranks as candidates at most: each clip of the batch is read once
        memory = teacher.read(whole[0])
        of_clips = [teacher.judge(memory, own[1], column[:, None])[:, 0] for column in clips.T]
    else:
        memory, slots = teacher.read(own[0]), torch.arange(len(slots), device=slots.device)
        of_clips = [teacher(pick_rows(whole[0], column), own[1]) for column in clips.T]
    of_captions = [teacher.judge(memory, pick_rows(whole[1], column), slots[:, None])[:, 0] for column in captions.T]
    return torch.stack(of_clips, dim=1), torch.stack(of_captions, dim=1)


def nearest(logits: Tensor, truth: Truth, count: int) -> Tensor:
    """Columns (b, k) of the partner and of the largest others of each row of logits (b, B), k at most B.

    Where there are too few, excused ones fill the row.
    """
    places = logits.detach().masked_fill(truth.excused, -torch.inf).masked_fill(truth.partners(), torch.inf)
    return places.topk(min(count, logits.shape[1]), dim=1).indices


def pearson_distance(logits: Tensor, taught: Tensor, there: Tensor) -> Tensor:
    """The mean over rows (b, k) of 1 less the correlation of their softmaxes, where there are two or more to compare."""
    student, teacher = (_centerd(one, there) for one in (logits, taught.to(logits.dtype)))
    lengths = (student.square().sum(dim=1) + _TINY).sqrt() * (teacher.square().sum(dim=1) + _TINY).sqrt()
    distances = 1 - (student * teacher).sum(dim=1) / lengths
    return distances.masked_fill(there.sum(dim=1) < 2, 0).mean()


def _centerd(logits: Tensor, there: Tensor) -> Tensor:
    """Shares less their mean, and zero where there are none."""
    shares = logits.masked_fill(~there, -torch.inf).softmax(dim=1)
    return (shares - 1 / there.sum(dim=1, keepdim=True)).masked_fill(~there, 0)
