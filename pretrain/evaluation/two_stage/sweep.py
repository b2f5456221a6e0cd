"""What re-ranking K candidates gains, against all that it costs.

    coarse scores (A, B) ── K best of each caption ── fine scores (A, K) ── fused, by a weight from the validation split
                        └── all others in coarse order ──────────────────────────────────> ranks, by evaluation

The recall ceiling is how often the right video is among the K: no order of these finds more. K = all is full interaction.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stillreel.configs import RequestError
from stillreel.pretrain.evaluation import Difference, Matches, Ranks, compare, in_rows, intervals, text_to_video
from stillreel.pretrain.evaluation.results import figures
from stillreel.pretrain.evaluation.two_stage.order import choose_candidates, fused, two_stage_scores
from stillreel.pretrain.evaluation.two_stage.stages import coarse_scores, fine_scores, read_clips
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures

DEPTHS = (5, 10, 20, 50, 100)
WEIGHTS = tuple(step / 20 for step in range(21))
COLUMNS = ("K", "R@1", "95 %", "R@5", "R@10", "MdR", "MnR", "ceiling", "less coarse", "95 %", "ms/query", "pairs")


class Level(NamedTuple):
    """What becomes of A captions when K candidates of each are re-ranked; K = 0 is the coarse order alone."""

    depth: int
    ranks: Ranks
    ceiling: float  # percent of captions whose video is among the K
    pairs: int  # that the fine stage scored
    seconds: float  # of both stages, for all captions, from features on


@dataclass(frozen=True)
class Sweep:
    """Levels from the coarse order to full interaction, all of one model on one split, from captions to videos."""

    levels: tuple[Level, ...]
    weight: float  # of the fine logits inside
    videos: int

    @property
    def coarse(self) -> Level:
        return self.levels[0]

    def gain(self, level: Level) -> Difference:
        """R@1 of a level less the coarse one's, in percent, paired by query."""
        return compare(self.coarse.ranks, level.ranks, (1,))["r1"]

    def table(self) -> str:
        """A row a level, for a terminal."""
        return in_rows(COLUMNS, [self._row(level) for level in self.levels])

    def to_json(self) -> dict[str, Any]:
        """All figures, and every caption's rank at every level."""
        queries = len(self.coarse.ranks.values)
        levels = []
        for level in self.levels:
            gain = self.gain(level)
            levels.append(
                {
                    "k": level.depth,
                    **figures(level.ranks),
                    "ceiling": level.ceiling,
                    "gain": {"r1": gain.value, "interval": list(gain.interval), "p": gain.p},
                    "pairs": level.pairs,
                    "ms_per_query": 1000 * level.seconds / queries,
                    "ranks": level.ranks.values.tolist(),
                }
            )
        return {"weight": self.weight, "videos": self.videos, "queries": queries, "levels": levels}

    def name_of(self, level: Level) -> str:
        """K, in words at both ends."""
        return {0: "coarse", self.videos: "all"}.get(level.depth, str(level.depth))

    def _row(self, level: Level) -> list[str]:
        values, one = figures(level.ranks), intervals(level.ranks, (1,))["r1"]
        gain = self.gain(level)
        compared = [f"{gain.value:+.1f}", f"{gain.interval.low:+.1f} to {gain.interval.high:+.1f}"]
        return [
            self.name_of(level),
            f"{values['r1']:.1f}",
            f"{one.low:.1f}-{one.high:.1f}",
            *(f"{values[name]:.1f}" for name in ("r5", "r10", "mdr", "mnr")),
            f"{level.ceiling:.1f}" if level.depth else "",
            *(compared if level.depth else ["", ""]),
            f"{1000 * level.seconds / len(level.ranks.values):.2f}",
            f"{level.pairs:,}",
        ]


def sweep_depths(
    model: VideoTextModel,
    video: VideoFeatures,
    text: TextFeatures,
    matches: Matches,
    *,
    weight: float = 1.0,
    depths: Sequence[int] = DEPTHS,
    whole: Tensor | None = None,
    full: bool = True,
) -> Sweep:
    """Every depth, from features of B videos and A captions. RequestError where the model has no fine stage.

    `weight` is what `choose_weight` found on a validation split, or 1: fine scores alone. Videos that are not `whole` (B,) keep
    their column and are found by nobody. `full` asks for all A * B pairs too.
    """
    begin = _now(text.pooled)
    coarse = _coarse(model, video, text, whole)
    taken = _now(text.pooled) - begin
    ranks = text_to_video(coarse, matches)
    levels = [Level(0, ranks, 0.0, 0, taken)]
    videos = coarse.shape[1]
    for depth in sorted({min(depth, videos) for depth in depths} | ({videos} if full else set())):
        begin = _now(text.pooled)
        clips = choose_candidates(coarse, depth)
        # The clips are read anew at each depth, since that is what this depth costs.
        fine = fine_scores(model, read_clips(model, video), text, clips)
        scores = two_stage_scores(coarse, clips, fused(coarse.gather(1, clips), fine, weight))
        seconds = taken + _now(text.pooled) - begin
        levels.append(
            Level(depth, text_to_video(scores, matches), _ceiling(coarse, clips, matches), clips.numel(), seconds)
        )
    return Sweep(tuple(levels), weight, videos)


def choose_weight(
    model: VideoTextModel,
    video: VideoFeatures,
    text: TextFeatures,
    matches: Matches,
    *,
    depth: int = 50,
    whole: Tensor | None = None,
) -> float:
    """The weight of WEIGHTS with the best R@1 at a depth; of equal ones the best mean rank, then the largest.

    For a validation split: chosen on the split that is reported, it would flatter it.
    """
    if depth < 1:
        raise RequestError(f"depth={depth}: the weight orders the candidates, and needs some")
    coarse = _coarse(model, video, text, whole)
    clips = choose_candidates(coarse, depth)
    fine, near = fine_scores(model, read_clips(model, video), text, clips), coarse.gather(1, clips)
    found = []
    for weight in WEIGHTS:
        told = figures(text_to_video(two_stage_scores(coarse, clips, fused(near, fine, weight)), matches))
        found.append((told["r1"], -told["mnr"], weight))
    return max(found)[2]


def _ceiling(coarse: Tensor, clips: Tensor, matches: Matches) -> float:
    """Percent of captions with a right video, that is there, among their candidates."""
    right = matches.captions.to(clips.device)[:, None] == matches.videos.to(clips.device)[clips]
    return 100 * float((right & ~coarse.gather(1, clips).isnan()).any(dim=1).double().mean())


def _coarse(model: VideoTextModel, video: VideoFeatures, text: TextFeatures, whole: Tensor | None) -> Tensor:
    scores = coarse_scores(model, video, text)
    return scores if whole is None else scores.masked_fill(~whole, torch.nan)


def _now(device_of: Tensor) -> float:
    """Seconds; what a device was asked before is done by then."""
    if device_of.is_cuda:
        torch.cuda.synchronize(device_of.device)
    return time.perf_counter()
