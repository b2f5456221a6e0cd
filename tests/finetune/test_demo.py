"""The demo, very small, from drawing to the report: stopped at every stage, it goes on; without torch it ends with the clips."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stillreel.configs.build import DemoSettings
from stillreel.configs.finetune import FinetuneSettings
from stillreel.configs.pretrain import PretrainSettings
from stillreel.configs.settings import load_preset
from stillreel.configs.study import StudySettings
from stillreel.finetune.commands.demo import finetune_settings, pretrain_settings, study_settings
from tests.making import ROOT, stillreel
from tests.warm import Warm

SMALL = ("stills=60", "heldout=16", "contents=4", "ray=off", "progress=lines", "study=false")


def stopped(sign: str, number: signal.Signals, *words: str) -> tuple[int, str]:
    """Run the demo, and signal all of its processes as a terminal does, or for SIGTERM its own as a scheduler does, once a
    line that begins with `sign` is printed; its exit code and all that it said."""
    process = Warm("stillreel", ["demo", *words])
    process.wait_for(sign)
    os.killpg(process.pid, number) if number == signal.SIGINT else os.kill(process.pid, number)
    out, error = process.communicate(timeout=120)
    return process.wait(), out + error


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_stopped_while_it_draws_it_says_so_and_nothing_else(tmp_path: Path, number: signal.Signals, code: int) -> None:
    found, said = stopped("== draw", number, f"out={tmp_path / 'demo'}", "stills=2000", "heldout=16", "workers=2")
    assert found == code, said
    assert "Traceback" not in said
    assert said.splitlines()[-1].endswith("what is finished is kept. Run the same command again to go on")


def test_it_trains_reports_and_goes_on_after_a_stop_at_any_stage(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    words = (*SMALL, f"out={out}", "steps=3")
    code, said = stopped("step 1/3", signal.SIGTERM, *words)
    assert code == 75, said
    assert "run again to go on" in said.splitlines()[-1]
    code, said = stopped("== report", signal.SIGTERM, *words)
    assert code == 75, said
    assert "pictures into" not in said and "going on from" in said and "step 3/3" in said
    assert "Traceback" not in said
    assert not (out / "report.html").exists()
    lines = (out / "pretrain" / "metrics.jsonl").read_text()
    assert [line["step"] for line in map(json.loads, lines.splitlines()) if "loss" in line] == [1, 2, 3]

    done = stillreel("demo", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(f"Open this page: {(out / 'report.html').as_uri()}")
    assert (out / "pretrain" / "metrics.jsonl").read_text() == lines, "nothing is trained again"
    page = (out / "report.html").read_text()
    assert "finished after step 3" in page
    assert page.count("<figure") == 6
    assert page.count("<article") == 8
    results = json.loads((out / "finetune" / "results.json").read_text())
    assert results["counts"]["videos"] == 96
    assert "R@1, 95 %" in page and f"<td>{results['metrics']['t2v_r1']:.1f}</td>" in page
    assert (out / "clips" / "preview.html").exists()


def test_without_torch_it_says_so_and_ends_with_the_clips(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; import stillreel.cli; sys.exit(stillreel.cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "demo", *SMALL, f"out={tmp_path / 'demo'}"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert 'no training: torch not installed: pip install "stillreel[train]"' in said.stdout
    assert said.stdout.splitlines()[-1].endswith((tmp_path / "demo" / "clips" / "preview.html").as_uri())


def test_the_preset_is_kept_and_other_steps_scale_what_it_counts_in_steps(tmp_path: Path) -> None:
    preset = PretrainSettings.resolve(load_preset("demo", "pretrain"))
    whole = pretrain_settings(tmp_path, DemoSettings())
    placed = {"data": str(tmp_path / "clips"), "out": str(tmp_path / "pretrain")}
    held_out = preset.eval.model_copy(update={"data": str(tmp_path / "clips-heldout")})
    assert whole == preset.model_copy(update={**placed, "eval": held_out})
    tuned = FinetuneSettings.resolve(load_preset("demo", "finetune"))
    placed = {"data": str(tmp_path / "moving"), "out": str(tmp_path / "finetune"), "init": str(tmp_path / "pretrain")}
    assert finetune_settings(tmp_path, DemoSettings()) == tuned.model_copy(update=placed)
    assert finetune_settings(tmp_path, DemoSettings(steps=preset.steps // 3)).steps == tuned.steps // 3
    third = pretrain_settings(tmp_path, DemoSettings(steps=preset.steps // 3, seed=7, stills=100, heldout=0))
    assert third.optimizer.warmup_steps == round((preset.optimizer.warmup_steps or 0) / 3)
    assert third.eval.every == round(preset.eval.every / 3)
    assert (third.batch, third.seed, third.eval.data) == (100, 7, "")


def test_its_study_is_the_preset_with_the_share_of_its_steps(tmp_path: Path) -> None:
    preset = StudySettings.resolve(load_preset("demo", "study"))
    whole = PretrainSettings.resolve(load_preset("demo", "pretrain")).steps
    asked = study_settings(tmp_path, DemoSettings(progress="off"))
    assert asked == preset.model_copy(update={"out": str(tmp_path / "study"), "progress": "off"})
    half = study_settings(tmp_path, DemoSettings(steps=whole // 2, workers=3))
    assert half.finetune.steps == preset.finetune.steps // 2 and half.workers == 3


@pytest.mark.slow
def test_its_report_has_the_study_in_a_small_table(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = stillreel("demo", *SMALL[:-1], f"out={out}", "steps=3")
    assert done.returncode == 0, done.stderr
    page = (out / "report.html").read_text()
    assert "What does animating buy?" in page and "too small to decide anything" in page
    assert (out / "study" / "report.html").exists() and 'href="study/report.html"' in page
