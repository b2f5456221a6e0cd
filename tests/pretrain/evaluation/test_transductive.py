"""Dual softmax and QB-norm against the formulas of their papers, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stillreel.configs import RequestError
from stillreel.pretrain.evaluation import (
    dual_softmax,
    evaluate_dual_softmax,
    evaluate_querybank,
    evaluate_retrieval,
    pairs,
    querybank_norm,
    transductive,
)


def scores_of(captions: int, videos: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(captions, videos, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("at_once", [1, 30, 1 << 22])
def test_dual_softmax_is_the_published_product(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transductive, "_AT_ONCE", at_once)
    scores = scores_of(7, 5)
    by_caption = (20 * scores).exp() / (20 * scores).exp().sum(dim=0)
    by_video = (20 * scores).exp() / (20 * scores).exp().sum(dim=1, keepdim=True)
    torch.testing.assert_close(dual_softmax(scores, "captions", scale=20), scores * by_caption)
    torch.testing.assert_close(dual_softmax(scores, "videos", scale=20), scores * by_video)


def test_nan_has_no_share_in_a_softmax() -> None:
    scores = scores_of(6, 4)
    scores[2] = math.nan
    scores[:, 1] = math.nan
    whole = [[row for row in range(6) if row != 2], [0, 2, 3]]
    for queries in ("captions", "videos"):
        found = dual_softmax(scores, queries, scale=10)
        assert torch.equal(found.isnan(), scores.isnan())
        kept = scores[whole[0]][:, whole[1]]
        torch.testing.assert_close(found[whole[0]][:, whole[1]], dual_softmax(kept, queries, scale=10))


def slow_querybank(scores: np.ndarray, bank: np.ndarray, scale: float, nearest: int) -> tuple[np.ndarray, set[int]]:
    """Algorithm of Bogolin et al.: which captions are normalized, and to what."""
    hubs = {int(video) for row in bank for video in np.argsort(-row)[:nearest]}
    out, chosen = scores.copy(), set()
    for row, own in enumerate(scores):
        if int(np.argmax(own)) in hubs:
            chosen.add(row)
            out[row] = [
                math.exp(scale * one) / sum(math.exp(scale * other) for other in bank[:, video])
                for video, one in enumerate(own)
            ]
    return out, chosen


@pytest.mark.parametrize("nearest", [1, 2])
@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_querybank_norm_is_the_published_one(nearest: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transductive, "_AT_ONCE", at_once)
    scores, bank = scores_of(30, 12), scores_of(5, 12, seed=1)
    right, chosen = slow_querybank(scores.numpy(), bank.numpy(), 20, nearest)
    assert 0 < len(chosen) < 30  # some are normalized, others are not
    found = querybank_norm(scores, bank, scale=20, nearest=nearest).numpy()
    for row in range(30):
        np.testing.assert_allclose(np.exp(found[row]) if row in chosen else found[row], right[row], rtol=1e-9)
    assert torch.equal(scores, scores_of(30, 12))  # nothing was changed in place


def test_querybank_norm_holds_down_a_hub() -> None:
    """Video 0 is near to everything. To the bank too; so it is found only by the caption that means it."""
    scores = torch.eye(6) * 0.4
    scores[:, 0] = 0.5
    scores[0, 0] = 0.9
    bank = torch.full((8, 6), 0.1)
    bank[:, 0] = 0.6
    assert evaluate_retrieval(scores, pairs(6)).metrics()["t2v_r1"] == pytest.approx(100 / 6)
    normed = evaluate_querybank(scores, bank, pairs(6), scale=20)
    assert normed.metrics()["t2v_r1"] == 100
    assert normed.video_to_text is None


def test_a_missing_video_stays_missing() -> None:
    scores, bank = scores_of(6, 6).float(), scores_of(4, 6, seed=1).float()
    scores[:, 3] = bank[:, 3] = math.nan
    found = evaluate_querybank(scores, bank, pairs(6), scale=20).text_to_video
    assert found.missed.tolist() == [False, False, False, True, False, False]
    assert evaluate_dual_softmax(scores, pairs(6), scale=20).text_to_video.missed.sum() == 1


def test_rows_say_that_they_are_transductive() -> None:
    scores = scores_of(6, 6)
    assert {row[0] for row in evaluate_dual_softmax(scores, pairs(6), scale=20).rows()} == {
        "dual softmax (transductive)"
    }
    assert evaluate_querybank(scores, scores, pairs(6), scale=20).to_json()["label"] == "QB-norm (transductive)"


def test_a_bank_of_other_videos_is_refused() -> None:
    with pytest.raises(RequestError, match=r"the querybank is \(4, 5\); expected .* the same 6 videos"):
        querybank_norm(scores_of(6, 6), scores_of(4, 5), scale=20)
