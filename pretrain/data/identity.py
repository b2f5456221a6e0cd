"""Who is who in a batch: the numbers by which equal captions and pictures are found, and of which a sample's random draws are
made. A loader's workers work them out: some thousand hashes a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stillreel.configs.system.dice import units_of

_LABELS = ("negative clip", "negative caption")


class Identity(NamedTuple):
    """Of the b own rows of a batch."""

    captions: Tensor  # int64 (b,), equal for equal captions
    sources: Tensor  # int64 (b,), equal for clips of one picture
    units: Tensor  # float64 (b, 2) in [0, 1): where the draws of a negative clip and of a negative caption fall
    draws: Tensor  # int64 (b,): what the model's own draws, of dropout, are made of


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


def _number(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
