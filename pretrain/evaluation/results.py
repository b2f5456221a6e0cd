"""The figures of ranks, as values, JSON and table rows: R@1/5/10/50 in percent, median and mean rank; top-1 and top-5; the
accuracy of multi-choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stillreel.pretrain.evaluation.ranks import Matches, Ranks, rank_classes, text_to_video, video_to_text
from stillreel.pretrain.evaluation.uncertainty import Interval, intervals

RAW = "raw"
DEPTHS = (1, 5, 10, 50)
TOPS = (1, 5)
COLUMNS = ("", "direction", *(f"R@{depth}" for depth in DEPTHS), "MdR", "MnR", "R@1 95%", "queries", "items", "missed")
CHOICE_COLUMNS = ("", "accuracy", "accuracy 95%", "questions", "options", "missed", "tied")
TOP_COLUMNS = ("", *(f"top-{top}" for top in TOPS), "top-1 95%", "clips", "classes", "missed")


@dataclass(frozen=True)
class Retrieval:
    """Both directions of one matrix, or of the other scores that a transductive method made of it; `label` says which.

    `missing` names what was expected and is not there: its queries are among those missed.
    """

    columns: ClassVar = COLUMNS

    text_to_video: Ranks
    video_to_text: Ranks | None  # QB-norm has none
    label: str = RAW
    missing: tuple[str, ...] = ()

    def metrics(self) -> dict[str, float]:
        """By name: t2v_r1, t2v_r5, t2v_r10, t2v_r50, t2v_mdr, t2v_mnr, and v2t_ likewise."""
        return {f"{way}_{name}": value for way, ranks in self._ways() for name, value in figures(ranks).items()}

    def to_json(self) -> dict[str, Any]:
        """All there is to know, ranks of every query included; intervals are of 95 %."""
        return {
            "label": self.label,
            "missing": list(self.missing),
            **{way: _in_json(ranks, figures(ranks), intervals(ranks, DEPTHS)) for way, ranks in self._ways()},
        }

    def rows(self) -> list[list[str]]:
        """A row of COLUMNS for each direction."""
        ways = {"t2v": "text to video", "v2t": "video to text"}
        return [[self.label, ways[way], *_cells(ranks, figures(ranks))] for way, ranks in self._ways()]

    def _ways(self) -> list[tuple[str, Ranks]]:
        both = (("t2v", self.text_to_video), ("v2t", self.video_to_text))
        return [(way, ranks) for way, ranks in both if ranks is not None]


@dataclass(frozen=True)
class Recognition:
    """N clips, each among C classes."""

    columns: ClassVar = TOP_COLUMNS

    ranks: Ranks
    label: str = RAW
    missing: tuple[str, ...] = ()

    def metrics(self) -> dict[str, float]:
        """top1 and top5, in percent."""
        return {f"top{top}": _percent(self.ranks, top) for top in TOPS}

    def to_json(self) -> dict[str, Any]:
        """All there is to know, the rank of every clip's class included; intervals are of 95 %."""
        found = intervals(self.ranks, TOPS)
        bounds = {f"top{top}": found[f"r{top}"] for top in TOPS}
        return {
            "label": self.label,
            "missing": list(self.missing),
            **_in_json(self.ranks, self.metrics(), bounds),
        }

    def rows(self) -> list[list[str]]:
        """One row of TOP_COLUMNS."""
        return [[self.label, *_cells(self.ranks, self.metrics())]]


@dataclass(frozen=True)
class Choice:
    """N questions, each a clip with options of its own, one of them right. A hit is right and above all others: a question whose
    right option shares the best score is none, and is counted among those `tied`, (N,)."""

    columns: ClassVar = CHOICE_COLUMNS

    ranks: Ranks
    tied: NDArray[np.bool_]
    label: str = RAW
    missing: tuple[str, ...] = ()

    def metrics(self) -> dict[str, float]:
        """accuracy, in percent."""
        return {"accuracy": _percent(self.ranks, 1)}

    def to_json(self) -> dict[str, Any]:
        """All there is to know, the rank of every question's right option included; the interval is of 95 %."""
        return {
            "label": self.label,
            "missing": list(self.missing),
            "tied": np.flatnonzero(self.tied).tolist(),
            **_in_json(self.ranks, self.metrics(), {"accuracy": intervals(self.ranks, (1,))["r1"]}),
        }

    def rows(self) -> list[list[str]]:
        """One row of CHOICE_COLUMNS."""
        return [[self.label, *_cells(self.ranks, self.metrics()), f"{int(self.tied.sum()):,}"]]


def evaluate_retrieval(scores: Tensor, matches: Matches, missing: Sequence[str] = ()) -> Retrieval:
    """Both directions of scores (A, B) as they are; see `ranks` for the protocol."""
    return Retrieval(text_to_video(scores, matches), video_to_text(scores, matches), RAW, tuple(missing))


def evaluate_recognition(scores: Tensor, classes: Tensor, missing: Sequence[str] = ()) -> Recognition:
    """Scores (N, C) against the right classes (N,), with the ties and NaN of `ranks`."""
    return Recognition(rank_classes(scores, classes), RAW, tuple(missing))


def evaluate_choice(scores: Tensor, right: Tensor, missing: Sequence[str] = ()) -> Choice:
    """Scores (N, O) of each question's own options against the right ones (N,), with the ties and NaN of `ranks`."""
    ranks = rank_classes(scores, right)
    own = scores.gather(1, right.to(scores.device)[:, None])
    tied = ((scores == own).sum(dim=1) > 1) & ~(scores > own).any(dim=1)
    return Choice(ranks, tied.cpu().numpy(), RAW, tuple(missing))


def figures(ranks: Ranks) -> dict[str, float]:
    """r1, r5, r10, r50 in percent, mdr, mnr."""
    recalls = {f"r{depth}": _percent(ranks, depth) for depth in DEPTHS}
    return {**recalls, "mdr": float(np.median(ranks.values)), "mnr": float(ranks.values.mean())}


def in_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: the first column to the left, figures to the right."""
    widths = [max(len(line[at]) for line in (columns, *rows)) for at in range(len(columns))]
    lines = [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (columns, *rows)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _percent(ranks: Ranks, depth: int) -> float:
    return 100 * float(ranks.hits(depth).mean())


def _in_json(ranks: Ranks, values: Mapping[str, float], bounds: Mapping[str, Interval]) -> dict[str, Any]:
    return {
        **values,
        "intervals": {name: [one.low, one.high] for name, one in bounds.items()},
        "queries": len(ranks.values),
        "items": ranks.items,
        "missed": np.flatnonzero(ranks.missed).tolist(),
        "ranks": ranks.values.tolist(),
    }


def _cells(ranks: Ranks, values: Mapping[str, float]) -> list[str]:
    one = intervals(ranks, (1,))["r1"]
    counts = (len(ranks.values), ranks.items, int(ranks.missed.sum()))
    return [
        *(f"{value:.1f}" for value in values.values()),
        f"{one.low:.1f}-{one.high:.1f}",
        *(f"{n:,}" for n in counts),
    ]
