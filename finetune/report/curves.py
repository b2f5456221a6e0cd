"""The charts of a page: of one run, with the parts of its loss and chance; of several, each curve over the others'."""

from __future__ import annotations

from collections.abc import Iterator

from stillreel.finetune.report.chart import Line, draw_chart
from stillreel.finetune.report.told import WAYS, Run, Told, section

_DRAWN = (1, 5, 10)  # depths of the curves
_OTHERS = {"top1": "Top-1", "accuracy": "Accuracy"}  # of recognition, of multi-choice


def render_curves(told: Told) -> str:
    drawn = "".join(_charts(told))
    stages = {run.history.stage for run in told.runs}
    nothing = '<p class="none">metrics.jsonl tells of no step yet.</p>'
    title = stages.pop() if len(stages) == 1 else "Training"
    return section("curves", title, f'<div class="charts">{drawn}</div>' if drawn else nothing)


def _charts(told: Told) -> Iterator[str]:
    run = told.single
    yield draw_chart("Loss", _losses(run) if run else _of_each(told, "loss"))
    yield draw_chart("Learning rate, at its highest", _lines(told, "lr", "lr"), from_zero=True)
    for way, name in WAYS.items():
        lines = _recalls(run, way) if run else _of_each(told, f"{way}_r1", before="R@1, ")
        yield draw_chart(f"{name}, held out", lines, unit="%", from_zero=True)
    for figure, name in _OTHERS.items():
        yield draw_chart(f"{name}, held out", _lines(told, figure, name), unit="%", from_zero=True)
    yield draw_chart("Clips per second", _lines(told, "clips_per_s", "clips/s"), from_zero=True)
    yield draw_chart("Waiting for data", _lines(told, "data_wait", "share of time", 100), unit="%", from_zero=True)


def _losses(run: Run) -> list[Line]:
    """Of a run: of all objectives together, and of each where there are several."""
    parts = run.history.parts()
    lines = [Line("loss", run.history.curve("loss"))]
    if len(parts) > 1:
        lines += [Line(name.removeprefix("loss."), run.history.curve(name), at) for at, name in enumerate(parts, 1)]
    return lines


def _recalls(run: Run, way: str) -> list[Line]:
    """Of a run: at several depths, with the level of chance where it is known."""
    lines = []
    for color, depth in enumerate(_DRAWN):
        name, points = f"R@{depth}", run.history.curve(f"{way}_r{depth}")
        chance = run.chance.get(f"{way}_r{depth}")
        lines.append(Line(name if chance is None else f"{name} (chance {chance:.1f})", points, color, chance))
    return lines


def _lines(told: Told, curve: str, name: str, scale: float = 1) -> list[Line]:
    """The curve of the one run by what it is, or those of several by whose they are."""
    lines = _of_each(told, curve, scale)
    return [line._replace(name=name) for line in lines] if told.single else lines


def _of_each(told: Told, curve: str, scale: float = 1, before: str = "") -> list[Line]:
    """A curve of each run that has it, in the run's color."""
    lines = [
        Line(f"{before}{run.name}", [(step, scale * value) for step, value in run.history.curve(curve)], color)
        for color, run in enumerate(told.runs)
    ]
    return [line for line in lines if line.points]
