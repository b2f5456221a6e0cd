"""Other scores from scores: dual softmax and QB-norm. What they give is compared within a query only.

Both look beyond the one query and its items: dual softmax at all queries of the test at once, QB-norm at a bank of training
captions. So neither is what a search engine would answer to a single question, and their figures stand in rows of their own.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from stillreel.configs import RequestError
from stillreel.pretrain.evaluation.ranks import Matches, text_to_video, video_to_text
from stillreel.pretrain.evaluation.results import Retrieval

DUAL_SOFTMAX = "dual softmax (transductive)"
QUERYBANK = "QB-norm (transductive)"

_AT_ONCE = 1 << 22  # scores in fp64 at once


def dual_softmax(scores: Tensor, queries: Literal["captions", "videos"], *, scale: float) -> Tensor:
    """Scores (A, B), each times the softmax over all `queries` of `scale` times the scores of the same item.

    Cheng et al., CAMoE (arXiv 2109.04290). `scale` brings the scores to logits: 100 for cosines, 1 for a model whose scores
    have CLIP's scale already. It presumes that each item is right for about one query, which is false where videos have
    many captions. NaN stays NaN, and has no share in a softmax. The softmax is taken in fp64.
    """
    out = torch.empty_like(scores)
    items = 1 if queries == "captions" else 0  # the softmax runs over the other axis, a few items at a time
    step = max(1, _AT_ONCE // scores.shape[1 - items])
    for given, made in zip(scores.split(step, items), out.split(step, items), strict=True):
        logits = (scale * given.double()).masked_fill(given.isnan(), float("-inf"))
        made.copy_(given * logits.softmax(dim=1 - items).nan_to_num(0.0))
    return out


def querybank_norm(scores: Tensor, bank: Tensor, *, scale: float, nearest: int = 1) -> Tensor:
    """Scores (A, B) of test captions, less what each video scores with a bank of training captions, bank (M, B).

    Bogolin et al., Cross Modal Retrieval with Querybank Normalization (CVPR 2022), the dynamic inverted softmax, in
    logarithms: scale * s(q, v) - log sum_b exp(scale * s(b, v)), for those captions whose best video is among the `nearest`
    videos of some caption of the bank; the others keep their scores. `scale` is 20 for cosines, as published; for scores
    that CLIP's learned scale has multiplied, the published CLIP2Video runs have 1 / 1.99. NaN stays NaN; a video without any
    score in the bank has none.
    """
    if bank.ndim != 2 or bank.shape[1] != scores.shape[1] or not len(bank):
        raise RequestError(
            f"the querybank is {tuple(bank.shape)}; expected scores of some training captions with the same "
            f"{scores.shape[1]} videos"
        )
    if nearest < 1:
        raise RequestError(f"nearest={nearest}: expected 1 or more")
    known = bank.masked_fill(bank.isnan(), float("-inf"))
    hubs = torch.zeros(bank.shape[1], dtype=torch.bool, device=bank.device)
    hubs[known.topk(min(nearest, bank.shape[1]), dim=1).indices.flatten()] = True
    total = torch.cat([(scale * part.double()).logsumexp(dim=0) for part in known.split(_columns_at_once(bank), dim=1)])
    total = total.masked_fill(total.isneginf(), float("nan"))
    out = scores.clone()
    for rows in out.split(max(1, _AT_ONCE // scores.shape[1])):
        chosen = hubs[rows.masked_fill(rows.isnan(), float("-inf")).argmax(dim=1)]
        rows[chosen] = (scale * rows[chosen].double() - total).to(rows.dtype)
    return out


def evaluate_dual_softmax(scores: Tensor, matches: Matches, *, scale: float) -> Retrieval:
    """Both directions, each with the softmax over its own queries."""
    return Retrieval(
        text_to_video(dual_softmax(scores, "captions", scale=scale), matches),
        video_to_text(dual_softmax(scores, "videos", scale=scale), matches),
        DUAL_SOFTMAX,
    )


def evaluate_querybank(scores: Tensor, bank: Tensor, matches: Matches, *, scale: float, nearest: int = 1) -> Retrieval:
    """Text to video only: the bank is of captions."""
    normed = querybank_norm(scores, bank, scale=scale, nearest=nearest)
    return Retrieval(text_to_video(normed, matches), None, QUERYBANK)


def _columns_at_once(matrix: Tensor) -> int:
    return max(1, _AT_ONCE // len(matrix))
