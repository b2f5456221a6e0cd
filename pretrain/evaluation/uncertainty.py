"""How far a figure may be chance: bootstrap intervals, and a paired test between two runs on the same queries.

Both resample clusters, not queries: captions of one video are one observation, not twenty. Where every query is of its own
video, a cluster is a query. What varies is which queries were asked; the videos they are ranked among stay the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stillreel.configs import RequestError
from stillreel.pretrain.evaluation.ranks import Ranks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_AT_ONCE = 1 << 22  # numbers drawn at once


class Interval(NamedTuple):
    """The middle 95 % of what resampling gives."""

    low: float
    high: float


class Difference(NamedTuple):
    """A second run's figure less the first one's, its 95 % interval, and the two-sided p of there being none."""

    value: float
    interval: Interval
    p: float


def intervals(
    ranks: Ranks, depths: Sequence[int] = (1, 5, 10, 50), *, draws: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """By name (r1 ..., mdr, mnr) the percentile interval of a bootstrap over clusters (Efron and Tibshirani, 1993, ch. 13)."""
    columns = np.stack([100.0 * ranks.hits(depth) for depth in depths] + [ranks.values], axis=1)
    members, count = _members(ranks.clusters)
    sums, sizes = _sums(columns, members, count), np.bincount(members, minlength=count)
    order = np.argsort(ranks.values, kind="stable")
    means, medians = [], []
    for weights in _resampled(count, len(order), draws, seed):
        means.append((weights @ sums) / (weights @ sizes)[:, None])
        medians.append(_medians(ranks.values[order], weights[:, members[order]]))
    spread = np.concatenate([np.concatenate(means), np.concatenate(medians)[:, None]], axis=1)
    low, high = np.percentile(spread, [2.5, 97.5], axis=0)
    names = [*(f"r{depth}" for depth in depths), "mnr", "mdr"]
    return {name: Interval(float(low[at]), float(high[at])) for at, name in enumerate(names)}


def compare(
    first: Ranks, second: Ranks, depths: Sequence[int] = (1, 5, 10, 50), *, draws: int = 10_000, seed: int = 0
) -> dict[str, Difference]:
    """By name (r1 ..., mnr) how a second run differs from a first one. Query q of both must be the same question.

    p is of a randomisation test (Fisher, 1935): were the runs equal, each cluster's difference might as well have the other
    sign. At least 1 / (draws + 1). RequestError when the runs were not asked the same.
    """
    if first.items != second.items or not np.array_equal(first.clusters, second.clusters):
        raise RequestError(
            f"two runs can be compared on the same queries and items only: {len(first.values)} queries among "
            f"{first.items} items, and {len(second.values)} among {second.items}, or in another order"
        )
    gains = [100.0 * second.hits(depth) - 100.0 * first.hits(depth) for depth in depths]
    columns = np.stack([*gains, second.values - first.values], axis=1)
    members, count = _members(first.clusters)
    sums, sizes = _sums(columns, members, count), np.bincount(members, minlength=count)
    means = np.concatenate([(w @ sums) / (w @ sizes)[:, None] for w in _resampled(count, count, draws, seed)])
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    # Sums in another order may differ in their last bits, which must not make less than equal of equal.
    found = np.abs(sums.sum(axis=0)) * (1 - 1e-9)
    differing = sums[(sums != 0).any(axis=1)]
    reached = [(np.abs(signs @ differing) >= found).sum(axis=0) for signs in _flipped(len(differing), draws, seed)]
    p = (1 + np.sum(reached, axis=0)) / (1 + draws)
    names = [*(f"r{depth}" for depth in depths), "mnr"]
    values = columns.mean(axis=0)
    return {
        name: Difference(float(values[at]), Interval(float(low[at]), float(high[at])), float(p[at]))
        for at, name in enumerate(names)
    }


def _members(clusters: Ints) -> tuple[Ints, int]:
    """Clusters (Q,) numbered from 0, and how many there are."""
    names, members = np.unique(clusters, return_inverse=True)
    return members.reshape(-1), len(names)


def _sums(columns: Floats, members: Ints, count: int) -> Floats:
    """(count, M): columns (Q, M) summed over each cluster."""
    return np.stack([np.bincount(members, one, count) for one in columns.T], axis=1)


def _resampled(count: int, width: int, draws: int, seed: int) -> Iterator[Ints]:
    """How often each of `count` clusters is in a resample of as many, (n, count), n at a time: all `draws` of them."""
    random = np.random.default_rng(seed)
    for rows in _parts(draws, width):
        drawn = random.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)


def _flipped(count: int, draws: int, seed: int) -> Iterator[Ints]:
    """Signs (n, count) at random, n rows at a time: all `draws` of them."""
    random = np.random.default_rng(seed)
    for rows in _parts(draws, count):
        yield 2 * random.integers(2, size=(rows, count)) - 1


def _parts(draws: int, width: int) -> Iterator[int]:
    step = max(1, _AT_ONCE // max(width, 1))
    return (min(step, draws - start) for start in range(0, draws, step))


def _medians(rising: Floats, weights: Ints) -> Floats:
    """(n,): medians of values (Q,), in rising order, each as often as its weight (n, Q) says."""
    ends = weights.cumsum(axis=1)
    total = ends[:, -1:]
    below, above = ((ends <= middle).sum(axis=1) for middle in ((total - 1) // 2, total // 2))
    return np.asarray((rising[below] + rising[above]) / 2)
