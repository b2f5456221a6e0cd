"""Who is who in a batch: which pairs are no negatives, and the numbers that a sample's random draws are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stillreel.configs.system.dice import units_of
from stillreel.pretrain.objectives.gather import gather, own_slots

_LABELS = ("negative clip", "negative caption")


class Identity(NamedTuple):
    """Of the b own rows of a batch."""

    captions: Tensor  # int64 (b,), equal for equal captions
    sources: Tensor  # int64 (b,), equal for clips of one picture
    units: Tensor  # float64 (b, 2) in [0, 1): where the draws of a negative clip and of a negative caption fall
    draws: Tensor  # int64 (b,): what the model's own draws, of dropout, are made of


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


def identify(keys: Sequence[str], captions: Sequence[str], sources: Sequence[str], *, seed: int, step: int) -> Identity:
    """Of samples by key, their captions, and the keys of the pictures they show.

    Captions that differ in case and blanks only are equal, as they are to CLIP's tokenizer. Units and draws are a function of
    (seed, key, step): neither the rank nor the other samples enter.
    """
    units = units_of(seed, keys, [f"{label}, step {step}" for label in _LABELS])
    return Identity(
        torch.tensor([_number(" ".join(caption.lower().split())) for caption in captions], dtype=torch.int64),
        torch.tensor([_number(source) for source in sources], dtype=torch.int64),
        torch.tensor(units, dtype=torch.float64).reshape(-1, len(_LABELS)),
        torch.tensor([_number(f"{seed}\0{step}\0{key}") for key in keys], dtype=torch.int64),
    )


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


def tell_truth(identity: Identity) -> Truth:
    """Of all own rows. All ranks must call it."""
    return gather_identity(identity).truth()


def _number(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
