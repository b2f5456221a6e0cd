"""Promise 6 of a build: progress, rate, time left and rejects by reason; on a terminal a live bar, in a log lines."""

from __future__ import annotations

import os
import pty
import shlex
import sys
from pathlib import Path

import pytest

from stillreel.configs.system import progress
from stillreel.configs.system.progress import Progress, amount, duration, tally
from tests.making import picture_folder


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock shows, to be moved."""
    shown = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: shown[0])
    return shown


def test_log_gets_lines_with_rate_time_left_and_rejects(caplog: pytest.LogCaptureFixture, now: list[float]) -> None:
    caplog.set_level("INFO", "stillreel")
    with Progress(1000, "clips", "lines") as shown:
        now[0] += 5
        shown.advance(100, "rejected 3 (corrupt 2, truncated 1)")
        now[0] += 1
        shown.advance(20)
        now[0] += 20
        shown.beat()
    lines = caplog.messages
    assert lines[0] == "100/1,000 clips, 20.0/s, 45 s left, rejected 3 (corrupt 2, truncated 1)"
    assert lines[1].startswith("120/1,000 clips, 4.6/s, 3 min left, rejected 3")
    assert len(lines) == 3


def test_resumed_work_does_not_count_towards_the_rate(caplog: pytest.LogCaptureFixture, now: list[float]) -> None:
    caplog.set_level("INFO", "stillreel")
    with Progress(1000, "clips", "lines") as shown:
        shown.skip(900)
        now[0] += 10
        shown.advance(50)
    assert "950/1,000 clips, 5.0/s, 10 s left" in caplog.text


def test_terminal_gets_a_bar(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "stills", 6)
    screen = bytearray()

    def read(handle: int) -> bytes:
        data = os.read(handle, 4096)
        screen.extend(data)
        return data

    command = [
        sys.executable,
        "-m",
        "stillreel",
        "animate",
        str(source),
        str(tmp_path / "out"),
        "ray=off",
        "shard_size=2",
    ]
    words = ["sh", "-c", f"stty rows 40 cols 100; exec {shlex.join(command)}"]
    assert os.waitstatus_to_exitcode(pty.spawn(words, read)) == 0
    text = screen.decode("utf-8", "replace")
    assert "\r" in text
    assert "6/6" in text
    assert "100%" in text


def test_off_is_silent(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "stillreel")
    with Progress(10, "clips", "off") as shown:
        shown.advance(10)
    assert capsys.readouterr().err == caplog.text == ""


def test_words() -> None:
    assert [duration(s) for s in (0.4, 45, 600, 12_000)] == ["0 s", "45 s", "10 min", "3 h 20 min"]
    assert [amount(b) for b in (0, 830, 1_234_567, 41e9, 3.2e12)] == ["0 B", "830 B", "1.2 MB", "41.0 GB", "3.2 TB"]
    assert tally({"a": 1, "b": 3, "c": 1}) == "b 3, a 1, c 1"
