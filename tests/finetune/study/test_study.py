"""A study at its smallest, from nothing to its report: killed at any moment it ends with the same figures."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from stillreel.cli import main
from stillreel.configs import load_preset
from stillreel.configs.settings import preset_names
from stillreel.configs.study import StudySettings
from stillreel.finetune.study.cell import RESULT, result_of
from stillreel.finetune.study.grid import Cell, cells_of, digest_of, units_of
from stillreel.finetune.study.report import brief_section
from stillreel.finetune.study.run import results_of
from tests.making import ROOT
from tests.warm import Warm

MICRO = """
world: {size: 64, frames: 4, images: 50, clips: 50, tested: 8, validated: 8, leaked: 40}
image: {steps: 3, batch: 8}
pretrain: {steps: 3, batch: 8}
finetune: {steps: 3, batch: 8}
main: {data: "none,film", models: "seq,rerank", pairs: "40", seeds: 2}
candidates: 3
device: cpu
progress: off
"""


# When a study is killed: while it draws, trains the image model, pretrains, finetunes, and between cells.
MOMENTS = (
    "world/frames/plan-000.parquet",
    "image/run.json",
    "pretrained/film-seq-s0/run.json",
    "cells/film-seq-40-s0/metrics.jsonl",
    "cells/none-rerank-40-s0/result.json",
)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("presets") / "micro.yaml"
    path.write_text(MICRO)
    return path


@pytest.fixture(scope="module")
def study(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    assert main(["study", str(preset), f"out={out}"]) == 0
    return out


def settings_of(preset: Path, **changes: Any) -> StudySettings:
    return StudySettings.resolve({**load_preset(str(preset), "study"), **changes})


def tables(out: Path) -> str:
    """The report without its head and what it took."""
    text = (out / "report.md").read_text()
    return re.sub(r"\n## Cost\n.*?(?=\n## )", "", text[text.index("## Answers") :], flags=re.DOTALL)


def answers(out: Path) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text())["answers"] for path in out.glob(f"cells/*/{RESULT}")}


@pytest.mark.long
def test_every_cell_has_a_result_and_every_figure_its_runs(study: Path, preset: Path) -> None:
    settings = settings_of(preset)
    cells = cells_of(settings)
    assert list(results_of(settings, study)) == cells
    page, text = (study / "report.html").read_text(), (study / "report.md").read_text()
    for cell in cells:
        assert (study / "cells" / cell.name / "run.json").is_file()
        assert not (study / "cells" / cell.name / "checkpoints").exists()
        if not cell.check:
            assert f"cells/{cell.name}/run.json" in page and f"cells/{cell.name}/run.json" in text
    for title in ("Answers", "R@1 by kind of query", "Told from its reverse", "Taken for another", "Less still", "Less none",
                  "Coarse against coarse to fine", "Checks", "Power", "Cost", "Runs"):  # fmt: skip
        assert (f"## {title}\n" in text) == (title != "Less still"), title
    links = set(re.findall(r"\(#([^)]+)\)", text))
    assert links and links <= set(re.findall(r'<a id="([^"]+)">', text))
    assert not re.search(r"https?:", page)


@pytest.mark.long
def test_a_mean_ties_a_video_with_its_reverse_and_a_cell_run_twice_is_equal(study: Path) -> None:
    checks = (study / "report.md").read_text().partition("## Checks")[2].partition("\n## ")[0]
    lines = [line for line in checks.splitlines() if "mean of frames" in line or "run twice" in line]
    assert len(lines) == 4
    for line in lines:
        assert line.endswith("holds |"), line


@pytest.mark.long
def test_no_finished_cell_is_computed_again(study: Path, preset: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.glob(f"cells/*/{RESULT}")}
    assert main(["study", str(preset), f"out={study}"]) == 0
    assert {path: path.stat().st_mtime_ns for path in study.glob(f"cells/*/{RESULT}")} == before


@pytest.mark.long
def test_killed_at_any_moment_it_ends_with_the_same_tables(study: Path, preset: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    for moment in MOMENTS:
        run = Warm("stillreel", ["study", str(preset), f"out={out}"])
        while not (out / moment).exists():
            assert run.poll() is None, f"it ended before {moment}"
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert main(["study", str(preset), f"out={out}"]) == 0
    assert answers(out) == answers(study)
    assert tables(out) == tables(study)


@pytest.mark.long
def test_real_clips_are_asked_of_what_was_pretrained_as_it_is(moving: Path, tmp_path: Path, preset: Path) -> None:
    out = tmp_path / "study"
    real = [f"real.data={moving}", "real.benchmark=folder", "finetune.steps=0", "main.models=mean", "sanity=false"]
    assert main(["study", str(preset), f"out={out}", *real, "image.steps=2", "pretrain.steps=2", "main.seeds=1"]) == 0
    found = answers(out)
    assert set(found) == {"none-mean-40-s0", "film-mean-40-s0"}
    assert all(len(one["coarse"]["all"]) == 12 for one in found.values())
    text = (out / "report.md").read_text()
    assert "does film beat none?" in text and "## Told from its reverse" not in text
    assert not (out / "world" / "frames").exists()


def test_another_page_has_it_as_a_section(study: Path, preset: Path) -> None:
    settings = settings_of(preset, out=str(study))
    section = brief_section(settings, study, "there/report.html")
    assert "R@1" not in section.partition("<p")[0] and section.count("<table") == 1
    assert "too small to decide anything" in section and 'href="there/report.html"' in section
    assert 'href="#' not in section, "its runs are not on that page"
    assert "Of all: pairs 40." in section and ">pairs<" not in section
    assert "<td>rerank</td>" in section and ">seeds<" in section, "they are not alike"
    figures = re.findall(r"<td>([\d.]+ \([\d.]+ to [\d.]+\))</td>", section)
    table = (study / "report.md").read_text().partition("## R@1 by kind of query")[2].partition("## ")[0]
    assert figures and figures == re.findall(r"\[([\d.]+ \([\d.]+ to [\d.]+\))\]", table)
    assert brief_section(settings, study / "nothing", "there") == ""


def test_what_leaves_nothing_to_compare_is_refused(preset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["finetune.steps=0"], "give main.models=mean"),
        (["pretrain.steps=0"], "nothing to compare"),
        (["main.seeds=0"], "give one seed"),
        (["real.benchmark=msrvtt"], "needs real.data"),
        (["main.models=mean,lstm"], "main.models"),
    ):
        assert main(["study", str(preset), "dry_run=true", *words]) == 2
        assert said in capsys.readouterr().err


def test_the_plan_is_told_without_doing_anything(
    preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", str(preset), f"out={tmp_path / 'study'}", "dry_run=true"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("12 cells, 0 of them done")
    assert "to do  film-rerank-40-s1" in said and "estimated" in said
    assert not (tmp_path / "study").exists()


def test_cells_stand_once_and_share_their_pretraining(preset: Path) -> None:
    settings = settings_of(preset, wide={"data": "none,film,zoom", "models": "seq", "pairs": "40,80", "seeds": 1})
    cells = cells_of(settings)
    assert len(cells) == len(set(cells)) == 8 + 4 + 4
    (shared,) = [unit for unit in units_of(cells) if unit.cells[0].data == "zoom"]
    assert [cell.pairs for cell in shared.cells] == [40, 80]


def test_a_result_is_of_its_settings(study: Path, preset: Path) -> None:
    """Whatever decides what is learned changes the digest; what does not leaves it."""
    settings, cell = settings_of(preset), Cell("film", "seq", 40, 0)
    digest = digest_of(settings, cell)
    assert result_of(study, cell, digest) is not None
    for other in (
        {"pretrain": {"steps": 4, "batch": 8}},
        {"image": {"steps": 4, "batch": 8}},
        {"context_length": 20},
        {"layers": 1},
        {"candidates": 4},
    ):
        changed = digest_of(settings_of(preset, **other), cell)
        assert changed != digest and result_of(study, cell, changed) is None
    assert digest_of(settings_of(preset, workers=2, progress="lines", points=1.0, out="elsewhere"), cell) == digest


@pytest.mark.parametrize("name", preset_names("study"))
def test_a_preset_resolves_and_its_header_says_how_it_is_run(name: str) -> None:
    settings = StudySettings.resolve(load_preset(name, "study"))
    text = (ROOT / "configs" / "study" / f"{name}.yaml").read_text()
    for word in ("Command:", "Hardware:", "Time", "core", f"study {name}"):
        assert word in text, word
    assert cells_of(settings)
