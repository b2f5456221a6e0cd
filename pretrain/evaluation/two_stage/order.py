"""From two stages to one order: fine inside the K candidates, coarse outside, every candidate before every other."""

from __future__ import annotations

import torch
from torch import Tensor


def choose_candidates(coarse: Tensor, depth: int) -> Tensor:
    """Rows (A, K) of the `depth` best of scores (A, B), K = min(depth, B), the best first; of equal ones the lower row.

    What is NaN, such as a missing video, comes after all others.
    """
    known = coarse.masked_fill(coarse.isnan(), -torch.inf)
    return known.argsort(dim=1, descending=True, stable=True)[:, :depth]


def fused(coarse: Tensor, fine: Tensor, weight: float) -> Tensor:
    """Logits of the same pairs, mixed: `weight` of the fine ones; 0 leaves the coarse order, 1 is the fine one."""
    assert 0 <= weight <= 1
    if weight in (0, 1):
        return fine if weight else coarse
    return weight * fine + (1 - weight) * coarse


def two_stage_scores(coarse: Tensor, clips: Tensor, inside: Tensor) -> Tensor:
    """Scores (A, B), whole numbers in float64, in the order of both stages, for whatever ranks scores.

    `coarse` (A, B) orders all but the candidates, rows `clips` (A, K), which `inside` (A, K) orders; each candidate is above
    every other. Equal scores stay equal, and NaN stays NaN: so ties and missing videos are ranked as those of one stage are.
    """
    scores = _dense(coarse)
    above = _dense(inside) + coarse.shape[1]
    missing = coarse.isnan().scatter(1, clips, coarse.gather(1, clips).isnan() | inside.isnan())
    return scores.scatter(1, clips, above).masked_fill(missing, torch.nan)


def _dense(values: Tensor) -> Tensor:
    """Of each row the place of each value among its different values, from 0 for the least, in float64."""
    rising, order = values.sort(dim=1)
    steps = (rising[:, 1:] != rising[:, :-1]).cumsum(dim=1).double()
    places = torch.cat([steps.new_zeros(len(values), min(1, values.shape[1])), steps], dim=1)
    return torch.empty_like(places).scatter(1, order, places)
