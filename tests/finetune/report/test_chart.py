"""Lines over steps: round numbers on the axes, nothing outside of them, and no more points than can be seen."""

from __future__ import annotations

import json
import math
import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillreel.finetune.report.chart import Line, draw_chart, spelt, step_axis, thinned, tick_size, value_axis

values = st.floats(-1e9, 1e9).map(lambda value: round(value, 6))
spans = st.floats(1e-9, 1e12)


@given(spans, st.integers(1, 10))
def test_ticks_are_one_two_or_five_times_a_power_of_ten_and_not_too_many(span: float, most: int) -> None:
    size = tick_size(span, most)
    mantissa = size / 10 ** math.floor(math.log10(size) + 1e-9)
    assert min(abs(mantissa - factor) for factor in (1, 2, 5)) < 1e-6
    assert most / 2.6 < span / size <= most * (1 + 1e-6)


@given(st.lists(values, min_size=1, max_size=20))
def test_the_vertical_axis_holds_all_values_between_ticks(found: list[float]) -> None:
    axis = value_axis(min(found), max(found))
    slack = 1e-6 * (axis.high - axis.low)
    assert axis.low < axis.high
    assert axis.low - slack <= min(found) <= max(found) <= axis.high + slack
    assert (axis.ticks[0], axis.ticks[-1]) == (axis.low, axis.high)
    assert 2 <= len(axis.ticks) <= 8


@given(st.integers(0, 10**9))
def test_the_horizontal_axis_ends_at_the_last_step_and_ticks_are_steps(last: int) -> None:
    axis = step_axis(last)
    assert (axis.low, axis.high, axis.ticks[0]) == (0, max(last, 1), 0)
    assert all(tick <= axis.high and tick == int(tick) for tick in axis.ticks)
    assert 2 <= len(axis.ticks) <= 6


def test_long_lines_are_means_of_neighbors_that_end_at_the_last_step() -> None:
    points = [(float(step), float(step % 2)) for step in range(1, 5001)]
    thin = thinned(points)
    assert 500 <= len(thin) <= 600
    assert thin[-1][0] == 5000
    assert thin[0] == (9, pytest.approx(5 / 9))
    assert thinned(points[:600]) == points[:600]
    assert "each point the mean of 9" in draw_chart("Loss", [Line("loss", points)])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (12000, "12,000"),
        (0.25, "0.25"),
        (4e-6, "4e-6"),
        (2.5, "2.5"),
        (0.6000000000000001, "0.6"),
        (-3, "-3"),
    ],
)
def test_numbers_are_short(value: float, words: str) -> None:
    assert spelt(value) == words


def test_points_stand_where_their_values_say() -> None:
    chart = draw_chart(
        "Found", [Line("R@1", [(0, 0.0), (50, 20.0), (100, 80.0)], 1, level=40.0)], unit="%", from_zero=True
    )
    assert '<path class="c1" d="M0.0 1000.0L500.0 750.0L1000.0 0.0"/>' in chart
    assert '<path class="level c1" d="M0 500.0H1000"/>' in chart
    assert re.findall(r'top:([\d.]+)%">(\d+)%', chart) == [
        ("100.00", "0"), ("75.00", "20"), ("50.00", "40"), ("25.00", "60"), ("0.00", "80"),
    ]  # fmt: skip
    told = json.loads(unescape(re.findall(r'data-lines="([^"]*)"', chart)[0]))
    assert told[0]["points"] == [[0, 0.0], [50, 20.0], [100, 80.0]]
    assert 'aria-label="Found: R@1 from 0% at step 0 to 80% at step 100"' in chart


def test_one_point_is_a_dot_and_none_is_no_chart() -> None:
    assert 'd="M1000.0 500.0h0"' in draw_chart("Loss", [Line("loss", [(3, 2.0)])])
    assert draw_chart("Loss", [Line("loss", [])]) == ""
