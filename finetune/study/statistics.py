"""How far a figure of the study may be chance: intervals over seeds and over queries at once, paired differences, and power.

Outcomes are (S seeds, Q queries) between 0 and 1. Both are drawn again, with replacement (the hierarchical bootstrap of Davison
and Hinkley, 1997, 3.8): a seed with all of its outcomes, and of the queries whole groups, since the four of a group are of one
scene. What is resampled has (S - 1) / S of the variance between seeds, which with five seeds matters: so the seeds' deviations
from their mean are stretched by sqrt(S / (S - 1)). One seed says nothing of others: then the interval is over queries only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS = 4000
_Z = 1.959964  # of 95 %


class Figure(NamedTuple):
    """In percent, or in points where it is a difference; the interval is of 95 % unless another level was asked for."""

    value: float
    low: float
    high: float
    seeds: int
    queries: int

    def told(self, *, sign: bool = False) -> str:
        """
        >>> Figure(41.26, 39.8, 42.71, 5, 1000).told()
        '41.3 (39.8 to 42.7)'
        """
        form = "{:+.1f}" if sign else "{:.1f}"
        return f"{form.format(self.value)} ({form.format(self.low)} to {form.format(self.high)})"


class Power(NamedTuple):
    """Of a difference: its standard deviations, in points, between seeds, between groups of queries, and of what is left of a
    group in a seed; and how many seeds would do with the groups that there are, and how many groups with the seeds."""

    of_seeds: float
    of_groups: float
    of_both: float
    groups: int
    seeds: int
    seeds_needed: int | None
    groups_needed: int | None

    def width(self, seeds: int, groups: int) -> float:
        """Of the 95 % interval, in points."""
        return width_of(self.of_seeds, self.of_groups, self.of_both, seeds, groups)


def figure_of(outcomes: Floats, groups: Ints, *, level: float = 0.95) -> Figure:
    """The mean of outcomes (S, Q), each query of a group (Q,), times 100."""
    assert outcomes.ndim == 2 and outcomes.shape[1] == len(groups), (outcomes.shape, groups.shape)
    sums, sizes = _by_group(outcomes, groups)
    seeds, count = sums.shape
    middle = sums.mean(axis=0)
    stretched = middle + (sums - middle) * (math.sqrt(seeds / (seeds - 1)) if seeds > 1 else 1.0)
    random = np.random.default_rng(0)
    of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS) / seeds
    of_groups = random.multinomial(count, np.full(count, 1 / count), size=DRAWS)
    drawn = 100 * ((of_seeds @ stretched) * of_groups).sum(axis=1) / (of_groups @ sizes)
    low, high = np.percentile(drawn, [50 * (1 - level), 50 * (1 + level)])
    return Figure(100 * float(outcomes.mean()), float(low), float(high), seeds, outcomes.shape[1])


def within_bounds(share: Figure) -> Figure:
    """Of a share: what is stretched may reach below 0 or above 100."""
    return share._replace(low=max(share.low, 0.0), high=min(share.high, 100.0))


def power_of(outcomes: Floats, groups: Ints, points: float) -> Power:
    """What brings the 95 % interval of a difference, whose outcomes (S, Q) these are, to a width of so many points.

    The components of variance of a two-way layout, seeds by groups, by their mean squares (Searle, 1971, ch. 9)."""
    sums, sizes = _by_group(outcomes, groups)
    means = 100 * sums / sizes
    seeds, count = means.shape
    whole, rows, columns = means.mean(), means.mean(axis=1), means.mean(axis=0)
    left = means - rows[:, None] - columns[None] + whole
    if seeds < 2:
        return Power(0.0, float(columns.std(ddof=1)), 0.0, count, seeds, None, None)
    of_left = float((left**2).sum()) / ((seeds - 1) * (count - 1))
    of_seeds = max(float(rows.var(ddof=1)) - of_left / count, 0.0)
    of_groups = max(float(columns.var(ddof=1)) - of_left / seeds, 0.0)
    parts = math.sqrt(of_seeds), math.sqrt(of_groups), math.sqrt(of_left)
    some = range(2, 1001)
    more = [count * times // 4 for times in range(1, 401)]
    seeds_needed = next((one for one in some if width_of(*parts, one, count) <= points), None)
    groups_needed = next((one for one in more if one and width_of(*parts, seeds, one) <= points), None)
    return Power(*parts, count, seeds, seeds_needed, groups_needed)


def width_of(of_seeds: float, of_groups: float, of_both: float, seeds: int, groups: int) -> float:
    """Of a 95 % interval, by its components."""
    variance = of_seeds**2 / seeds + of_groups**2 / groups + of_both**2 / (seeds * groups)
    return 2 * _Z * math.sqrt(variance)


def answer_of(difference: Figure, points: float) -> str:
    """Does it gain? `yes` where the interval is above 0, `no` where it leaves no room for a gain of half of `points`, else
    `undecided`, as what one seed found, which says nothing of others."""
    if difference.seeds < 2:
        return "undecided"
    if difference.low > 0:
        return "yes"
    return "no" if difference.high < points / 2 else "undecided"


def any_answer(answers: Sequence[str]) -> str:
    """Of a question that one of several may answer: `yes` if one is, `no` if all are."""
    if "yes" in answers:
        return "yes"
    return "no" if answers and all(one == "no" for one in answers) else "undecided"


def _by_group(outcomes: Floats, groups: Ints) -> tuple[Floats, Floats]:
    """Sums (S, G) of the outcomes of each group, and its size (G,)."""
    names, members = np.unique(groups, return_inverse=True)
    members = members.reshape(-1)
    sums: Floats = np.stack([np.bincount(members, row, len(names)) for row in outcomes]).astype(np.float64)
    return sums, np.bincount(members, minlength=len(names)).astype(np.float64)
