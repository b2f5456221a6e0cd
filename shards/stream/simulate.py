"""What a run would cost before it runs: which shards each machine reads and when, and how well the order is shuffled.

Nothing is read but the list of shards: the order is a pure function, so it can be asked.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stillreel.configs.stream import OrderSettings
from stillreel.shards.stream.mixture import Mixture
from stillreel.shards.stream.order import Ints, Order
from stillreel.shards.stream.stream import Blend

_AT_ONCE = 1 << 18  # positions


class NodeCost(NamedTuple):
    """What one machine reads: samples; shards (one a data set's epoch) and their bytes; and how many bytes a cache must hold
    so that none is fetched twice in an epoch."""

    samples: int
    shards: int
    bytes: int
    cache: int


class _Uses(NamedTuple):
    """When shards of an epoch are in use, (n,) each: their number in (epoch, shard), the first and last position."""

    numbers: Ints
    first: Ints
    last: Ints


def node_costs(
    blend: Blend, settings: OrderSettings, *, batch: int, ranks: int, nodes: int, start: int, steps: int
) -> list[NodeCost]:
    """The cost of steps start .. start + steps - 1 on each of the nodes, over which ranks are spread evenly, in order."""
    mixture = Mixture(blend.weights, settings.seed, settings.lanes)
    orders = blend.orders(settings)
    before = np.cumsum([0, *(len(corpus.shards) for corpus in blend.corpora)])
    sizes = np.array([shard.bytes for corpus in blend.corpora for shard in corpus.shards], np.int64)
    uses: list[list[_Uses]] = [[] for _ in range(nodes)]
    samples = [0] * nodes
    for begin in range(start * batch, (start + steps) * batch, _AT_ONCE):
        positions = np.arange(begin, min(begin + _AT_ONCE, (start + steps) * batch))
        chosen, own = mixture.split(positions)
        numbers = np.empty_like(positions)
        for corpus, order in enumerate(orders):
            mine = chosen == corpus
            places = order.locate(own[mine])
            numbers[mine] = places.epochs * len(sizes) + before[corpus] + places.shards
        node_of = positions % batch % ranks // (ranks // nodes)
        for node in range(nodes):
            mine = node_of == node
            samples[node] += int(mine.sum())
            uses[node].append(_uses(numbers[mine], positions[mine], positions[mine]))
    return [_cost(count, _joined(parts), sizes) for count, parts in zip(samples, uses, strict=True)]


def shuffle_quality(sizes: Ints, settings: OrderSettings) -> float:
    """The mean distance in the order of two samples of one shard, over that in a full permutation, (N + 1) / 3.

    0: shards are read one after another; 1: two samples of a shard are as far apart as any two. One epoch, all pairs.
    """
    order = Order(sizes.tolist(), settings.seed, settings.lanes, settings.window)
    seen = np.zeros(len(sizes), np.int64)
    total = 0.0
    for begin in range(0, order.samples, _AT_ONCE):
        positions = np.arange(begin, min(begin + _AT_ONCE, order.samples))
        shards = order.locate(positions).shards
        by_shard = np.argsort(shards, kind="stable")  # and within a shard in order
        shards, counts = shards[by_shard], np.bincount(shards, minlength=len(sizes))
        rank = seen[shards] + np.arange(len(shards)) - (np.cumsum(counts) - counts)[shards]
        # The sum of all pairs' distances: the k-th of n sorted places is added k times and taken off n - 1 - k times.
        total += float((positions[by_shard] * (2.0 * rank - sizes[shards] + 1)).sum())
        seen += counts
    pairs = float((sizes * (sizes - 1.0)).sum()) / 2
    return total / pairs / ((order.samples + 1) / 3) if pairs else 1.0


def _uses(numbers: Ints, first: Ints, last: Ints) -> _Uses:
    found, inverse = np.unique(numbers, return_inverse=True)
    earliest, latest = np.full(len(found), np.iinfo(np.int64).max), np.full(len(found), -1)
    np.minimum.at(earliest, inverse, first)
    np.maximum.at(latest, inverse, last)
    return _Uses(found, earliest, latest)


def _joined(parts: list[_Uses]) -> _Uses:
    return _uses(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _cost(samples: int, uses: _Uses, sizes: Ints) -> NodeCost:
    each = sizes[uses.numbers % len(sizes)]
    # A shard takes its place before the first use of it, and leaves after the last.
    times = np.concatenate([uses.first, uses.last + 1])
    held = np.cumsum(np.concatenate([each, -each])[np.argsort(times, kind="stable")])
    return NodeCost(samples, len(each), int(each.sum()), int(held.max(initial=0)))
