"""Promise 5 of the stream: mixing several corpora by weight is deterministic and logged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillreel.configs import RequestError
from stillreel.shards.stream.mixture import ROUND, Mixture
from stillreel.shards.stream.stream import Blend, open_blend
from tests.making import stillreel
from tests.pretrain.data.video_tars import write_videos
from tests.streaming import read_steps, settings_of, write_set

LAYOUTS = tuple((ranks, workers) for ranks in (1, 2, 4) for workers in (0, 1, 3))
WEIGHTS = st.lists(st.floats(0.01, 100), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("mixed")
    return write_set(home / "one", [9, 4], name="one"), write_set(home / "two", [30, 11, 2], name="two")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("videos"), [5, 4])


def test_mixture_is_pinned() -> None:
    """ITERATION ORDER: see tests/shards/test_order.py."""
    chosen, own = Mixture([3, 1], 0, 2).split(np.arange(24))
    assert chosen.tolist() == GOLDEN_CHOSEN
    assert own.tolist() == GOLDEN_OWN


GOLDEN_CHOSEN = [1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0]
GOLDEN_OWN = [0, 1, 0, 1, 2, 3, 4, 3, 6, 5, 2, 7, 8, 5, 10, 9, 12, 7, 14, 11, 4, 13, 16, 15]


@given(WEIGHTS, st.integers(0, 99), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_each_data_set_goes_through_its_own_order_lane_by_lane(weights: list[float], seed: int, lanes: int) -> None:
    mixture = Mixture(weights, seed, lanes)
    chosen, own = mixture.split(np.arange(2 * ROUND * lanes))
    assert np.array_equal(own % lanes, np.arange(len(own)) % lanes)
    for number in range(len(weights)):
        for lane in range(lanes):
            mine = own[(chosen == number) & (np.arange(len(own)) % lanes == lane)]
            assert np.array_equal(mine // lanes, np.arange(len(mine)))


@given(WEIGHTS)
def test_weights_are_met_exactly_in_every_round(weights: list[float]) -> None:
    mixture = Mixture(weights, 0, 1)
    assert sum(mixture.turns) == ROUND and min(mixture.turns) >= 1
    for start in (0, ROUND, 7 * ROUND):
        chosen, _ = mixture.split(np.arange(start, start + ROUND))
        assert np.bincount(chosen, minlength=len(weights)).tolist() == list(mixture.turns)


@given(WEIGHTS.filter(lambda weights: min(weights) / sum(weights) > 2 / ROUND))
def test_weights_are_rounded_to_a_turn(weights: list[float]) -> None:
    turns = np.array(Mixture(weights, 0, 1).turns)
    assert np.abs(turns - np.array(weights) / sum(weights) * ROUND).max() < 1


def test_real_loaders_mix_alike_for_every_layout(sets: tuple[Path, Path]) -> None:
    data = f"{sets[0]}*3,{sets[1]}*1"
    rules = settings_of(seed=1)
    first, _ = read_steps(data, rules, batch=8, steps=12)
    for ranks, workers in ((1, 3), (2, 1), (4, 0)):
        assert read_steps(data, rules, batch=8, steps=12, ranks=ranks, workers=workers)[0] == first
    half, state = read_steps(data, rules, batch=8, steps=5, ranks=2)
    assert half + read_steps(data, rules, batch=8, steps=7, state=state)[0] == first


@pytest.mark.parametrize(
    "layouts", [((1, 1), (2, 3), (4, 0)), pytest.param(LAYOUTS[1:], marks=pytest.mark.slow)], ids=["some", "all"]
)
@pytest.mark.parametrize("sampler", ["fps", "segments"])
def test_stills_and_videos_mix_alike_for_every_layout(
    sampler: str, layouts: tuple[tuple[int, int], ...], sets: tuple[Path, Path], videos: Path
) -> None:
    """In keys, captions, frames and masks; across the epochs of the videos."""
    data = f"{sets[0]}*3,{videos}*1"
    rules = settings_of(seed=1, frames=3, video={"sampler": sampler})
    first, _ = read_steps(data, rules, batch=8, steps=7)
    assert 5 < sum(line.split()[0].isdecimal() for step in first for line in step) < 25
    for ranks, workers in layouts:
        assert read_steps(data, rules, batch=8, steps=7, ranks=ranks, workers=workers)[0] == first, (ranks, workers)


def test_each_data_set_keeps_its_own_epochs(sets: tuple[Path, Path]) -> None:
    """One lane, 3 : 1: when `one` (13 samples) has had 39 turns, it was seen three times, whatever became of `two`."""
    found, _ = read_steps(f"{sets[0]}*3,{sets[1]}*1", settings_of(lanes=1), batch=1, steps=80)
    keys = [step[0].split()[0] for step in found]
    ones = Counter([key for key in keys if key.startswith("one_")][:39])
    assert len(ones) == 13 and set(ones.values()) == {3}


def test_without_weights_every_sample_is_as_frequent(sets: tuple[Path, Path]) -> None:
    blend = open_blend(f"{sets[0]},{sets[1]}")
    assert blend.weights == (13, 43)
    assert Mixture(blend.weights, 0, 1).turns == (238, 786)


def test_shares_are_logged(sets: tuple[Path, Path]) -> None:
    said = stillreel("stream", f"{sets[0]}*3,{sets[1]}*1", "steps=1", "batch=2", "frames=2", "size=32", "workers=0")
    assert said.returncode == 0
    assert f"{sets[0]}: 13 samples in 2 shards, 768 of 1024 turns" in said.stderr
    assert f"{sets[1]}: 43 samples in 3 shards, 256 of 1024 turns" in said.stderr


@pytest.mark.parametrize("data", ["{0}*x,{1}*1", "{0}*0,{1}*1", "{0}*-1,{1}*2", "{0}*nan,{1}*1", "{0}*2,{1}"])
def test_senseless_weights_are_refused(sets: tuple[Path, Path], data: str) -> None:
    with pytest.raises(RequestError, match=r"(?i)weight"):
        open_blend(data.format(*sets))


def test_weights_are_part_of_the_order(sets: tuple[Path, Path]) -> None:
    rules = settings_of().order()
    both = open_blend(f"{sets[0]}*3,{sets[1]}*1")
    assert both.fingerprint(rules) == Blend(both.corpora, (6, 2)).fingerprint(rules)
    assert both.fingerprint(rules) != Blend(both.corpora, (1, 1)).fingerprint(rules)
