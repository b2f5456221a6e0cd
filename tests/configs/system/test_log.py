"""The log: bare lines on stderr for the command line, nothing in someone's program unless asked."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stillreel.configs.system.log import log_to_stderr
from stillreel.configs.system.progress import Progress
from tests.making import ROOT, stillreel

_log = logging.getLogger("stillreel.some.room")


def say_all() -> None:
    _log.debug("fine")
    _log.info("50% of them\nin two lines")
    _log.warning("careful")
    _log.error("broken")


@pytest.mark.parametrize(
    ("level", "begins"),
    [
        ("debug", "fine\n50% of them\nin two lines\nWARNING: careful\n"),
        ("", "50% of them\nin two lines\nWARNING: careful\n"),
        ("INFO", "50% of them\nin two lines\nWARNING: careful\n"),
        ("warning", "WARNING: careful\n"),
    ],
)
def test_lines_are_bare_and_the_level_is_the_environment_s(
    level: str, begins: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STILLREEL_LOG", level)
    with log_to_stderr():
        say_all()
    assert capsys.readouterr() == ("", f"{begins}ERROR: broken\n")


def test_a_level_that_is_none_is_said_and_info_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STILLREEL_LOG", "loud")
    with log_to_stderr():
        _log.info("heard")
    said = "WARNING: STILLREEL_LOG=loud is no level of the log; expected debug, info, warning; info is used\nheard\n"
    assert capsys.readouterr().err == said


def test_afterwards_all_is_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("stillreel")
    before = (log.level, log.propagate, [*log.handlers])
    with pytest.raises(KeyError), log_to_stderr():
        raise KeyError
    say_all()
    assert (log.level, log.propagate, log.handlers) == before
    assert capsys.readouterr() == ("", "")


def test_nobody_else_says_the_lines_again() -> None:
    """As when a library has set up the root's log."""
    other = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(other)
    try:
        with log_to_stderr():
            _log.warning("once")
    finally:
        logging.getLogger().removeHandler(other)
    assert other.stream.getvalue() == ""


def test_a_line_stays_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with log_to_stderr(), Progress(10, "clips", "bar") as shown:
        shown.advance(4)
        _log.info("a line")
        shown.advance(6)
    lines = capsys.readouterr().err.split("\n")
    # The bar is wiped first: what is left of it on the line are blanks.
    (line,) = (line for line in lines if line.endswith("a line"))
    wiped = line.removesuffix("a line").split("\r")
    assert wiped[-1] == "" and wiped[-2].strip() == "" and "0/10" in line
    assert "10/10" in lines[-2]


def test_a_command_obeys_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    loud, quiet = (stillreel("stats", tmp_path / "empty", STILLREEL_LOG=level) for level in ("info", "warning"))
    assert loud.stderr.startswith("stillreel stats: settings ")
    assert quiet.returncode == loud.returncode == 1
    assert quiet.stderr == loud.stderr.split("\n", 1)[1] != ""
    assert "STILLREEL_LOG" in stillreel("--help").stdout


@pytest.mark.parametrize(
    "setup", ["", "logging.basicConfig(format='%(name)s|%(levelname)s|%(message)s', level='INFO')"]
)
def test_in_someone_s_program_it_is_theirs(setup: str) -> None:
    code = (
        f"import logging, stillreel\n{setup}\nfor name in ('info', 'warning', 'error'):\n"
        "    getattr(logging.getLogger('stillreel.room.module'), name)('a message')"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=True
    )
    levels = ("INFO", "WARNING", "ERROR") if setup else ()
    assert said.stdout == ""
    assert said.stderr == "".join(f"stillreel.room.module|{level}|a message\n" for level in levels)
