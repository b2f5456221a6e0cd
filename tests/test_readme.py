"""The commands that README.md and docs/ show: each is read with all its settings, and those of a data set are run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from stillreel.cli import main
from stillreel.commands import COMMANDS
from tests.making import ROOT, picture_folder

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_SHOWN = re.compile(
    r"^ {4}(?:torchrun .*-m )?stillreel ([a-z-]+(?: .*?)?)(?:  +#.*)?$|`stillreel ([a-z-]+ [^`]+)`", re.MULTILINE
)


def shown(page: Path) -> list[list[str]]:
    """The words of each command that a page shows, a remark after two spaces left out."""
    lines = ["".join(found) for found in _SHOWN.findall(page.read_text())]
    return [words for words in (shlex.split(line, comments=True) for line in lines) if "..." not in words]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_has_these_settings(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in shown(page):
        if words[1:2] != ["BENCHMARK"] and "--help" not in words:
            assert main([*words, "--print-config"]) == 0, f"{' '.join(words)}: {capsys.readouterr().err}"


def test_every_command_is_shown() -> None:
    assert {words[0] for page in PAGES for words in shown(page)} >= {*COMMANDS} - {"doctor"}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180


def test_nobody_s_first_page_needs_more_than_three_commands() -> None:
    for page in (ROOT / "docs" / "start").glob("*.md"):
        first = next(
            block
            for block in re.split(r"\n\n(?=\S)", page.read_text())
            if block.startswith("    ") or "\n\n    " in block
        )
        assert 2 <= len(re.findall(r"^    \S", first, re.MULTILINE)) <= 3, page.name


def test_what_it_shows_of_a_data_set_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture_folder(tmp_path / "stills", 6)
    page = ROOT / "docs" / "animate.md"
    calls = [words for words in shown(page) if words[1:2] in (["stills"], ["clips"]) and len(words) <= 3]
    assert [words[0] for words in calls] == ["animate", "verify", "preview", "stats"]
    for words in calls:
        assert main([*words, *(["ray=off", "workers=1"] if words[0] == "animate" else [])]) == 0, words
