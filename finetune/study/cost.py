"""What a study costs: measured by the cells that are done, and until there are some, by a rough count of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from stillreel.configs.study import NONE, StudySettings
from stillreel.configs.system.progress import duration
from stillreel.finetune.study.grid import Cell
from stillreel.finetune.study.world import KINDS

# CPU seconds a frame of 64 px takes a tiny model, forward and backward, reading included; a test goes forward only.
_TRAINED, _TESTED = 1.3e-3, 6e-4
_TINY = "tiny"

Results = Mapping[Cell, Mapping[str, Any]]


class Cost(NamedTuple):
    """CPU seconds of what is done and of what is left, seconds on the clock until all is done, and how these are known."""

    done: float
    left: float
    clock: float
    known: str


def cost_of(settings: StudySettings, cells: Sequence[Cell], results: Results) -> Cost | None:
    """None where nothing is measured yet and nothing is known of such towers."""
    measured = {cell: _spent(result) for cell, result in results.items()}
    begun: set[tuple[str, int]] = {(cell.pretrained, cell.seed) for cell in results}
    done = sum(one["finetune"] for one in measured.values()) + sum(
        one["pretrain"] for cell, one in measured.items() if _is_first(cell, list(results))
    )
    left = 0.0
    for cell in cells:
        if cell in results:
            continue
        parts = _expected(settings, cell, measured)
        if parts is None:
            return None
        left += parts["finetune"]
        if cell.data != NONE and (cell.pretrained, cell.seed) not in begun:
            left += parts["pretrain"]
            begun.add((cell.pretrained, cell.seed))
    known = (
        f"measured by {len(results):,} cells"
        if results
        else "estimated: a frame of a tiny model 1.3 ms, at test 0.6 ms"
    )
    return Cost(done, left, left / settings.workers, known)


def describe_cost(cost: Cost | None) -> str:
    """In a line."""
    if cost is None:
        return "cost: unknown until the first cell is done"
    return (
        f"cost: {duration(cost.done)} of CPU time done, {duration(cost.left)} left, {duration(cost.clock)} on the clock "
        f"if every process has a core to itself ({cost.known})"
    )


def _spent(result: Mapping[str, Any]) -> dict[str, float]:
    """CPU seconds by stage."""
    cost = result["cost"]
    return {stage: float(cost.get(stage, {}).get("cpu_seconds", 0.0)) for stage in ("pretrain", "finetune")}


def _is_first(cell: Cell, cells: Sequence[Cell]) -> bool:
    """Of those that share its pretraining."""
    return next(one for one in cells if (one.pretrained, one.seed) == (cell.pretrained, cell.seed)) == cell


def _expected(
    settings: StudySettings, cell: Cell, measured: Mapping[Cell, Mapping[str, float]]
) -> dict[str, float] | None:
    """By the cells of its model, else by all, else by frames."""
    own = [parts for one, parts in measured.items() if one.model == cell.model] or list(measured.values())
    tuned = [parts["finetune"] for parts in own]
    trained = [parts["pretrain"] for parts in own if parts["pretrain"]]
    if tuned and (trained or cell.data == NONE):
        return {"finetune": mean(tuned), "pretrain": mean(trained) if trained else 0.0}
    if settings.towers.name != _TINY or settings.real.benchmark:
        return None
    frame = settings.world.frames * (settings.world.size / 64) ** 2
    tested = _TESTED * len(KINDS) * settings.world.tested
    return {
        stage: frame * (_TRAINED * one.steps * one.batch + (tested if stage == "finetune" else 0))
        for stage, one in (("pretrain", settings.pretrain), ("finetune", settings.finetune))
    }
