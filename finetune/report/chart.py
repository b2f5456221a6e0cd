"""Lines over steps, drawn as SVG. The picture stretches with the page; its words are HTML beside it, and do not."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

from stillreel.animate.preview.guarded import escape

Point = tuple[float, float]  # step and value

_WIDTH, _HEIGHT = 1000, 1000  # of the drawing, which is stretched to its place
_MOST_POINTS = 600  # of a line; more cannot be told apart
_DOTTED = 40  # a line of so few points shows them
_TICKS = 5
COLORS = 6  # of lines, in page.css


class Line(NamedTuple):
    """A curve in one of the page's numbered colors; at `level`, to be compared with, a dashed line across."""

    name: str
    points: Sequence[Point]
    color: int = 0
    level: float | None = None


class Axis(NamedTuple):
    """From `low` to `high`, with ticks at round numbers."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        return (value - self.low) / (self.high - self.low)


def draw_chart(title: str, lines: Sequence[Line], *, unit: str = "", from_zero: bool = False) -> str:
    """A figure of HTML, in which page.js shows step and value under the pointer; empty when no line has a point.

    The vertical axis has round ends that hold all values, 0 among them if asked for; the horizontal one ends at the last step.
    """
    shown = [line._replace(points=thinned(line.points)) for line in lines]
    points = [point for line in shown for point in line.points]
    if not points:
        return ""
    values = [value for _, value in points] + [line.level for line in shown if line.level is not None]
    across = step_axis(max(step for step, _ in points))
    up = value_axis(min(0.0, *values) if from_zero else min(values), max(values))
    grid = "".join(f'<path d="M0 {_at(1 - up.share(tick))}H{_WIDTH}"/>' for tick in up.ticks)
    drawn = "".join(_drawn(line, across, up) for line in shown)
    told = [line._replace(level=None)._asdict() for line in shown]
    longest = max(len(line.points) for line in lines)
    note = f" <small>each point the mean of {_grouped(longest)}</small>" if longest > _MOST_POINTS else ""
    return (
        f'<figure class="chart lines" data-across="{across.low:g} {across.high:g}" data-up="{up.low!r} {up.high!r}" '
        f'data-unit="{escape(unit)}" data-lines="{escape(json.dumps(told))}">'
        f"<h2>{escape(title)}{note}</h2>{_legend(shown)}"
        f'<div class="plot" tabindex="0" role="img" aria-label="{escape(_in_words(title, lines, unit))}">'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none"><g class="grid">{grid}</g>{drawn}</svg>'
        f"{_labels(across, up, unit)}</div></figure>"
    )


def step_axis(last: float) -> Axis:
    """From 0 to the last step."""
    high = max(last, 1.0)
    size = tick_size(high, _TICKS, least=1.0)
    return Axis(0.0, high, tuple(size * number for number in range(math.floor(high / size + 1e-9) + 1)))


def value_axis(low: float, high: float) -> Axis:
    """Round ends around all values."""
    if low == high:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    size = tick_size(high - low, _TICKS)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    ticks = tuple(size * number for number in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def tick_size(span: float, most: int, least: float = 0.0) -> float:
    """The smallest 1, 2 or 5 times a power of ten, `least` or more, of which at most `most` fit into a span."""
    power = math.floor(math.log10(span / most))
    sizes = (factor * 10.0**exponent for exponent in (power, power + 1) for factor in (1, 2, 5))
    return max(least, next(size for size in sizes if span / size <= most * (1 + 1e-9)))


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most 600 points: means of so many neighbors each, at their last step."""
    group = _grouped(len(points))
    if group == 1:
        return list(points)
    groups = (points[at : at + group] for at in range(0, len(points), group))
    return [(some[-1][0], sum(value for _, value in some) / len(some)) for some in groups]


def _grouped(count: int) -> int:
    """How many neighbors are one point of a line of `count`."""
    return max(1, math.ceil(count / _MOST_POINTS))


def spelt(value: float) -> str:
    """A number as short as its four digits allow: 12,000, 0.25, 4e-6."""
    if value and abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _drawn(line: Line, across: Axis, up: Axis) -> str:
    color = f"c{line.color}"
    level = (
        "" if line.level is None else f'<path class="level {color}" d="M0 {_at(1 - up.share(line.level))}H{_WIDTH}"/>'
    )
    places = [f"{_at(across.share(step))} {_at(1 - up.share(value))}" for step, value in line.points]
    curve = f'<path class="{color}" d="M{"L".join(places)}"/>' if places else ""
    # A line of no length with a round end is a dot that the stretching leaves round.
    dots = "".join(f"M{place}h0" for place in places) if len(places) <= _DOTTED else ""
    return level + curve + (f'<path class="dots {color}" d="{dots}"/>' if dots else "")


def _labels(across: Axis, up: Axis, unit: str) -> str:
    values = [
        f'<span class="up" data-style="top:{100 * (1 - up.share(tick)):.2f}%">{spelt(tick)}{unit}</span>'
        for tick in up.ticks
    ]
    steps = [
        f'<span class="across" data-style="left:{100 * across.share(tick):.2f}%">{spelt(tick)}</span>'
        for tick in across.ticks
    ]
    return "".join((*values, *steps, '<span class="unit">step</span>'))


def _legend(lines: Sequence[Line]) -> str:
    if len(lines) < 2:
        return ""
    items = (
        f'<span><svg width="22" height="8"><path class="c{line.color}" d="M1 4H21"/></svg> {escape(line.name)}</span>'
        for line in lines
    )
    return f'<p class="legend">{"".join(items)}</p>'


def _in_words(title: str, lines: Sequence[Line], unit: str) -> str:
    told = [
        f"{line.name} from {spelt(line.points[0][1])}{unit} at step {line.points[0][0]:,.0f} "
        f"to {spelt(line.points[-1][1])}{unit} at step {line.points[-1][0]:,.0f}"
        for line in lines
        if line.points
    ]
    return f"{title}: {'; '.join(told)}"


def _at(share: float) -> str:
    return f"{_WIDTH * share:.1f}"
