"""Counter-based randomness: a draw is a hash of (seed, source key, label), never the next state of a generator.

So what is drawn for a picture does not depend on the worker, the order, the shard or the other pictures, and a draw that
is added later changes none of the others. BLAKE2b is specified to the bit, unlike any library's `uniform`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

_UNPACK = struct.Struct("<8Q").unpack
_SCALE = 2.0**-53


class Dice:
    """Draws for one picture. Equal (seed, source key) give equal draws; the grammar does not enter, so that all
    grammars agree on what they share: the caption that is used, and whether the picture is mirrored."""

    def __init__(self, seed: int, source_key: str) -> None:
        self._key = hashlib.blake2b(f"{seed}\0{source_key}".encode("utf-8", "surrogatepass"), digest_size=32).digest()

    def units(self, label: str, count: int) -> list[float]:
        """`count` numbers, uniform in [0, 1) with 53 bits each. A longer list begins with the shorter one."""
        words: list[int] = []
        for block in range(-(-count // 8)):
            words += _UNPACK(hashlib.blake2b(self._key + f"{label}\0{block}".encode()).digest())
        return [(word >> 11) * _SCALE for word in words[:count]]

    def unit(self, label: str) -> float:
        """One number, uniform in [0, 1)."""
        return self.units(label, 1)[0]

    def seed(self, label: str) -> int:
        """A 32-bit seed for something that draws for itself."""
        return int(self.unit(label) * 2**32)


def units_of(seed: int, source_keys: Sequence[str], labels: Sequence[str]) -> list[list[float]]:
    """A row for each key: what its Dice give for each label."""
    return [[dice.unit(label) for label in labels] for dice in (Dice(seed, key) for key in source_keys)]


def between(low: float, high: float, unit: float) -> float:
    """`unit` in [0, 1) stretched to [low, high)."""
    return low + (high - low) * unit


def pick(weights: Sequence[float], unit: float) -> int:
    """Index drawn in proportion to `weights`, of which at least one is positive."""
    left = unit * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return max(index for index, weight in enumerate(weights) if weight > 0)  # rounding at the very end
