"""Exact search: the same as sorting all products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillreel.finetune.search.exact import best_rows


def expected_rows(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    products = queries.astype(np.float64) @ vectors.astype(np.float64).T
    return np.argsort(-products, axis=1, kind="stable")[:, :k]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3000), st.sampled_from([1, 2, 3, 4, 7, 33]), st.integers(1, 40), st.integers(0, 9), st.integers(1, 2)
)
def test_the_best_rows_are_those_of_sorting_all_products(
    count: int, asked: int, k: int, seed: int, threads: int
) -> None:
    random = np.random.default_rng(seed)
    # Small whole numbers, whose sums are exact in any order: so ties are ties.
    vectors = random.integers(-4, 5, (count, 24)).astype(np.float16)
    queries = random.integers(-4, 5, (asked, 24)).astype(np.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        scores, rows = best_rows(vectors, queries, k)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(rows, expected_rows(vectors, queries, k))
    assert np.array_equal(scores, np.take_along_axis(queries @ vectors.astype(np.float32).T, rows, 1))


@pytest.mark.parametrize("asked", [1, 8])
def test_what_is_not_a_number_is_behind_all_and_has_no_row(asked: int) -> None:
    vectors = np.ones((4, 8), np.float16)
    vectors[1, 3] = np.nan
    vectors[2] *= 2
    scores, rows = best_rows(vectors, np.ones((asked, 8), np.float32), 9)
    assert rows.tolist() == [[2, 0, 3, -1]] * asked
    assert scores.tolist() == [[16, 8, 8, -np.inf]] * asked


def test_equal_to_faiss_flat() -> None:
    faiss = pytest.importorskip("faiss")
    random = np.random.default_rng(1)
    vectors = random.standard_normal((5000, 64)).astype(np.float16)
    queries = random.standard_normal((6, 64)).astype(np.float32)
    flat = faiss.IndexFlatIP(64)
    flat.add(vectors.astype(np.float32))
    theirs, rows = flat.search(queries, 20)
    for some in (slice(0, 1), slice(0, 6)):
        scores, ours = best_rows(vectors, queries[some], 20)
        assert np.array_equal(ours, rows[some])
        assert np.allclose(scores, theirs[some], rtol=1e-5)


def test_a_mapped_file_is_searched_as_it_lies(tmp_path) -> None:  # type: ignore[no-untyped-def]
    vectors = np.random.default_rng(2).standard_normal((2000, 16)).astype(np.float16)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    for asked in (1, 5):
        queries = vectors[:asked].astype(np.float32)
        assert np.array_equal(best_rows(mapped, queries, 3)[1], best_rows(vectors, queries, 3)[1])
