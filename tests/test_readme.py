"""The commands that README.md and docs/ show: each is read with all its settings, and those of a data set are run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from stillreel.cli import main
from tests.making import ROOT, picture_folder

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_SHOWN = re.compile(
    r"^ {4}(?:torchrun .*-m )?stillreel ([a-z-]+ .*?)(?:  +#.*)?$|`stillreel ([a-z-]+ [^`]+)`", re.MULTILINE
)


def shown(page: Path) -> list[list[str]]:
    """The words of each command that a page shows, a remark after two spaces left out."""
    lines = ["".join(found) for found in _SHOWN.findall(page.read_text())]
    return [words for words in (shlex.split(line, comments=True) for line in lines) if "..." not in words]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_has_these_settings(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in shown(page):
        if words[1] != "BENCHMARK" and "--help" not in words:
            assert main([*words, "--print-config"]) == 0, f"{' '.join(words)}: {capsys.readouterr().err}"


def test_the_readme_shows_every_kind_of_work() -> None:
    assert {words[0] for words in shown(ROOT / "README.md")} >= {
        "download", "animate", "verify", "preview", "stats", "catalog", "stream", "pretrain", "finetune", "evaluate",
        "import-checkpoint", "index", "search", "serve",
    }  # fmt: skip


def test_what_it_shows_of_a_data_set_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture_folder(tmp_path / "stills", 6)
    calls = [words for words in shown(ROOT / "README.md") if words[1:2] in (["stills"], ["clips"]) and len(words) <= 3]
    assert [words[0] for words in calls] == ["animate", "verify", "preview", "stats"]
    for words in calls:
        assert main([*words, *(["ray=off", "workers=1"] if words[0] == "animate" else [])]) == 0, words
