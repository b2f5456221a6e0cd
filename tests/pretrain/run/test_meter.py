"""The meter: rates and shares of time by a clock that tests set, and no wait for the device before a line is due."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

import pytest
import torch

from stillreel.pretrain.run import Meter, StepValues, meter
from tests.pretrain.run.making import state_at

VALUES = StepValues(torch.tensor(2.5), {"infonce": torch.tensor(2.0)}, torch.tensor(1.5), torch.tensor(14.0), 4e-6)


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(meter, "time", made)
    return made


def take(gauge: Meter, clock: Clock, *, wait: float, step: float, flops: float = 1e9) -> None:
    with gauge.waiting():
        clock.now += wait
    clock.now += step
    gauge.count(8, flops)


def test_rates_are_of_the_steps_since_the_last_reading(clock: Clock) -> None:
    gauge = Meter(torch.device("cpu"), steps=100, clips_an_epoch=160)
    for _ in range(4):
        take(gauge, clock, wait=0.5, step=1.5)
    with gauge.aside():
        clock.now += 1000.0
    first = gauge.read(state_at(4), VALUES)
    assert first.clips_per_s == 4 * 8 / 8.0
    assert first.data_wait == 0.25
    assert (first.step, first.clips, first.epoch, first.left_s) == (4, 32, 0.2, 96 * 2.0)
    assert first.mfu is None  # of a CPU
    assert first.memory > 1 << 20
    take(gauge, clock, wait=0.0, step=1.0)
    second = gauge.read(state_at(5), VALUES)
    assert (second.clips_per_s, second.data_wait, second.left_s) == (8.0, 0.0, 95.0)


def test_mfu_is_the_share_of_the_dense_peak(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = Meter(torch.device("cpu"), steps=10, clips_an_epoch=10)
    gauge._peak = 1e12
    take(gauge, clock, wait=0.0, step=2.0, flops=4e11)
    take(gauge, clock, wait=0.0, step=2.0, flops=8e11)
    assert gauge.read(state_at(2), VALUES).mfu == pytest.approx(1.2e12 / 4 / 1e12)


def test_values_are_those_of_the_last_step_by_name() -> None:
    gauge = Meter(torch.device("cpu"), steps=10, clips_an_epoch=10)
    told = gauge.read(state_at(1), VALUES._replace(loss=torch.tensor(math.nan, requires_grad=True)))
    assert list(told.values) == ["loss", "loss.infonce", "grad_norm", "logit_scale", "lr"]
    assert math.isnan(told.values["loss"]) and told.values["lr"] == 4e-6
    assert told.record()["loss"] is None and "  loss nan  " in told.line()


def test_time_goes_by_a_wait_that_ends_in_an_error_too(clock: Clock) -> None:
    gauge = Meter(torch.device("cpu"), steps=10, clips_an_epoch=10)
    with suppress(RuntimeError), gauge.waiting():
        clock.now += 3.0
        raise RuntimeError("no more")
    clock.now += 1.0
    gauge.count(8, 0.0)
    assert gauge.read(state_at(1), VALUES).data_wait == 0.75


class Mark:
    """In place of a CUDA event: what the device's clock will say when it is reached."""

    def __init__(self, at: float) -> None:
        self.at = at

    def elapsed_time(self, other: Mark) -> float:
        return 1000 * (other.at - self.at)


def test_a_device_that_is_busy_while_the_host_waits_is_not_idle(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = Meter(torch.device("cpu"), steps=100, clips_an_epoch=160)
    busy_until = 0.0

    def mark() -> Mark:
        return Mark(max(clock.now, busy_until))

    monkeypatch.setattr(gauge, "_mark", mark)
    for wait in (1.0, 3.0):  # the host gives out a step at once; the device takes two seconds for it
        take(gauge, clock, wait=wait, step=0.0)
        busy_until = clock.now + 2.0
    reading = gauge.read(state_at(2), VALUES)
    assert reading.data_wait == 1.0
    assert reading.idle == pytest.approx((1.0 + 1.0) / 4.0)
    assert "device idle 50.0%" in reading.line() and reading.record()["idle"] == pytest.approx(0.5)


def test_without_cuda_nothing_is_said_of_a_device(clock: Clock) -> None:
    gauge = Meter(torch.device("cpu"), steps=100, clips_an_epoch=160)
    take(gauge, clock, wait=1.0, step=1.0)
    reading = gauge.read(state_at(1), VALUES)
    assert reading.idle is None and "idle" not in reading.line() and "idle" not in reading.record()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_only_a_reading_waits_for_the_device() -> None:
    device = torch.device("cuda")
    gauge = Meter(device, steps=10, clips_an_epoch=10)
    values = StepValues(*(torch.ones((), device=device) for _ in range(4)), lr=1.0)._replace(parts={})  # type: ignore[arg-type]
    torch.cuda.set_sync_debug_mode("error")
    try:
        with gauge.waiting():
            pass
        gauge.count(8, 1e9)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert gauge.read(state_at(1), values).values["loss"] == 1.0
