"""Coarse to fine: vectors propose K videos for a caption, and what sees words and frames orders these.

stages.py   features -> vectors that propose, and scores that order: of the re-ranker, of `mug`, of `tight`
order.py    coarse scores, candidates and their fine scores -> one order; pure
sweep.py    figures against K, what they cost, and the weight of the fusion, chosen on a validation split
examine.py  a benchmark through all of these
plot.py     the same as a picture
"""

from finetune.two_stage.order import choose_candidates, fused, two_stage_scores
from finetune.two_stage.stages import coarse_scores, fine_scores, has_fine_stage
from finetune.two_stage.sweep import DEPTHS, Sweep, choose_weight, sweep_depths

__all__ = [
    "DEPTHS",
    "Sweep",
    "choose_candidates",
    "choose_weight",
    "coarse_scores",
    "fine_scores",
    "fused",
    "has_fine_stage",
    "sweep_depths",
    "two_stage_scores",
]
