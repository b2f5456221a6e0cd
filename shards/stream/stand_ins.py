"""Stand-ins: what a slot gets whose sample is damaged.

It gets what lies `stride` positions later; if that is damaged too, what lies as many later again, and so on. All other slots
keep theirs. Who reads which slots does not matter, so no layout of ranks and workers sees another stand-in than any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from stillreel.configs import DataError
from stillreel.shards.stream.faults import BadSample, BadShard
from stillreel.shards.stream.order import Ints

_MOST_STAND_INS = 16

Value = TypeVar("Value")
Damage = BadSample | BadShard


def fill_slots(
    positions: Ints, stride: int, read: Callable[[list[int], Ints], Iterable[Value | Damage]]
) -> list[tuple[Value, tuple[Damage, ...]]]:
    """What each position (n,) has, or its stand-in; and the damage that was passed over on the way.

    `read(slots, positions)` gives what some positions have, for the slots of those numbers. DataError when a slot has no whole
    stand-in either.
    """
    filled: dict[int, tuple[Value, tuple[Damage, ...]]] = {}
    passed: list[tuple[Damage, ...]] = [()] * len(positions)
    places = np.array(positions)
    for _ in range(1 + _MOST_STAND_INS):
        waiting = [slot for slot in range(len(positions)) if slot not in filled]
        if not waiting:
            return [filled[slot] for slot in range(len(positions))]
        for slot, value in zip(waiting, read(waiting, places[waiting]), strict=True):
            if isinstance(value, BadSample | BadShard):
                passed[slot] += (value,)
            else:
                filled[slot] = value, passed[slot]
        places[waiting] += stride
    lost = next(damage for slot, damage in enumerate(passed) if slot not in filled)
    raise DataError(f"{len(lost)} samples that were tried for one slot are damaged, the first of them {lost[0]}")
