"""Ranks against slow, obvious ones, and against a published metric where that one fails."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillreel.configs import DataError, RequestError
from stillreel.pretrain.evaluation import (
    Matches,
    evaluate_retrieval,
    pairs,
    rank_classes,
    ranks,
    text_to_video,
    video_to_text,
)
from stillreel.pretrain.evaluation.results import figures

VALUES = [0.0, 0.25, 0.5, 1.0, -2.0, math.inf, -math.inf, math.nan]


def slow_rank(scores: list[float], right: list[bool]) -> tuple[float, bool]:
    """The expected place of the best right item among the wrong ones, ties broken at random."""
    own = [score for score, is_right in zip(scores, right, strict=True) if is_right and not math.isnan(score)]
    if not own:
        return len(scores), True
    wrong = [score for score, is_right in zip(scores, right, strict=True) if not is_right]
    return 1 + sum(1.0 if one > max(own) else 0.5 if one == max(own) else 0 for one in wrong), False


def slow_text_to_video(scores: list[list[float]], captions: list[int], videos: list[int]) -> list[tuple[float, bool]]:
    return [slow_rank(row, [own == one for one in videos]) for row, own in zip(scores, captions, strict=True)]


def slow_video_to_text(scores: list[list[float]], captions: list[int], videos: list[int]) -> list[tuple[float, bool]]:
    answers = []
    groups = sorted(set(captions))
    for column, own in enumerate(videos):
        of_groups = []
        for group in groups:
            of_group = [row[column] for row, label in zip(scores, captions, strict=True) if label == group]
            of_groups.append(max((one for one in of_group if not math.isnan(one)), default=math.nan))
        answers.append(slow_rank(of_groups, [own == group for group in groups]))
    return answers


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[float]], list[int], list[int]]:
    """Few values, so that most are tied; labels that repeat on both sides, or are on one side only."""
    captions = draw(st.lists(st.integers(0, 5), min_size=1, max_size=9))
    videos = draw(st.lists(st.integers(0, 5), min_size=1, max_size=7))
    value = st.sampled_from(VALUES) | st.floats(-1, 1, width=32)
    row = st.lists(value, min_size=len(videos), max_size=len(videos))
    return draw(st.lists(row, min_size=len(captions), max_size=len(captions))), captions, videos


@given(cases(), st.sampled_from([torch.float32, torch.float64]), st.sampled_from([1, 8, 1 << 22]))
def test_both_directions_are_those_of_a_slow_count(
    case: tuple[list[list[float]], list[int], list[int]], dtype: torch.dtype, at_once: int
) -> None:
    rows, captions, videos = case
    matches = Matches(torch.tensor(captions), torch.tensor(videos))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "_AT_ONCE", at_once)
        found = [way(torch.tensor(rows, dtype=dtype), matches) for way in (text_to_video, video_to_text)]
    slow = [slow_text_to_video(*case), slow_video_to_text(*case)]
    for one, right in zip(found, slow, strict=True):
        assert list(zip(one.values.tolist(), one.missed.tolist(), strict=True)) == right
    assert [one.items for one in found] == [len(videos), len(set(captions))]
    assert [one.clusters.tolist() for one in found] == [captions, videos]


@given(cases())
def test_figures_are_those_of_the_ranks(case: tuple[list[list[float]], list[int], list[int]]) -> None:
    rows, captions, videos = case
    slow = slow_text_to_video(*case)
    found = figures(text_to_video(torch.tensor(rows), Matches(torch.tensor(captions), torch.tensor(videos))))
    in_order = sorted(rank for rank, _ in slow)
    middle = (in_order[(len(slow) - 1) // 2] + in_order[len(slow) // 2]) / 2
    for depth in (1, 5, 10, 50):
        hits = [rank <= depth and not missed for rank, missed in slow]
        assert found[f"r{depth}"] == pytest.approx(100 * sum(hits) / len(hits))
    assert found["mdr"] == middle
    assert found["mnr"] == pytest.approx(sum(in_order) / len(slow))


@given(cases(), st.integers(0, 5))
def test_recognition_has_the_same_rules(case: tuple[list[list[float]], list[int], list[int]], at: int) -> None:
    rows, _, videos = case
    classes = [(at + row) % len(videos) for row in range(len(rows))]
    found = rank_classes(torch.tensor(rows), torch.tensor(classes))
    slow = [slow_rank(row, [one == own for one in range(len(videos))]) for row, own in zip(rows, classes, strict=True)]
    assert list(zip(found.values.tolist(), found.missed.tolist(), strict=True)) == slow


def published(scores: np.ndarray) -> dict[str, float]:
    """CLIP4Clip's figures: the places in each sorted row where its score less the right one is zero."""
    rising = np.sort(-scores, axis=1)
    places = np.where(rising - np.diag(-scores)[:, None] == 0)[1]
    return {"r1": 100 * float(np.mean(places < 1)), "mnr": float(np.mean(places)) + 1, "queries": len(places)}


def test_without_ties_and_nan_the_figures_are_the_published_ones() -> None:
    scores = np.random.default_rng(0).normal(size=(60, 60)).astype(np.float32)
    found = figures(text_to_video(torch.from_numpy(scores), pairs(60)))
    right = published(scores)
    assert right["queries"] == 60
    assert found["r1"] == right["r1"]
    assert found["mnr"] == pytest.approx(right["mnr"])


def test_a_tie_counts_once() -> None:
    """The published metric takes a tied row for two queries, one of them a hit."""
    scores = np.array([[0.9, 0.9, 0.1], [0.0, 0.5, 0.6], [0.3, 0.2, 0.1]], np.float32)
    assert published(scores) == {"r1": 25.0, "mnr": 2.0, "queries": 4}
    found = text_to_video(torch.from_numpy(scores), pairs(3))
    assert found.values.tolist() == [1.5, 2, 3]
    assert figures(found)["r1"] == 0


def test_a_collapsed_model_scores_chance_not_everything() -> None:
    scores = np.zeros((100, 100), np.float32)
    assert published(scores) == {"r1": 1.0, "mnr": 50.5, "queries": 10_000}
    found = text_to_video(torch.from_numpy(scores), pairs(100))
    assert found.values.tolist() == [50.5] * 100
    assert figures(found)["r50"] == 0


def test_a_video_that_failed_is_a_miss() -> None:
    """The published metric loses its query, and then finds everything."""
    scores = np.eye(3, dtype=np.float32)
    scores[:, 1] = np.nan
    assert published(scores)["queries"] == 2
    assert published(scores)["r1"] == 100
    found = evaluate_retrieval(torch.from_numpy(scores), pairs(3), missing=["b.mp4"])
    assert found.text_to_video.values.tolist() == [1, 3, 1]
    assert found.text_to_video.missed.tolist() == [False, True, False]
    assert found.metrics()["t2v_r1"] == pytest.approx(200 / 3)
    # There are fewer items than five, and still a miss is no hit.
    assert found.metrics()["t2v_r5"] == found.metrics()["v2t_r50"] == pytest.approx(200 / 3)
    assert found.to_json()["t2v"]["missed"] == [1]
    assert found.to_json()["missing"] == ["b.mp4"]


def test_nothing_scored_is_all_missed() -> None:
    found = evaluate_retrieval(torch.full((4, 4), math.nan), pairs(4)).metrics()
    assert found["t2v_r50"] == found["v2t_r50"] == 0
    assert found["t2v_mdr"] == found["v2t_mnr"] == 4


def test_a_video_is_found_by_the_best_of_its_captions_among_groups() -> None:
    """MSVD's protocol: two captions of the other video that score higher are one item."""
    scores = torch.tensor([[0.2, 0.0], [0.5, 0.0], [0.9, 0.3], [0.8, 0.1]])
    found = video_to_text(scores, Matches(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1])))
    assert found.values.tolist() == [2, 1]
    assert found.items == 2


@pytest.mark.parametrize(
    ("scores", "error", "said"),
    [
        (torch.zeros(2, 3), RequestError, r"scores are \(2, 3\); expected \(captions, videos\) \(2, 2\)"),
        (torch.zeros(2, 2, dtype=torch.bfloat16), RequestError, "expected a matrix of float32 or float64"),
        (torch.zeros(4), RequestError, "expected a matrix"),
    ],
)
def test_what_is_no_matrix_of_the_matches_is_said(scores: torch.Tensor, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        text_to_video(scores, pairs(2))


def test_nothing_to_rank_is_said() -> None:
    with pytest.raises(DataError, match="nothing to rank"):
        text_to_video(torch.zeros(0, 0), pairs(0))
    with pytest.raises(RequestError, match="classes range from 0 to 3; the scores have classes 0 to 2"):
        rank_classes(torch.zeros(2, 3), torch.tensor([0, 3]))
