"""A set in two stages: the weight chosen on its validation split, then every depth on the one that is asked for."""

from __future__ import annotations

from typing import NamedTuple

import torch

from stillreel.configs import RequestError
from stillreel.pretrain.evaluation import Evaluator
from stillreel.pretrain.evaluation.two_stage.stages import has_fine_stage
from stillreel.pretrain.evaluation.two_stage.sweep import DEPTHS, Sweep, choose_weight, sweep_depths
from stillreel.pretrain.model import VideoTextModel


class Staged(NamedTuple):
    """A sweep, and where its weight is from."""

    sweep: Sweep
    chosen: str

    def table(self, split: str) -> str:
        """The protocol of the second stage, and a row a depth."""
        head = f"{split}, text to video, re-ranked: weight {self.sweep.weight:g} of the fine logit ({self.chosen})"
        return f"{head}\n{self.sweep.table()}"


def evaluate_stages(
    model: VideoTextModel,
    evaluator: Evaluator,
    validation: Evaluator | None,
    *,
    depth: int,
    autocast: torch.dtype | None = None,
) -> Staged | None:
    """Every depth of DEPTHS, `depth` and all, with the weight that is best at `depth` on the validation split.

    All ranks must call it; the result is on rank 0, None on the others. Without a validation split fine scores stand alone.
    RequestError where the model has no fine stage.
    """
    if not has_fine_stage(model):
        raise RequestError(f"rerank={depth}: the model has no fine stage: neither a re-ranker nor head=mug or tight")
    weight, chosen = 1.0, "fine scores alone: there is no whole validation split to choose it on"
    if validation is not None:
        seen = validation.encode(model, autocast=autocast)
        if seen is not None:
            weight = choose_weight(model, seen.video, seen.text, seen.matches, depth=depth, whole=seen.whole)
        chosen = f"best R@1 at K={depth} on validation"
    seen = evaluator.encode(model, autocast=autocast)
    if seen is None:
        return None
    depths = sorted({*DEPTHS, depth})
    sweep = sweep_depths(model, seen.video, seen.text, seen.matches, weight=weight, depths=depths, whole=seen.whole)
    return Staged(sweep, chosen)
