"""The matching loss: is this the caption of that clip? The wrong ones are drawn where the coarse model errs most.

Li et al., ALBEF (arXiv 2107.07651), section 3.2: to each caption a wrong clip and to each clip a wrong caption, in
proportion to the softmax of the contrastive similarity, from the batch of all ranks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from stillreel.pretrain.model.features import TextFeatures, VideoFeatures, pick_rows
from stillreel.pretrain.objectives.identity import Truth

# Logits (P,) that caption p is clip p's: features of P clips, features of P captions.
Scorer = Callable[[VideoFeatures, TextFeatures], Tensor]


def draw_negatives(logits: Tensor, truth: Truth, units: Tensor) -> Tensor:
    """One wrong column (b,) for each row of logits (b, B), by softmax over the wrong ones; -1 where there is none.

    `units` (b,) in [0, 1) say where on the scale of all wrong columns, laid end to end, the draw falls.
    """
    wrong = truth.negatives()
    odds = logits.detach().double().masked_fill(~wrong, float("-inf")).softmax(dim=1).nan_to_num(0.0)
    ends = odds.cumsum(dim=1)
    drawn = torch.searchsorted(ends, (units * ends[:, -1])[:, None], right=True)[:, 0]
    # At the very end of the scale rounding may step over the last wrong column.
    columns = torch.arange(logits.shape[1], device=logits.device)
    last = torch.where(odds > 0, columns, -1).amax(dim=1)
    return torch.minimum(drawn, last)


def matching_loss(
    score: Scorer,
    video: VideoFeatures,
    text: TextFeatures,
    truth: Truth,
    negative_clips: Tensor,
    negative_captions: Tensor,
) -> Tensor:
    """Binary cross entropy of 3b pairs: own captions with their clips, with negative clips; own clips with negative captions.

    `video` and `text` are of the whole batch. The mean is over 3b pairs; one that has no negative (-1) counts nothing. A
    single logit, not ALBEF's two: the same loss, of the two's difference.
    """
    own = truth.slots
    clips = torch.cat([own, negative_clips, own])
    captions = torch.cat([own, own, negative_captions])
    there = (clips >= 0) & (captions >= 0)
    logits = score(pick_rows(video, clips.clamp(min=0)), pick_rows(text, captions.clamp(min=0))).reshape(-1)
    matched = torch.arange(len(clips), device=own.device) < len(own)
    each = F.binary_cross_entropy_with_logits(logits, matched.to(logits.dtype), reduction="none")
    return each.masked_fill(~there, 0).sum() / len(clips)
