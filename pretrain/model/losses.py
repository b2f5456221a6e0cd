"""The losses of the published models, over a matrix of logits (texts, videos)."""

from __future__ import annotations

from torch import Tensor, arange
from torch.nn import functional as F


def contrastive_loss(logits: Tensor, *, summed: bool = False) -> Tensor:
    """Cross entropy of each caption among the clips and of each clip among the captions: the mean of the two directions.

    True pairs lie on the diagonal. `summed` adds the directions instead, as STAN publishes it: twice the loss.
    """
    truth = arange(len(logits), device=logits.device)
    both = F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)
    return both if summed else both / 2


def recognition_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each clip among the classes (the texts), whose indices `labels` (videos,) are. STAN's."""
    return F.cross_entropy(logits.T, labels)
