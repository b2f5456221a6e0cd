"""metrics.jsonl reads as of one run; a bar or lines."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from stillreel.configs.run import RunSettings
from stillreel.pretrain.run import Display, MetricsLogger, Reading
from tests.making import ROOT


def reading(step: int, loss: float = 2.5, mfu: float | None = None) -> Reading:
    values = {"loss": loss, "loss.infonce": 2.25, "grad_norm": 1.5, "logit_scale": 14.3, "lr": 4e-6}
    return Reading(step, 1000, 64 * step, 0.25, values, 1234.5, mfu, 0.012, None, 3_200_000_000, 4000.0)


def lines_of(folder: Path) -> list[dict[str, object]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_after_a_resume_the_file_reads_as_of_one_run(tmp_path: Path) -> None:
    with MetricsLogger(tmp_path, RunSettings(), 0) as journal:
        for step in (10, 20, 30):
            journal.write(reading(step, loss=step))
        journal.add(20, {"heldout.r1": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "lo')  # killed while it wrote
    with MetricsLogger(tmp_path, RunSettings(), 20) as journal:
        assert [line["step"] for line in lines_of(tmp_path)] == [10, 20, 20]
        journal.write(reading(30, loss=31))
    told = lines_of(tmp_path)
    assert [(line["step"], line.get("loss"), line.get("heldout.r1")) for line in told] == [
        (10, 10, None), (20, 20, None), (20, None, 0.5), (30, 31, None)
    ]  # fmt: skip
    MetricsLogger(tmp_path, RunSettings(), 0)  # begun anew
    assert lines_of(tmp_path) == []


def test_lines_are_there_at_once_and_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    journal = MetricsLogger(tmp_path, RunSettings(), 0)
    journal.write(reading(1, loss=math.nan))
    journal.add(2, {"r1": math.inf, "r5": 1.0})
    first, second = lines_of(tmp_path)
    assert first["loss"] is None and first["mfu"] is None and first["loss.infonce"] == 2.25
    assert second == {"step": 2, "r1": None, "r5": 1.0}


def test_a_full_disk_costs_a_line_and_no_half_one_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = MetricsLogger(tmp_path, RunSettings(), 0)
    journal.write(reading(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "metrics.jsonl").stat().st_size + 20, hard))
    try:
        journal.write(reading(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.write(reading(3))
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 3]
    assert "the line of step 2 is lost" in caplog.text


def test_a_log_gets_the_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "stillreel")
    with Display(1000, 0, RunSettings(progress="auto")) as display:
        display.advance()
        display.tell(reading(500, mfu=0.3456))
        display.tell(reading(510))
    first, second = caplog.messages
    assert first == (
        "step 500/1,000  loss 2.5000  1,234 clips/s  67 min left  lr 4.00e-06  wait 1.2%  MFU 34.6%  3.2 GB"
    )
    assert "MFU" not in second
    assert second.endswith("wait 1.2%  3.2 GB")


def test_a_line_of_any_run_fits_a_hundred_columns() -> None:
    """What has no room is in metrics.jsonl."""
    long = reading(1, mfu=0.3456)._replace(
        step=999_999, steps=1_000_000, clips_per_s=1_234_567.8, left_s=1e6, memory=139 << 30, data_wait=1.0
    )
    for one in (long, long._replace(values={**long.values, "loss": 123456.789}), reading(1)):
        assert len(one.line()) <= 100
        assert "clips/s" in one.line() and "left" in one.line()


def test_a_terminal_gets_a_bar() -> None:
    code = (
        "from tests.pretrain.run.test_metrics import reading\nfrom stillreel.pretrain.run import Display\n"
        "from stillreel.configs.run import RunSettings\n"
        "with Display(1000, 400, RunSettings()) as display:\n"
        "    for _ in range(100): display.advance()\n"
        "    display.tell(reading(500))\n    display.advance()"
    )
    terminal, its_end = os.openpty()
    termios.tcsetwinsize(terminal, (24, 160))
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=its_end, check=True, timeout=120)
    os.close(its_end)
    shown = b""
    with suppress(OSError):  # so a terminal ends
        while True:
            shown += os.read(terminal, 4096)
    os.close(terminal)
    assert b"501/1000" in shown and b"loss 2.500, 1,234.5 clips/s, data wait 1.2%" in shown
    assert b"step 500" not in shown
