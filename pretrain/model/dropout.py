"""Random draws that are a function of (sample and step, module, element), and of nothing else.

A generator's next number depends on who drew before: on the rank, the chunk, the order of modules. Here a number is a hash:
Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (2011), argue for such counter-based draws. Who trains gives each
sample its own int64, `draws`, made of (seed, key, step); without it these modules draw one from torch's generator.

    draws of a sample, number of the module  -> 32-bit key        index of the element -> 32-bit place
    key, place                               -> 32-bit number, uniform

The arithmetic is of int64 that never leave [0, 2^63), so that no device or compiler may see it differently: 32-bit words are
multiplied by constants below 2^30. Its two multiplications are those of Wellons' hash-prospector (15-bit bias 0.19).
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

_WORD = (1 << 32) - 1


class Drawing(nn.Module):
    """A module that draws, in training. `number` tells it from the others: a digest of its name in the model."""

    number = 0

    def words(self, draws: Tensor | None, samples: int, elements: int, device: torch.device) -> Tensor:
        """Uniform integers below 2^32, int64 (samples, elements), for samples with these `draws` (samples,)."""
        if draws is None:  # not in our loop
            draws = torch.randint(1 << 62, (samples,), device=device)
        places = _mix(torch.arange(elements, device=device))
        return _mix(_key(draws, self.number)[:, None] ^ places)

    def kept(self, rate: float, draws: Tensor | None, samples: int, elements: int, device: torch.device) -> Tensor:
        """bool (samples, elements), False at this rate."""
        return self.words(draws, samples, elements, device) >= round(rate * (1 << 32))


class Dropout(Drawing):
    """Zeros at a rate, in training; the others are scaled up. Values (N, ...) of samples with draws (N,)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, values: Tensor, draws: Tensor | None) -> Tensor:
        if not self.training or self.rate == 0:
            return values
        kept = self.kept(self.rate, draws, len(values), values[0].numel(), values.device)
        return values * kept.view_as(values) / (1 - self.rate)


class DropPath(Drawing):
    """Leaves out a residual branch of whole sequences (axis 0) at a rate, in training, and scales up the others.

    Huang et al., Deep Networks with Stochastic Depth, 2016. A sample may have several sequences, one after another.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor, draws: Tensor | None) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        samples = len(branch) if draws is None else len(draws)
        kept = self.kept(self.rate, draws, samples, len(branch) // samples, branch.device)
        return branch * kept.reshape(-1, *[1] * (branch.ndim - 1)) / (1 - self.rate)


class PatchDropout(Drawing):
    """Which places of a clip's frames are seen in training: the same in all its frames, and equally many in all clips.

    Li et al., Scaling Language-Image Pre-training via Masking (FLIP, arXiv 2212.00794).
    """

    def __init__(self) -> None:
        super().__init__()
        self.rate = 0.0  # set by who trains: no part of what the model is

    def forward(self, draws: Tensor | None, clips: int, places: int, device: torch.device) -> Tensor | None:
        """Indices int64 (clips, K) of places, rising; None for all."""
        if not self.training or self.rate == 0:
            return None
        words = self.words(draws, clips, places, device)
        order = words * places + torch.arange(places, device=device)  # no ties: devices would break them differently
        return order.argsort(dim=1)[:, : places_kept(places, self.rate)].sort(dim=1).values


def places_kept(places: int, rate: float) -> int:
    """K, the patches of a frame that are left at a rate of patch dropout."""
    return max(1, round(places * (1 - rate)))


def number_modules(model: nn.Module) -> None:
    """Give each module that draws its number, by its name: another module more or less changes no draw."""
    for name, module in model.named_modules():
        if isinstance(module, Drawing):
            module.number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def pair_draws(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Draws (A, B) of the pairs of A samples with B others."""
    if first is None or second is None:
        return None
    return (_key(first, 1)[:, None] >> 1 << 32) | _key(second, 2)


def _key(draws: Tensor, number: int) -> Tensor:
    low = _mix((draws & _WORD) ^ number)
    return _mix(low ^ ((draws >> 32) & _WORD))


def _mix(words: Tensor) -> Tensor:
    """A bijection of 32-bit words, in which each bit of the outcome hangs on each bit given. Changes `words` in place."""
    words ^= words >> 15
    words *= 0x2C1B3C6D
    words &= _WORD
    words ^= words >> 12
    words *= 0x297A2D39
    words &= _WORD
    words ^= words >> 15
    return words
