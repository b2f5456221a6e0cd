"""The rank of what is right, for every query, from a matrix of scores (captions A, videos B) in fp32 or better.

    text to video    each caption is a query; it ranks all B videos. Right is its own video
    video to text    each video is a query; it ranks groups of captions, one group a video. A group's score is that of its best
                     caption, and right is the video's own group: CLIP4Clip's and CLIP2Video's protocol for MSVD, VATEX and
                     the full MSR-VTT. With one caption a video a group is a caption, and this is the usual protocol

A rank is 1 + the wrong items that score higher + half of the wrong items that score the same (the mid-rank, which is what
breaking ties at random gives on average). Where several items are right, the best of them is ranked, among the wrong ones.

A score that is NaN is no score: such an item is behind all others. A query none of whose right items has a score, because its
video is missing or its features are not finite, is a miss: its rank is that of the last item, and it is no hit at any depth,
not even where there are fewer items than the depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillreel.configs import DataError, RequestError

_AT_ONCE = (
    1 << 22
)  # scores that are compared at once: a few masks of so many bytes are all that is held beside the matrix


class Matches(NamedTuple):
    """Who belongs to whom: caption a is right for video b, and b for a, where captions[a] == videos[b].

    A video that is missing has no scores: it keeps its column, of NaN, so that the items are as many as published.
    """

    captions: Tensor  # int64 (A,)
    videos: Tensor  # int64 (B,)


@dataclass(frozen=True)
class Ranks:
    """What became of Q queries. `clusters` tells which of them are of one video, and so no independent observations."""

    values: NDArray[np.float64]  # (Q,), 1 is the best; halves where items tie
    missed: NDArray[np.bool_]  # (Q,): nothing right has a score
    clusters: NDArray[np.int64]  # (Q,)
    items: int  # what each query ranks

    def hits(self, depth: int) -> NDArray[np.bool_]:
        """(Q,): whether something right is among the first `depth`."""
        return (self.values <= depth) & ~self.missed


def pairs(count: int) -> Matches:
    """One caption a video, in the same order."""
    return Matches(torch.arange(count), torch.arange(count))


def text_to_video(scores: Tensor, matches: Matches) -> Ranks:
    """Ranks of A captions among B videos; scores (A, B) on any device, read a few rows at a time."""
    matches = _checked(scores, matches)
    blocks = (
        rank_rows(scores[rows], matches.captions[rows], matches.videos)
        for rows in _slices(len(scores), scores.shape[1])
    )
    return _joined(blocks, matches.captions, scores.shape[1])


def video_to_text(scores: Tensor, matches: Matches) -> Ranks:
    """Ranks of B videos among the groups of A captions; scores (A, B) on any device, read a few columns at a time."""
    matches = _checked(scores, matches)
    groups = Groups.of(matches.captions)
    blocks = (
        rank_rows(groups.best(scores[:, columns]).T, matches.videos[columns], groups.labels)
        for columns in _slices(scores.shape[1], len(scores))
    )
    return _joined(blocks, matches.videos, len(groups.labels))


def rank_classes(scores: Tensor, classes: Tensor) -> Ranks:
    """Ranks of the right class among C: scores (N, C), the right classes int64 (N,). A class outside 0..C-1 is an error."""
    _check_scores(scores)
    if classes.shape != scores.shape[:1] or classes.is_floating_point():
        raise RequestError(f"classes are {classes.dtype} {tuple(classes.shape)}; expected integers ({len(scores)},)")
    if not bool(((classes >= 0) & (classes < scores.shape[1])).all()):
        raise RequestError(
            f"classes range from {int(classes.min())} to {int(classes.max())}; the scores have classes "
            f"0 to {scores.shape[1] - 1}"
        )
    labels, classes = torch.arange(scores.shape[1], device=scores.device), classes.to(scores.device)
    blocks = (rank_rows(scores[rows], classes[rows], labels) for rows in _slices(*scores.shape))
    return _joined(blocks, torch.arange(len(scores)), scores.shape[1])


class Ranked(NamedTuple):
    """Of a block of q queries."""

    values: Tensor  # float64 (q,)
    missed: Tensor  # bool (q,)


def rank_rows(scores: Tensor, wanted: Tensor, labels: Tensor) -> Ranked:
    """Ranks of q queries with scores (q, N): right for a query are the items whose label (N,) is the one it wants (q,)."""
    right = wanted[:, None] == labels
    scored = right & ~scores.isnan()
    best = scores.masked_fill(~scored, float("-inf")).amax(dim=1, keepdim=True)
    higher = ((scores > best) & ~right).sum(dim=1)
    equal = ((scores == best) & ~right).sum(dim=1)
    missed = ~scored.any(dim=1)
    values = (1 + higher + equal.double() / 2).masked_fill(missed, scores.shape[1])
    return Ranked(values, missed)


class Groups(NamedTuple):
    """Captions of one label, as one item."""

    labels: Tensor  # int64 (G,)
    members: Tensor  # int64 (A,), the group of each caption

    @classmethod
    def of(cls, captions: Tensor) -> Groups:
        return cls(*captions.unique(return_inverse=True))

    def best(self, scores: Tensor) -> Tensor:
        """(G, b): of scores (A, b) the best of each group; NaN where none of its captions has a score."""
        index = self.members[:, None].expand_as(scores)
        nothing = scores.isnan()
        best = scores.new_full((len(self.labels), scores.shape[1]), float("-inf"))
        best = best.scatter_reduce(0, index, scores.masked_fill(nothing, float("-inf")), "amax")
        scored = torch.zeros_like(best, dtype=torch.uint8).scatter_reduce(0, index, (~nothing).byte(), "amax")
        return best.masked_fill(scored == 0, float("nan"))


def _checked(scores: Tensor, matches: Matches) -> Matches:
    """The matches, where the scores are."""
    _check_scores(scores)
    shape = (*matches.captions.shape, *matches.videos.shape)
    if scores.shape != shape:
        raise RequestError(f"scores are {tuple(scores.shape)}; expected (captions, videos) {shape}, as the matches are")
    return Matches(matches.captions.to(scores.device), matches.videos.to(scores.device))


def _check_scores(scores: Tensor) -> None:
    if scores.ndim != 2 or scores.dtype not in (torch.float32, torch.float64):
        raise RequestError(
            f"scores are {scores.dtype} {tuple(scores.shape)}; expected a matrix of float32 or float64: half precision "
            "makes ties that the model did not mean"
        )
    if not scores.numel():
        raise DataError(f"nothing to rank: scores are {tuple(scores.shape)}")


def _joined(blocks: Iterator[Ranked], clusters: Tensor, items: int) -> Ranks:
    found = list(blocks)
    return as_ranks(
        Ranked(torch.cat([one.values for one in found]), torch.cat([one.missed for one in found])), clusters, items
    )


def as_ranks(ranked: Ranked, clusters: Tensor, items: int) -> Ranks:
    """Ranks of all queries, from what a device knows of them."""
    return Ranks(ranked.values.cpu().numpy(), ranked.missed.cpu().numpy(), clusters.cpu().numpy(), items)


def _slices(count: int, width: int) -> Iterator[slice]:
    """Parts of `count` rows of a width, of _AT_ONCE scores each at most, or of one row."""
    step = max(1, _AT_ONCE // width)
    return (slice(start, start + step) for start in range(0, count, step))
