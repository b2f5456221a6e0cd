"""Two orders become one: what may move, and what may not."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stillreel.pretrain.evaluation import pairs, text_to_video
from stillreel.pretrain.evaluation.two_stage.order import choose_candidates, fused, two_stage_scores

few = st.integers(-3, 3).map(float)  # so that there are ties


@st.composite
def matrices(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Coarse and fine scores (A, B), and K."""
    captions, clips = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    both = [draw(st.lists(few, min_size=captions * clips, max_size=captions * clips)) for _ in range(2)]
    coarse, fine = (torch.tensor(one).reshape(captions, clips) for one in both)
    return coarse, fine, draw(st.integers(1, clips))


def merged(coarse: Tensor, fine: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    clips = choose_candidates(coarse, depth)
    return clips, two_stage_scores(coarse, clips, fine.gather(1, clips))


def order_signs(scores: Tensor) -> Tensor:
    """(A, B, B): which of two is higher, or neither."""
    return (scores[:, :, None] - scores[:, None]).sign()


@given(matrices())
def test_the_order_outside_the_candidates_is_the_coarse_one_for_every_depth(given: tuple[Tensor, Tensor, int]) -> None:
    coarse, fine, depth = given
    clips, scores = merged(coarse, fine, depth)
    for row in range(len(coarse)):
        outside = [clip for clip in range(coarse.shape[1]) if clip not in clips[row]]
        kept = torch.tensor(outside, dtype=torch.int64)
        assert torch.equal(order_signs(scores[row : row + 1, kept]), order_signs(coarse[row : row + 1, kept]).double())
        for inside in clips[row]:
            assert (scores[row, inside] > scores[row, kept]).all()
            assert (coarse[row, inside] >= coarse[row, kept]).all(), "candidates are the best"


@given(matrices())
def test_the_order_inside_is_the_fine_one_with_its_ties(given: tuple[Tensor, Tensor, int]) -> None:
    coarse, fine, depth = given
    clips, scores = merged(coarse, fine, depth)
    assert torch.equal(order_signs(scores.gather(1, clips)), order_signs(fine.gather(1, clips)).double())


@given(matrices())
def test_all_candidates_are_full_interaction(given: tuple[Tensor, Tensor, int]) -> None:
    coarse, fine, _ = given
    _, scores = merged(coarse, fine, coarse.shape[1] + 3)
    assert torch.equal(order_signs(scores), order_signs(fine).double())
    square = min(fine.shape)
    ours, theirs = (
        text_to_video(one[:square, :square], pairs(square))
        for one in (merged(coarse[:square, :square], fine[:square, :square], square)[1], fine)
    )
    assert ours.values.tolist() == theirs.values.tolist()


def test_candidates_of_one_score_are_taken_by_row() -> None:
    assert choose_candidates(torch.tensor([[1.0, 2, 2, 2, 0]]), 3).tolist() == [[1, 2, 3]]


def test_a_missing_video_is_found_by_nobody_at_any_depth() -> None:
    coarse, fine = torch.tensor([[3.0, 2, 1, 0]]), torch.tensor([[0.0, 1, 2, 9]])
    coarse[0, 1] = torch.nan
    for depth in (1, 2, 3, 4):
        clips, scores = merged(coarse, fine, depth)
        assert (1 in clips[0]) == (depth == 4), "it comes last"
        assert scores.isnan().tolist() == [[False, True, False, False]]
        assert bool(text_to_video(scores.repeat(4, 1), pairs(4)).missed[1])


def test_a_fine_score_that_is_none_is_behind_all() -> None:
    coarse, fine = torch.tensor([[3.0, 2, 1]]), torch.tensor([[torch.nan, 5, 0]])
    assert merged(coarse, fine, 2)[1].isnan().tolist() == [[True, False, False]]


def test_a_weight_of_nothing_is_coarse_and_of_one_is_fine() -> None:
    coarse, fine = torch.tensor([[1.0, 5]]), torch.tensor([[3.0, -torch.inf]])
    assert fused(coarse, fine, 0.0).tolist() == [[1, 5]]
    assert fused(coarse, fine, 1.0).tolist() == [[3, -torch.inf]]
    assert fused(coarse, torch.tensor([[3.0, 1]]), 0.25).tolist() == [[1.5, 4]]
