"""What a user who errs is told: one sentence, what is meant, and exit 2."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stillreel.animate.commands import animate, download
from stillreel.cli import main
from stillreel.configs import RequestError, parse_words
from stillreel.configs.build import AnimateSettings, DownloadSettings
from stillreel.configs.search import SearchSettings
from stillreel.configs.system import pool
from stillreel.configs.system.storage import Folder
from stillreel.finetune.commands import demo
from tests.making import ROOT, picture_folder


@pytest.mark.parametrize("command", ["verify", "stats", "preview"])
@pytest.mark.parametrize("there", ["", "file"])
def test_a_folder_that_is_not_there_is_said_to_be_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str, there: str
) -> None:
    if there:
        (tmp_path / "nope").write_text("a file")
    assert main([command, str(tmp_path / "nope")]) == 2
    assert f"stillreel {command}: OUT {tmp_path / 'nope'}: no such folder" in capfd.readouterr().err


def test_tars_that_are_not_there_are_no_folder_either(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", str(tmp_path / "nope"), str(tmp_path / "out")]) == 2
    assert "TARS " in (said := capfd.readouterr().err) and "no such folder" in said


@pytest.mark.parametrize(("typed", "meant"), [("serach", "search"), ("anmate", "animate"), ("evalute", "evaluate")])
def test_a_mistyped_command_gets_its_nearest(capfd: pytest.CaptureFixture[str], typed: str, meant: str) -> None:
    assert main([typed]) == 2
    assert f"did you mean {meant!r}?" in capfd.readouterr().err


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_the_version_is_a_word_away(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main([word]) == 0
    assert capsys.readouterr().out.strip().count(".") == 2


def test_help_names_settings_as_they_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--help"]) == 0
    said = capsys.readouterr().out
    assert "json=false" in said
    assert "json_output" not in said
    assert "INDEX [TEXT ...]" in said


@pytest.mark.parametrize(
    ("words", "text", "values"),
    [
        (["a dog"], "a dog", {}),
        (["a", "dog", "runs"], "a dog runs", {}),
        (["a", "dog", "k=5"], "a dog", {"k": "5"}),
        (["k=5", "a", "dog"], "a dog", {"k": "5"}),
        (["x=5"], "x=5", {}),
        (["where", "x=5", "is", "seen"], "where x=5 is seen", {}),
        (["--", "k=5"], "k=5", {}),
        (["k=3", "--", "--k", "k=5"], "--k k=5", {"k": "3"}),
        ([], "", {}),
    ],
)
def test_a_query_needs_no_quotes(words: list[str], text: str, values: dict[str, str]) -> None:
    assert parse_words(["idx", *words], ("INDEX", "[TEXT ...]"), SearchSettings) == (["idx", text], values)


@pytest.mark.parametrize(
    ("word", "said"),
    [("rernk=5", "did you mean 'rerank'?"), ("--x=5", "unknown setting 'x'"), ("topk=5", "here it is k")],
)
def test_a_misspelt_setting_is_no_query(word: str, said: str) -> None:
    with pytest.raises(RequestError, match=said.replace("?", r"\?")):
        parse_words(["idx", "a dog", word], ("INDEX", "[TEXT ...]"), SearchSettings)


def test_only_a_text_is_joined() -> None:
    with pytest.raises(RequestError, match="given 3: a b c"):
        parse_words(["a", "b", "c"], ("SOURCE", "OUT"), AnimateSettings)
    with pytest.raises(RequestError, match="unknown setting 'x'"):
        parse_words(["a", "b", "x=5"], ("SOURCE", "OUT"), AnimateSettings)


def test_download_advises_its_own_settings(tmp_path: Path) -> None:
    (tmp_path / "table.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(RequestError, match=r"no column named url.* Name one with url=$"):
        download.run(str(tmp_path / "table.tsv"), str(tmp_path / "out"), DownloadSettings())
    (tmp_path / "other.tsv").write_text("url\tb\nhttp://a/1.jpg\t2\n")
    with pytest.raises(RequestError, match=r"Name one with caption=$"):
        download.run(str(tmp_path / "other.tsv"), str(tmp_path / "out"), DownloadSettings())


def test_missing_ray_is_said_before_anything_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed is told by the finder alone, so nothing of it is imported."""
    monkeypatch.setattr(pool, "find_spec", lambda name: None)
    source = picture_folder(tmp_path / "stills", 2)
    with pytest.raises(
        RequestError, match='Ray is not installed: pip install "stillreel\\[build\\]", or run with ray=off'
    ):
        animate.run(str(source), str(tmp_path / "out"), AnimateSettings())
    assert not (tmp_path / "out").exists()
    with pytest.raises(RequestError, match="Ray is not installed"):
        demo.run(demo.DemoSettings(out=str(tmp_path / "demo")))
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "foo://bucket/x",
            "foo://bucket/x: no storage is known by foo://; expected a folder of this machine, or a URL",
        ),
        ("dropbox://x", "dropbox://x: dropbox:// needs a package more; expected a folder of this machine, or a URL"),
    ],
)
def test_what_storage_lacks_is_said_in_our_words_first(url: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        Folder(url)
    assert str(caught.value).startswith(said)


def test_a_scheduler_s_sigterm_to_all_processes_shows_no_traceback(tmp_path: Path) -> None:
    """As Slurm and systemd send it: the workers end, too, and the pool must not say that its futures are in no valid state."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stillreel", "demo", f"out={tmp_path / 'demo'}", "stills=3000", "heldout=16", "workers=2",
         "ray=off", "progress=lines"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "pictures into" in line:
            while process.poll() is None and not list((tmp_path / "demo" / "stills").glob("*.jpg")):
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=120) == 75, "".join(said)
    assert "InvalidStateError" not in "".join(said)
    assert "Traceback" not in "".join(said)
    assert "Run the same command again to go on" in said[-1]
