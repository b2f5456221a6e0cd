"""Intervals and tests against slow resampling, and against what is known of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from stillreel.configs import RequestError
from stillreel.pretrain.evaluation import Ranks, compare, evaluate_recognition, evaluate_retrieval, intervals, pairs
from stillreel.pretrain.evaluation.results import COLUMNS, TOP_COLUMNS, in_rows


def ranks_of(values: list[float], clusters: list[int] | None = None) -> Ranks:
    count = len(values)
    return Ranks(
        np.array(values, float), np.zeros(count, bool), np.array(clusters or range(count), np.int64), max(count, 60)
    )


def drawn(count: int, seed: int, share: float = 0.4) -> list[float]:
    """Ranks of which a share is 1."""
    random = np.random.default_rng(seed)
    return np.where(random.random(count) < share, 1, random.integers(2, 50, count)).tolist()


def test_intervals_are_those_of_a_slow_bootstrap_of_videos() -> None:
    """Five captions a video, which rank alike: resampled query by query, intervals would be far too narrow."""
    values = np.repeat(drawn(40, 1), 5)
    clusters = np.repeat(np.arange(40), 5)
    random, slow = np.random.default_rng(7), []
    for _ in range(3000):
        queries = np.concatenate([np.flatnonzero(clusters == one) for one in random.integers(40, size=40)])
        slow.append([100 * np.mean(values[queries] <= 1), np.mean(values[queries]), np.median(values[queries])])
    low, high = np.percentile(slow, [2.5, 97.5], axis=0)
    found = intervals(ranks_of(values.tolist(), clusters.tolist()), draws=3000)
    for at, (name, slack) in enumerate([("r1", 2.6), ("mnr", 0.6), ("mdr", 2)]):
        assert found[name].low == pytest.approx(low[at], abs=slack)
        assert found[name].high == pytest.approx(high[at], abs=slack)
    by_query = intervals(ranks_of(values.tolist()))["r1"]
    assert found["r1"].high - found["r1"].low > 1.8 * (by_query.high - by_query.low)


def test_intervals_have_the_width_of_a_proportion_s() -> None:
    found = intervals(ranks_of(drawn(1000, 2)))["r1"]
    rate = np.mean(np.array(drawn(1000, 2)) <= 1)
    half = 196 * math.sqrt(rate * (1 - rate) / 1000)
    assert found.low == pytest.approx(100 * rate - half, abs=0.4)
    assert found.high == pytest.approx(100 * rate + half, abs=0.4)


def test_a_median_lies_between_the_middle_two_as_numpy_has_it() -> None:
    """Resamples of one value are that value; of one query with every other, whatever numpy says of them."""
    assert intervals(ranks_of([3.5] * 8))["mdr"] == (3.5, 3.5)
    from stillreel.pretrain.evaluation.uncertainty import _medians

    random = np.random.default_rng(3)
    for count in (1, 2, 5, 8):
        rising = np.sort(random.integers(1, 9, count) / 2)
        weights = random.integers(0, 4, (50, count)) + (np.arange(count) == 0)
        right = [np.median(np.repeat(rising, row)) for row in weights]
        assert _medians(rising, weights).tolist() == right


def test_equal_runs_do_not_differ() -> None:
    found = compare(ranks_of(drawn(200, 4)), ranks_of(drawn(200, 4)))
    assert {one.value for one in found.values()} == {0}
    assert {one.p for one in found.values()} == {1}
    assert {one.interval for one in found.values()} == {(0, 0)}


def test_a_difference_has_the_p_of_the_sign_test() -> None:
    """20 queries won and 6 lost: McNemar's exact test gives 0.0094."""
    first, second = [1.0] * 6 + [2.0] * 20 + [1.0] * 74, [2.0] * 6 + [1.0] * 20 + [1.0] * 74
    exact = 2 * sum(math.comb(26, lost) for lost in range(7)) / 2**26
    found = compare(ranks_of(first), ranks_of(second))["r1"]
    assert found.value == pytest.approx(14)
    assert found.p == pytest.approx(exact, abs=0.003)
    assert found.interval.low > 0
    assert compare(ranks_of(second), ranks_of(first))["r1"].value == pytest.approx(-14)


def test_captions_of_one_video_are_one_observation() -> None:
    """The same gain, on a hundred captions of four videos, says little."""
    first, second = ranks_of([2.0] * 100), ranks_of([1.0] * 100)
    assert compare(first, second)["r1"].p < 0.001
    of_four = [at // 25 for at in range(100)]
    assert compare(ranks_of([2.0] * 100, of_four), ranks_of([1.0] * 100, of_four))["r1"].p == pytest.approx(
        1 / 8, abs=0.02
    )


def test_runs_on_other_queries_are_not_compared() -> None:
    with pytest.raises(RequestError, match="on the same queries"):
        compare(ranks_of([1.0, 2.0]), ranks_of([1.0, 2.0], [1, 0]))


def test_results_turn_into_json_and_rows() -> None:
    found = evaluate_retrieval(torch.eye(12), pairs(12))
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["label"] == "raw"
    assert told["t2v"]["ranks"] == [1.0] * 12
    assert told["v2t"]["intervals"]["r1"] == [100.0, 100.0]
    assert {key: told["t2v"][key] for key in ("r1", "r50", "mdr", "mnr", "queries", "items", "missed")} == {
        "r1": 100.0, "r50": 100.0, "mdr": 1.0, "mnr": 1.0, "queries": 12, "items": 12, "missed": [],
    }  # fmt: skip
    lines = in_rows(COLUMNS, found.rows()).splitlines()
    assert " ".join(lines[1].split()) == "raw text to video 100.0 100.0 100.0 100.0 1.0 1.0 100.0-100.0 12 12 0"
    assert len({len(line) for line in lines}) == 1


def test_recognition_has_its_own_figures() -> None:
    scores = torch.tensor([[3.0, 1, 0, 2, -1, -2], [3, 1, 0, 2, -1, -2], [1, 1, 1, 1, 1, 1]])
    found = evaluate_recognition(scores, torch.tensor([0, 5, 2]))
    assert found.metrics() == {"top1": pytest.approx(100 / 3), "top5": pytest.approx(200 / 3)}
    assert set(found.to_json()["intervals"]) == {"top1", "top5"}
    assert in_rows(TOP_COLUMNS, found.rows()).splitlines()[1].split()[:3] == ["raw", "33.3", "66.7"]
