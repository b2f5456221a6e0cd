"""Who is who in a batch: which pairs are no negatives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stillreel.pretrain.data.identity import Identity
from stillreel.pretrain.objectives.gather import gather, own_slots


class Truth(NamedTuple):
    """Which of the B columns are what to the b own rows. The same for captions with clips and for clips with captions."""

    slots: Tensor  # int64 (b,), the column of the row's own partner
    excused: Tensor  # bool (b, B): another row's, but neither right nor wrong

    def negatives(self) -> Tensor:
        """bool (b, B): the columns that are wrong."""
        return ~self.excused & ~self.partners()

    def partners(self) -> Tensor:
        """bool (b, B): one True in each row."""
        columns = torch.arange(self.excused.shape[1], device=self.slots.device)
        return columns == self.slots[:, None]


class Known(NamedTuple):
    """Who the b own rows and the B columns of a batch are, of which the truth of any of the rows is told."""

    own: Identity
    slots: Tensor  # int64 (b,)
    captions: Tensor  # int64 (B,)
    sources: Tensor  # int64 (B,)

    def truth(self, rows: slice = slice(None)) -> Truth:
        """Excuses a clip and a caption of two rows that share their caption or their source."""
        same_caption = self.own.captions[rows, None] == self.captions
        same_source = self.own.sources[rows, None] == self.sources
        truth = Truth(self.slots[rows], same_caption | same_source)
        return truth._replace(excused=truth.excused & ~truth.partners())


def gather_identity(identity: Identity) -> Known:
    """All ranks must call it."""
    slots = own_slots(len(identity.captions), identity.captions.device)
    return Known(identity, slots, gather(identity.captions), gather(identity.sources))
