"""Shards that take far longer than others are named while they run, not ended: their workers may wait for a disk or a network."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from statistics import median

from stillreel.configs.system.progress import duration

_TIMES, _AT_LEAST_S = 10, 60.0  # the median of those that are finished, but no less
_UNCOMPARED_S = 900.0  # where none is finished


class LateShards:
    """Knows how long shards take, by plan and number, and which of them are late."""

    def __init__(self) -> None:
        self._begun: dict[tuple[int, int], float] = {}
        self._told: set[tuple[int, int]] = set()
        self._spans: deque[float] = deque(maxlen=1000)

    def begin(self, plan: int, shard: int) -> None:
        self._begun[plan, shard] = time.monotonic()

    def end(self, plan: int, shard: int, *, made: bool) -> None:
        spent = time.monotonic() - self._begun.pop((plan, shard))
        if made:
            self._spans.append(spent)
        self._told.discard((plan, shard))

    def new(self) -> Iterator[tuple[int, int, str]]:
        """Each shard that has become late since the last call: its plan and number, and how late it is, in words."""
        now = time.monotonic()
        usual = median(self._spans) if self._spans else None
        limit = _UNCOMPARED_S if usual is None else max(_TIMES * usual, _AT_LEAST_S)
        for shard in [one for one, begun in self._begun.items() if now - begun > limit and one not in self._told]:
            self._told.add(shard)
            spent = now - self._begun[shard]
            compared = "" if usual is None else f", {spent / usual:.0f} times the median of others"
            yield *shard, f"has run for {duration(spent)}{compared}"
