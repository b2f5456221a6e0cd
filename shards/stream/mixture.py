"""Several data sets in one order: which of them feeds a position, and with which of its own positions.

Each lane deals out its turns in rounds of ROUND: in every round a data set has exactly as many turns as its weight says, in an
order drawn for (seed, lane, round). Within its turns a lane goes through its piece of the data set, epoch after epoch, as
if there were no other: so each data set keeps its own epochs, a lane its own shards, and a rank its share.

    weights 3 : 1, a round of 4, one lane      data set  0 1 0 0  0 0 1 0      its own position  0 0 1 2  3 4 1 5
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stillreel.shards.stream.order import Ints, Kept, permutation

ROUND = 1024


class Mixture:
    """Weights are met exactly in every ROUND turns of a lane, after rounding to 1 / ROUND."""

    def __init__(self, weights: Sequence[float], seed: int, lanes: int) -> None:
        """`weights` are positive, one a data set, and need not add up to 1."""
        assert weights and min(weights) > 0, weights
        self.turns = _rounded(weights)
        self._lanes = lanes
        self._seed = seed
        self._pattern = np.repeat(np.arange(len(weights)), self.turns)
        self._rounds: Kept[tuple[int, int], _Round] = Kept(2 * lanes, self._draw_round)

    def split(self, positions: Ints) -> tuple[Ints, Ints]:
        """The data set of each position (n,), and the position in that data set's own order, (n,)."""
        if len(self.turns) == 1:
            return np.zeros(len(positions), np.int64), positions
        lanes, turns = positions % self._lanes, positions // self._lanes
        rounds, places = turns // ROUND, turns % ROUND
        chosen, own = np.empty_like(positions), np.empty_like(positions)
        for lane, number in set(zip(lanes.tolist(), rounds.tolist(), strict=True)):
            mine = np.flatnonzero((lanes == lane) & (rounds == number))
            dealt = self._rounds[lane, number]
            chosen[mine] = dealt.chosen[places[mine]]
            own_turns = number * np.asarray(self.turns)[chosen[mine]] + dealt.before[places[mine]]
            own[mine] = own_turns * self._lanes + lane
        return chosen, own

    def _draw_round(self, key: tuple[int, int]) -> _Round:
        chosen = self._pattern[permutation(ROUND, self._seed, "round", *key)]
        before = np.empty(ROUND, np.int64)
        for number, turns in enumerate(self.turns):
            before[chosen == number] = np.arange(turns)
        return _Round(chosen, before)


class _Round(NamedTuple):
    """The turns of a round (ROUND,): whose each is, and how many that data set had before in the round."""

    chosen: Ints
    before: Ints


def _rounded(weights: Sequence[float]) -> tuple[int, ...]:
    """Turns a round of each data set: the largest remainders get the turns that rounding down leaves, and none gets 0."""
    exact = np.asarray(weights, np.float64) / sum(weights) * ROUND
    turns = np.maximum(np.floor(exact), 1).astype(np.int64)
    for _ in range(ROUND - int(turns.sum())):
        turns[np.argmax(exact - turns)] += 1
    while turns.sum() > ROUND:
        turns[np.argmax(turns)] -= 1
    return tuple(turns.tolist())
