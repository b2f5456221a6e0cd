"""The order: a pure function, pinned to the sample; its lanes, its windows, how well it shuffles, and what it costs."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillreel.configs.stream import OrderSettings
from stillreel.shards.stream import order
from stillreel.shards.stream.order import Order, draw_words, epoch_order, permutation
from stillreel.shards.stream.simulate import shuffle_quality

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any)


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.astype("<i8").tobytes()).hexdigest()[:16]


def test_order_is_pinned() -> None:
    """ITERATION ORDER: who changes these changes what every state and every paper's run means. Raise ORDER_VERSION."""
    assert draw_words(3, 0, "shards", 0).tolist() == GOLDEN_WORDS
    assert epoch_order([3, 2], seed=0, epoch=0, lanes=2, window=4).tolist() == [3, 0, 4, 1, 2]
    assert epoch_order([4, 0, 5, 3], seed=7, epoch=3, lanes=4, window=2).tolist() == GOLDEN_SMALL
    assert digest(epoch_order([1000] * 50, seed=0, epoch=0)) == GOLDEN_LARGE
    assert digest(epoch_order([1000, 10, 257] * 9, seed=1, epoch=2, lanes=48, window=100)) == GOLDEN_UNEVEN


GOLDEN_WORDS = [11486941209593944218, 6705127156769352960, 16373434170538859876]
GOLDEN_SMALL = [1, 4, 3, 9, 0, 6, 5, 10, 2, 7, 8, 11]
GOLDEN_LARGE = "3222afbb3976ec05"
GOLDEN_UNEVEN = "0cd616f87a777895"


@given(SIZES, st.integers(0, 2**63 - 1), st.integers(0, 5), st.integers(1, 70), st.integers(1, 60))
def test_every_sample_once_an_epoch(sizes: list[int], seed: int, epoch: int, lanes: int, window: int) -> None:
    order = epoch_order(sizes, seed, epoch, lanes, window)
    assert np.array_equal(np.sort(order), np.arange(sum(sizes)))


@given(SIZES, st.integers(1, 9), st.data())
def test_a_position_does_not_depend_on_what_was_asked_before(sizes: list[int], lanes: int, data: st.DataObject) -> None:
    whole = Order(sizes, 5, lanes, 4)
    every = whole.locate(np.arange(4 * sum(sizes)))
    asked = data.draw(st.lists(st.integers(0, 4 * sum(sizes) - 1), min_size=1, max_size=20))
    some = Order(sizes, 5, lanes, 4).locate(np.array(asked))
    for part, of_all in zip(some, every, strict=True):
        assert np.array_equal(part, of_all[asked])


@given(SIZES, st.integers(1, 6))
@settings(max_examples=30)
def test_epochs_and_seeds_differ_in_their_randomness_alone(sizes: list[int], lanes: int) -> None:
    orders = {(seed, epoch): epoch_order(sizes, seed, epoch, lanes) for seed in (0, 1) for epoch in (0, 1)}
    if sum(sizes) > 12:
        assert len({tuple(order.tolist()) for order in orders.values()}) == 4


def test_lanes_own_their_shards() -> None:
    """Of 256 equal shards each of 64 lanes owns four whole ones, others in every epoch."""
    order = Order([10] * 256, seed=0)
    owned = []
    for epoch in (0, 1):
        places = order.locate(np.arange(epoch * 2560, (epoch + 1) * 2560))
        lanes = np.arange(2560) % 64
        shards = [set(places.shards[lanes == lane].tolist()) for lane in range(64)]
        assert [len(one) for one in shards] == [4] * 64
        assert set.union(*shards) == set(range(256))
        owned.append(shards)
    assert owned[0] != owned[1]


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16, 32, 64])
def test_a_rank_reads_its_share_of_shards_alone(ranks: int) -> None:
    """Uneven shards lie across cuts; of a rank whose lanes are neighbors on the line, two at most do."""
    sizes = permutation(200, 3, "sizes") + 900
    order = Order(sizes.tolist(), seed=0)
    positions = np.arange(order.samples)
    shards = order.locate(positions).shards
    read = [len(np.unique(shards[positions % ranks == rank])) for rank in range(ranks)]
    assert sum(read) <= len(sizes) + ranks - 1
    assert max(read) <= 1.25 * len(sizes) / ranks + 2


def test_shuffle_quality_is_the_mean_distance_within_a_shard_against_a_full_permutation() -> None:
    sizes = np.array([7, 5, 8])
    rules = OrderSettings(lanes=2, window=3)
    where = np.argsort(epoch_order(sizes.tolist(), 0, 0, 2, 3))
    distances = [
        abs(where[a] - where[b])
        for begin, end in ((0, 7), (7, 12), (12, 20))
        for a in range(begin, end)
        for b in range(begin, a)
    ]
    assert shuffle_quality(sizes, rules) == pytest.approx(np.mean(distances) / (21 / 3))


@pytest.mark.parametrize(
    ("lanes", "window", "low", "high"),
    [(1, 1, 0.009, 0.011), (4, 1, 0.035, 0.045), (64, 4096, 0.95, 1.05), (1, 10**6, 0.95, 1.05)],
)
def test_lanes_and_windows_shuffle(lanes: int, window: int, low: float, high: float) -> None:
    """100 shards of 100: one after another they are at 0.01; in 4 lanes, unshuffled within them, four times that; at best 1."""
    assert low < shuffle_quality(np.full(100, 100), OrderSettings(lanes=lanes, window=window)) < high


def test_orders_are_not_correlated_from_epoch_to_epoch() -> None:
    ranks = [np.argsort(epoch_order([100] * 20, 0, epoch)) for epoch in range(6)]
    for a in range(6):
        for b in range(a):
            assert abs(np.corrcoef(ranks[a], ranks[b])[0, 1]) < 0.1


def test_finding_a_position_costs_the_same_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 shards of 1,000, on a cold order: the first batch at 0 %, at 90 %, and in the hundredth epoch draws about as
    many random words, of the epoch's shards, the batch's shards and its windows alone."""
    drawn: list[int] = []
    monkeypatch.setattr(order, "draw_words", lambda count, *named: drawn.append(count) or draw_words(count, *named))
    costs = []
    for start in (0, 900_000, 99_900_000):
        drawn.clear()
        Order([1000] * 1000, seed=0).locate(np.arange(start, start + 256))
        costs.append(sum(drawn))
    assert max(costs) <= 1000 + 256 * 1000 + 64 * 4096
    assert max(costs) < 1.5 * min(costs)
