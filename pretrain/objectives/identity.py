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


def tell_truth(identity: Identity) -> Truth:
    """Excuses a clip and a caption of two rows that share their caption or their source. All ranks must call it."""
    slots = own_slots(len(identity.captions), identity.captions.device)
    same_caption = identity.captions[:, None] == gather(identity.captions)
    same_source = identity.sources[:, None] == gather(identity.sources)
    truth = Truth(slots, same_caption | same_source)
    return truth._replace(excused=truth.excused & ~truth.partners())
