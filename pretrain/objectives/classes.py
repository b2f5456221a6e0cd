"""Clips told apart by the texts of all classes, not by those that a batch happens to have: recognition's cross entropy.

The texts are dealt to the slots of a batch, m = ceil(C / B) to each, and are encoded with their rows: by every rank its share,
chunk by chunk, once a step. So their gradient is that of one process that encodes them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stillreel.pretrain.model.features import TextFeatures
from stillreel.pretrain.objectives.gather import gather_features, own_slots, rank_count


class Classes(NamedTuple):
    """Of a rank's b rows: the class of each clip, and its share of the texts of all C."""

    labels: Tensor  # int64 (b,)
    # int64 (b, m, W): slot s of the batch has texts s * m ... s * m + m - 1, of C laid round and round
    token_ids: Tensor
    total: int  # C

    def rows(self, rows: slice) -> Classes:
        return Classes(self.labels[rows], self.token_ids[rows], self.total)


class ClassTexts:
    """The texts of a benchmark's classes, which are also the captions of its clips."""

    def __init__(self, texts: Sequence[str], token_ids: Tensor) -> None:
        """`token_ids` int64 (C, W)."""
        assert len(texts) == len(token_ids) > 0
        self._token_ids = token_ids
        self._numbers = {text: number for number, text in reversed(list(enumerate(texts)))}

    def deal(self, captions: Sequence[str]) -> Classes:
        """To the rows of a rank whose clips have these captions; all ranks have equally many."""
        labels = torch.tensor([self._numbers[caption] for caption in captions])
        total, batch = len(self._token_ids), len(captions) * rank_count()
        each = -(-total // batch)
        places = own_slots(len(captions), labels.device)[:, None] * each + torch.arange(each)
        return Classes(labels, self._token_ids[places % total], total)


def share_of(text: TextFeatures, each: int) -> TextFeatures:
    """Features of b * m texts as those of b rows, of what scores by vectors look at."""
    vectors = text._replace(tokens=text.tokens[:, :0], mask=text.mask[:, :0], draws=None)
    return TextFeatures._make(None if field is None else field.unflatten(0, (-1, each)) for field in vectors)


def gather_classes(own: TextFeatures, total: int) -> TextFeatures:
    """Features of all C texts from each rank's share (b, m, ...). All ranks must call it."""
    whole = gather_features(own)
    return TextFeatures._make(None if field is None else field.flatten(0, 1)[:total] for field in whole)
