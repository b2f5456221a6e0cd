"""The figures of a study: outcomes of its cells put together, the questions that it asks, and what the answers are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from stillreel.configs.study import NONE, StudySettings
from stillreel.finetune.study.grid import Cell, Check
from stillreel.finetune.study.statistics import (
    Figure,
    Floats,
    Ints,
    answer_of,
    any_answer,
    figure_of,
    power_of,
    within_bounds,
)
from stillreel.finetune.study.world import KINDS, TEMPORAL
from stillreel.finetune.study.write import videos_of_split

Results = Mapping[Cell, Mapping[str, Any]]

EVERY, MOVING = "all kinds", "what moves"
RERANKED = "rerank"
STILL = ("still", "jump")  # what does not move as a camera does


class Arm(NamedTuple):
    """Cells that differ in their seeds alone."""

    data: str
    model: str
    pairs: int

    @property
    def anchor(self) -> str:
        return "-".join(map(str, self)).replace("/", "-").replace(".", "-")


class Answered(NamedTuple):
    """A question, the difference that it is answered by, in which kind of query, and yes, no or undecided."""

    question: str
    arm: Arm
    than: Arm
    kind: str
    difference: Figure
    answer: str


@dataclass(frozen=True)
class Study:
    """Its settings, and the results that there are."""

    settings: StudySettings
    results: Results

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        return () if self.settings.real.benchmark else KINDS

    @cached_property
    def _queries(self) -> tuple[Any, Ints]:
        """The kind of each test query, and its group."""
        if self.settings.real.benchmark:
            clusters = np.array(next(iter(self.results.values()))["answers"]["coarse"]["clusters"])
            return np.full(len(clusters), EVERY), clusters
        videos = videos_of_split(self.settings.world, "test")
        return np.array([video.kind for video in videos]), np.array([video.group for video in videos])

    @property
    def measure(self) -> str:
        """The main one."""
        return "all" if self.settings.real.benchmark else "group"

    def arms(self) -> list[Arm]:
        """Those that have a result, in the order of the grid."""
        arms = [Arm(cell.data, cell.model, cell.pairs) for cell in self.results if not cell.check]
        return sorted(dict.fromkeys(arms), key=self._place)

    def seeds(self, arm: Arm) -> list[int]:
        return sorted(cell.seed for cell in self.results if not cell.check and cell[:3] == arm)

    def outcomes(
        self, arm: Arm, seeds: Sequence[int], kind: str, measure: str, stage: str = "", check: Check = ""
    ) -> Floats:
        """(S, Q), of the queries of a kind; the stage is the last one that the model has."""
        found = []
        for seed in seeds:
            answers = self.results[Cell(*arm, seed, check)]["answers"]
            values = answers[stage or ("fine" if "fine" in answers else "coarse")][measure]
            found.append(np.array(values, np.float64)[self._chosen(kind)])
        return np.stack(found)

    def figure(self, arm: Arm, kind: str, measure: str = "", stage: str = "", check: Check = "") -> Figure:
        seeds = [0] if check else self.seeds(arm)
        outcomes = self.outcomes(arm, seeds, kind, measure or self.measure, stage, check)
        return within_bounds(figure_of(outcomes, self._queries[1][self._chosen(kind)]))

    def gains(self, arm: Arm, than: Arm, kind: str, measure: str = "", stage: str = "") -> Floats:
        """(S, Q): outcomes of an arm less those of another, of the seeds that both have."""
        seeds = sorted({*self.seeds(arm)} & {*self.seeds(than)})
        if not seeds:
            return np.empty((0, 0))
        first, second = (self.outcomes(one, seeds, kind, measure or self.measure, stage) for one in (arm, than))
        return first - second

    def difference(self, arm: Arm, than: Arm, kind: str, measure: str = "", *, level: float = 0.95) -> Figure | None:
        """None where no seed has both."""
        gains = self.gains(arm, than, kind, measure)
        return figure_of(gains, self._queries[1][self._chosen(kind)], level=level) if gains.size else None

    def refinement(self, arm: Arm, kind: str, measure: str = "") -> Figure:
        """What the re-ranker adds to the candidates' order."""
        seeds = self.seeds(arm)
        fine, coarse = (self.outcomes(arm, seeds, kind, measure or self.measure, one) for one in ("fine", "coarse"))
        return figure_of(fine - coarse, self._queries[1][self._chosen(kind)])

    def power(self, arm: Arm, than: Arm) -> Any:
        """Of the main comparison, over all kinds; None where no seed has both."""
        gains = self.gains(arm, than, EVERY)
        return power_of(gains, self._queries[1], self.settings.points) if gains.size else None

    def answers(self) -> Iterator[Answered]:
        """To the questions that the study is for, by every model of the main grid, of all kinds together and of each."""
        grid, points = self.settings.main, self.settings.points
        for pairs in grid.pairs:
            for model in grid.models:
                for data, other in (("film", "still"), ("film", "jump"), ("film", NONE)):
                    for kind in (EVERY, *self.kinds):
                        yield from self._answer(
                            f"does {data} beat {other}?",
                            Arm(data, model, pairs),
                            Arm(other, model, pairs),
                            kind,
                            points,
                        )
                yield from self._any_beats_none(model, pairs)
            yield from self._interaction(pairs)

    def _answer(self, question: str, arm: Arm, than: Arm, kind: str, points: float) -> Iterator[Answered]:
        difference = self.difference(arm, than, kind)
        if difference is not None:
            yield Answered(question, arm, than, kind, difference, answer_of(difference, points))

    def _any_beats_none(self, model: str, pairs: int) -> Iterator[Answered]:
        """Of as many intervals as there are data, each at the level that Bonferroni's bound asks for."""
        moving = [data for data in self.settings.main.data if data not in (NONE, *STILL[:1])]
        level = 1 - 0.05 / max(len(moving), 1)
        than = Arm(NONE, model, pairs)
        found = [
            (Arm(data, model, pairs), self.difference(Arm(data, model, pairs), than, EVERY, level=level))
            for data in moving
        ]
        known = [(arm, one) for arm, one in found if one is not None]
        if known:
            answer = any_answer([answer_of(one, self.settings.points) for _, one in known])
            arm, best = max(known, key=lambda pair: pair[1].low)
            yield Answered("does any pretraining on pseudo-videos beat none?", arm, than, EVERY, best, answer)

    def _interaction(self, pairs: int) -> Iterator[Answered]:
        """What the re-ranker gains by `film` over `none`, less what the dual encoders gain."""
        if RERANKED not in self.settings.main.models:
            return
        for model in self.settings.main.models:
            if model == RERANKED:
                continue
            arms = [Arm(data, one, pairs) for one in (RERANKED, model) for data in ("film", NONE)]
            seeds = sorted(set.intersection(*({*self.seeds(arm)} for arm in arms)))
            if not seeds:
                continue
            for kind in (EVERY, *self.kinds):
                films, nones, own_films, own_nones = (self.outcomes(arm, seeds, kind, self.measure) for arm in arms)
                gained = (films - nones) - (own_films - own_nones)
                difference = figure_of(gained, self._queries[1][self._chosen(kind)])
                question = f"does the re-ranker gain more by film than {model}?"
                yield Answered(
                    question, arms[0], arms[2], kind, difference, answer_of(difference, self.settings.points)
                )

    def _chosen(self, kind: str) -> Any:
        """Which queries are of a kind, bool (Q,)."""
        kinds = self._queries[0]
        if kind == EVERY:
            return np.ones(len(kinds), np.bool_)
        if kind == MOVING:
            return np.isin(kinds, TEMPORAL)
        return kinds == kind

    def _place(self, arm: Arm) -> tuple[int, int, int]:
        grids = (self.settings.main, self.settings.wide)
        models: list[str] = list(dict.fromkeys(name for grid in grids for name in grid.models))
        data = list(dict.fromkeys(name for grid in grids for name in grid.data))
        places = [
            names.index(name) if name in names else len(names)
            for names, name in ((models, arm.model), (data, arm.data))
        ]
        return places[0], -arm.pairs, places[1]
