"""Pairs and survivors by hashes, against comparing each with each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stillreel.shards.selection import near
from stillreel.shards.selection.near import near_pairs, survivors

Hashes = NDArray[np.uint64]
# A few hashes, and copies of them in which up to eight bits are flipped.
HASHES = st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 63), max_size=8)), min_size=0, max_size=40).map(
    lambda drawn: np.array([_base(one) ^ sum(1 << bit for bit in bits) for one, bits in drawn], np.uint64)
)


def _base(number: int) -> int:
    return number * 0x9E3779B97F4A7C15 % 2**64


def distances(hashes: Hashes) -> NDArray[np.int64]:
    return np.array([[int.bit_count(int(a) ^ int(b)) for b in hashes] for a in hashes], np.int64).reshape(
        [len(hashes)] * 2
    )


@given(HASHES, st.integers(0, 11))
def test_pairs_are_those_of_comparing_each_with_each(hashes: Hashes, distance: int) -> None:
    found = {
        (min(pair), max(pair))
        for a, b in near_pairs(hashes, distance)
        for pair in zip(a.tolist(), b.tolist(), strict=True)
    }
    expected = {(a, b) for a, b in np.argwhere(distances(hashes) <= distance).tolist() if a < b}
    assert found == expected


@given(HASHES, st.integers(0, 8), st.randoms(use_true_random=False))
def test_survivors_are_far_apart_near_to_all_others_and_the_same_in_any_order(
    hashes: Hashes, distance: int, random: object
) -> None:
    rank = np.array(random.sample(range(len(hashes)), len(hashes)), np.int64)  # type: ignore[attr-defined]
    stays = survivors(hashes, rank, distance)
    expected = np.zeros(len(hashes), np.bool_)
    close = distances(hashes) <= distance
    for row in np.argsort(rank).tolist():
        expected[row] = not (close[row] & expected).any()
    assert (stays == expected).all()
    order = np.argsort(rank)[::-1]
    assert (survivors(hashes[order], rank[order], distance) == stays[order]).all()


@pytest.mark.parametrize("pieces", [1, 7, 100])
def test_pairs_are_compared_in_pieces(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 300, dtype=np.uint64) & np.uint64(0x0000FFFF0000FFFF)
    hashes[100:] ^= hashes[100]
    expected = sorted(pair for a, b in near_pairs(hashes, 5) for pair in zip(a.tolist(), b.tolist(), strict=True))
    monkeypatch.setattr(near, "_PAIRS", pieces)
    assert (
        sorted(pair for a, b in near_pairs(hashes, 5) for pair in zip(a.tolist(), b.tolist(), strict=True)) == expected
    )


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30))
def test_bits_are_counted_without_numpy_2_too(words: list[int]) -> None:
    assert near._count_in_pieces(np.array(words, np.uint64)).tolist() == [word.bit_count() for word in words]
