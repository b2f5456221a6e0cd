"""Losses over own rows of logits against all columns: the means of b rows, whose mean over ranks is the batch's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from stillreel.pretrain.objectives.identity import Truth


def info_nce(by_caption: Tensor, by_clip: Tensor, truth: Truth, *, summed: bool = False) -> Tensor:
    """Cross entropy of own captions among all clips and of own clips among all captions; their mean, or their sum.

    `by_caption` and `by_clip` are logits (b, B). Excused pairs are in no denominator.
    """
    captions, clips = (
        F.cross_entropy(logits.masked_fill(truth.excused, float("-inf")), truth.slots)
        for logits in (by_caption, by_clip)
    )
    both = captions + clips
    return both if summed else both / 2


def sigmoid_loss(by_caption: Tensor, bias: Tensor, truth: Truth) -> Tensor:
    """Each pair of an own caption and a clip judged by itself, summed over clips. Excused pairs count nothing.

    Zhai et al., Sigmoid Loss for Language Image Pre-Training (2023); logits (b, B), its bias a scalar.
    """
    logits = by_caption + bias
    right = F.logsigmoid(logits.where(truth.partners(), -logits))
    return -right.masked_fill(truth.excused, 0).sum() / len(logits)
