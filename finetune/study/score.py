"""What became of every test query: found among the videos that differ from its own in one thing alone, and among all of its kind.

    group     the first of the four of its group: chance 25
    pair      the first of a video and its reverse, which have the same frames: chance 50, and no more than that for a mean
    other     the first of its group is of the other pair: what moves is mistaken, such as the camera for a thing. Chance 50
    all       the first among all videos of its kind, without those of the same caption

Each is a share of a hit: of m videos that tie for the first place, a query finds its own with 1 / m, as by chance. Two logits
that differ by less than TIE tie: sums of the same numbers in another order do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stillreel.finetune.study.world import GROUP, KINDS, TEMPORAL, Video
from stillreel.pretrain.evaluation import Matches
from stillreel.pretrain.evaluation.evaluator import EncodedSet
from stillreel.pretrain.evaluation.two_stage.order import choose_candidates, fused
from stillreel.pretrain.evaluation.two_stage.stages import coarse_scores, fine_scores, read_clips
from stillreel.pretrain.evaluation.two_stage.sweep import choose_weight
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.features import pick_rows

TIE = 1e-3  # of a logit
Answers = dict[str, list[float | None]]  # None: not asked of a query


class Stages(NamedTuple):
    """Logits of a group's videos (Q, 4), and of those of its kind that are compared, NaN elsewhere, (Q, N)."""

    groups: Tensor
    kinds: Tensor


def answers_of(
    model: VideoTextModel, test: EncodedSet, validation: EncodedSet, videos: Sequence[Video], candidates: int
) -> dict[str, Answers]:
    """By stage (coarse, and fine where there is a re-ranker) and measure a number for each query, in the order of `videos`."""
    kinds, captions = [video.kind for video in videos], [video.caption for video in videos]
    coarse = coarse_scores(model, test.video, test.text)
    members = torch.arange(len(videos)).reshape(-1, GROUP).repeat_interleave(GROUP, dim=0)
    rivals = _rivals(kinds, captions)
    stages = {"coarse": Stages(coarse.gather(1, members), coarse.masked_fill(~rivals, torch.nan))}
    if model.reranker is not None:
        matches = Matches(torch.arange(len(validation.whole)), torch.arange(len(validation.whole)))
        weight = choose_weight(model, validation.video, validation.text, matches, depth=candidates)
        memory = read_clips(model, test.video)

        def refined(clips: Tensor, near: Tensor) -> Tensor:
            return torch.cat(
                [
                    fused(some, fine_scores(model, memory, pick_rows(test.text, rows), own), weight)
                    for rows, own, some in zip(
                        torch.arange(len(clips)).split(256), clips.split(256), near.split(256), strict=True
                    )
                ]
            )

        chosen = choose_candidates(stages["coarse"].kinds, candidates)
        near = refined(chosen, coarse.gather(1, chosen)).masked_fill(~rivals.gather(1, chosen), torch.nan)
        whole = torch.full_like(coarse, torch.nan).scatter(1, chosen, near)
        stages["fine"] = Stages(refined(members, stages["coarse"].groups), whole)
    pairs = torch.tensor([video.pair for video in videos])
    return {name: _measured(stage, kinds, pairs[members], pairs) for name, stage in stages.items()}


def _rivals(kinds: Sequence[str], captions: Sequence[str]) -> Tensor:
    """bool (Q, Q): of each query its own video, and those of its kind that another caption tells of."""
    kind = torch.tensor([KINDS.index(one) for one in kinds])
    numbers = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    told = torch.tensor([numbers[caption] for caption in captions])
    apart = told[:, None] != told[None]
    return (kind[:, None] == kind[None]) & (apart | torch.eye(len(told), dtype=torch.bool))


def _measured(stage: Stages, kinds: Sequence[str], pair_of: Tensor, own_pair: Tensor) -> Answers:
    """`pair_of` (Q, 4) are the pairs of a group's videos, `own_pair` (Q,) that of the query's."""
    queries = torch.arange(len(own_pair))
    within = (queries % GROUP)[:, None]
    same = pair_of == own_pair[:, None]
    temporal = torch.tensor([kind in TEMPORAL for kind in kinds])
    alone = torch.full((len(queries),), torch.nan, dtype=torch.float64)
    group = _first_shares(stage.groups)
    pair = _first_shares(stage.groups.masked_fill(~same, torch.nan)).gather(1, within)[:, 0]
    whole = _first_shares(stage.kinds)
    measured = {
        "group": group.gather(1, within)[:, 0],
        "pair": pair.where(temporal, alone),
        "other": (group * ~same).sum(dim=1).where(temporal, alone),
        "all": whole[queries, queries],
    }
    return {name: [None if one != one else one for one in values.tolist()] for name, values in measured.items()}


def _first_shares(scores: Tensor) -> Tensor:
    """Of each row (Q, N) the first place, shared by those that tie for it; float64, of NaN nothing."""
    known = scores.double().masked_fill(scores.isnan(), -torch.inf)
    first = known >= known.amax(dim=1, keepdim=True) - TIE
    first &= ~scores.isnan()
    return first.double() / first.sum(dim=1, keepdim=True).clamp(min=1)
