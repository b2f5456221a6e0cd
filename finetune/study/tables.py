"""The tables of a study's report, before they are HTML or Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from stillreel.configs.study import NONE
from stillreel.configs.system.progress import duration
from stillreel.finetune.study.figures import EVERY, RERANKED, Arm, Study
from stillreel.finetune.study.grid import Cell
from stillreel.finetune.study.statistics import Figure
from stillreel.finetune.study.world import TEMPORAL
from stillreel.pretrain.evaluation import in_rows

_NOTHING = "-"
_ARM = ("model", "data", "pairs")


class Entry(NamedTuple):
    """A cell of a table; `link` is the anchor of the runs that it is of."""

    text: str
    link: str = ""


class Table(NamedTuple):
    """With a heading, what is to be said of it, and the anchors of its rows, where others link to them."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    anchors: tuple[str, ...] = ()


def tables_of(study: Study) -> list[Table]:
    """All that have a row."""
    makers: tuple[Callable[[Study], Table], ...] = (
        _answers, recalls_of, _pairs, _mistaken, _against_still, _against_none, _refined, _checks, _power, _costs, _runs,
    )  # fmt: skip
    return [table for make in makers if (table := make(study)).rows]


def power_in_words(study: Study) -> str:
    """The table of power, for a terminal: how many seeds the comparisons take, by the variance of the cells that are done."""
    table = _power(study)
    rows = [[f"{row[0].text}, {row[1].text}", *(entry.text for entry in row[2:])] for row in table.rows]
    return f"{table.note}\n{in_rows([table.columns[0], *table.columns[2:]], rows)}" if rows else ""


def _answers(study: Study) -> Table:
    points = study.settings.points
    rows = []
    for one in study.answers():
        told = Entry(one.difference.told(sign=True), one.arm.anchor)
        words = one.arm.model, str(one.arm.pairs), str(one.difference.seeds)
        rows.append((*map(Entry, (one.question, one.kind, one.answer)), told, *map(Entry, words)))
    note = (
        "Differences in points of R@1, with 95 % intervals over seeds and queries. yes: the interval is above 0; no: it leaves "
        f"no room for a gain of {points / 2:g} points; undecided: neither, or of one seed. Of several data (any), each interval "
        "is at Bonferroni's level, and the best one is shown."
    )
    return Table(
        "Answers", note, ("question", "queries", "answer", "difference", "model", "pairs", "seeds"), tuple(rows)
    )


def recalls_of(study: Study) -> Table:
    """What each arm finds, of each kind of query."""
    kinds = study.kinds or (EVERY,)
    among = "the four of its group (chance 25)" if study.kinds else "all videos"
    note = f"Text to video, percent, among {among}; of the re-ranker after its second stage."
    if study.kinds:
        kinds = (*kinds, EVERY)
    return _by_arm(study, "R@1 by kind of query", note, kinds, lambda arm, kind: study.figure(arm, kind))


def _pairs(study: Study) -> Table:
    note = (
        "Percent of queries that prefer their video to its reverse. Both have the same frames, so chance is 50, and a mean of "
        "frames cannot do better."
    )
    kinds = TEMPORAL if study.kinds else ()
    return _by_arm(study, "Told from its reverse", note, kinds, lambda arm, kind: study.figure(arm, kind, "pair"))


def _mistaken(study: Study) -> Table:
    note = (
        "Percent of queries that find a video of the other pair of their group first: the camera in place of a thing, a thing in "
        "place of the camera, or the acts of two things exchanged. Chance is 50; less is better."
    )
    kinds = TEMPORAL if study.kinds else ()
    return _by_arm(study, "Taken for another", note, kinds, lambda arm, kind: study.figure(arm, kind, "other"))


def _against_still(study: Study) -> Table:
    return _against(study, "still")


def _against_none(study: Study) -> Table:
    return _against(study, NONE)


def _against(study: Study, other: str) -> Table:
    """Every arm less the one of its model and pairs that saw other data."""
    kinds = (*study.kinds, EVERY)

    def told(arm: Arm, kind: str) -> Figure | None:
        return study.difference(arm, arm._replace(data=other), kind)

    arms = [arm for arm in study.arms() if arm.data != other and told(arm, EVERY) is not None]
    rows = []
    for arm in arms:
        found = [told(arm, kind) for kind in kinds]
        entries = [Entry(one.told(sign=True), arm.anchor) if one else Entry(_NOTHING) for one in found]
        rows.append((*_names(arm), *entries))
    note = f"Points of R@1 more than the same model has that was pretrained on {other}, paired by seed and query."
    return Table(f"Less {other}", note, (*_ARM, *kinds), tuple(rows))


def _refined(study: Study) -> Table:
    kinds = (*study.kinds, EVERY)
    rows = []
    for arm in study.arms():
        if arm.model == RERANKED and study.kinds:
            for words, told in (
                ("coarse", [study.figure(arm, kind, stage="coarse") for kind in kinds]),
                ("coarse to fine", [study.figure(arm, kind, stage="fine") for kind in kinds]),
                ("gain", [study.refinement(arm, kind) for kind in kinds]),
            ):
                entries = [Entry(one.told(sign=words == "gain"), arm.anchor) for one in told]
                rows.append((*_names(arm)[1:], Entry(words), *entries))
    note = "R@1 of the re-ranker's own dual encoder, of both stages, and what the second one adds."
    return Table("Coarse against coarse to fine", note, (*_ARM[1:], "stage", *kinds), tuple(rows))


def _checks(study: Study) -> Table:
    from stillreel.finetune.study.checks import checks_of

    rows = tuple(
        (Entry(one.name), Entry(one.expected), Entry(one.found), Entry(one.verdict)) for one in checks_of(study)
    )
    return Table("Checks", "What must hold whatever animating buys.", ("check", "expected", "found", ""), rows)


def _power(study: Study) -> Table:
    grid, rows = study.settings.main, []
    for model in grid.models:
        for other in ("still", NONE):
            arm, than = Arm("film", model, grid.pairs[0]), Arm(other, model, grid.pairs[0])
            power = study.power(arm, than)
            if power is None:
                continue
            parts = (f"{power.of_seeds:.2f}", f"{power.of_groups:.2f}", f"{power.of_both:.2f}")
            width = f"{power.width(power.seeds, power.groups):.2f}" if power.seeds > 1 else _NOTHING
            needed = [_NOTHING if one is None else f"{one:,}" for one in (power.seeds_needed, power.groups_needed)]
            words = (f"film less {other}", model, *parts, str(power.seeds), f"{power.groups:,}", width, *needed)
            rows.append(tuple(map(Entry, words)))
    note = (
        f"Standard deviations of the difference, in points, between seeds, between groups of queries, and of both; the width of "
        f"the 95 % interval that they give; and the seeds (with these groups) or the groups (with these seeds) that bring it to "
        f"{study.settings.points:g} points."
    )
    columns = (
        "comparison",
        "model",
        "seeds'",
        "groups'",
        "both",
        "seeds",
        "groups",
        "width",
        "seeds needed",
        "groups needed",
    )
    return Table("Power", note, columns, tuple(rows))


def _costs(study: Study) -> Table:
    rows = []
    for arm in study.arms():
        cells = [Cell(*arm, seed) for seed in study.seeds(arm)]
        costs = [study.results[cell]["cost"] for cell in cells]
        stages = [
            duration(sum(cost.get(stage, {}).get("cpu_seconds", 0.0) for cost in costs) / len(costs))
            for stage in ("pretrain", "finetune")
        ]
        rows.append((*_names(arm), Entry(str(len(cells))), *map(Entry, stages)))
    note = "CPU time of a cell, the mean of its seeds; a pretraining that cells share is told of each."
    return Table("Cost", note, (*_ARM, "seeds", "pretraining", "finetuning and test"), tuple(rows))


def _runs(study: Study) -> Table:
    rows, anchors = [], []
    for arm in study.arms():
        for seed in study.seeds(arm):
            cell = Cell(*arm, seed)
            where = Entry(f"cells/{cell.name}", f"cells/{cell.name}/run.json")
            rows.append((*_names(arm), Entry(str(seed)), where, Entry(study.results[cell]["digest"][:12])))
            anchors.append(arm.anchor if seed == study.seeds(arm)[0] else "")
    note = (
        "Each cell's folder, whose run.json and result.json have all of its settings, and the digest of those that decide what "
        "is learned. Every figure links to the first of its runs."
    )
    return Table("Runs", note, (*_ARM, "seed", "run", "settings"), tuple(rows), tuple(anchors))


def _by_arm(study: Study, title: str, note: str, kinds: tuple[str, ...], figure: Callable[[Arm, str], Figure]) -> Table:
    rows = []
    for arm in study.arms() if kinds else ():
        found = [figure(arm, kind) for kind in kinds]
        rows.append((*_names(arm), Entry(str(found[0].seeds)), *(Entry(one.told(), arm.anchor) for one in found)))
    return Table(title, note, (*_ARM, "seeds", *kinds), tuple(rows))


def _names(arm: Arm) -> tuple[Entry, ...]:
    return Entry(arm.model), Entry(arm.data), Entry(str(arm.pairs))
