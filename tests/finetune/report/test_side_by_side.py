"""Several runs on one page: curves over each other, figures beside each other, and differences query by query."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillreel.configs import RequestError
from stillreel.finetune.commands.report import write_report
from stillreel.finetune.evaluation.paired import pair_results
from stillreel.finetune.report.answers import find_answers
from stillreel.finetune.report.history import read_history
from stillreel.finetune.report.tested import render_paired, render_tested
from stillreel.finetune.report.told import Benchmarked, Told, names_of
from stillreel.pretrain.evaluation import evaluate_choice, evaluate_recognition
from tests.finetune.running import evaluate, finetune, results_in
from tests.making import stillreel

VIDEOS = 12


@pytest.fixture(scope="module")
def runs(moving: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two short ones on a drawn benchmark, from other seeds."""
    home = tmp_path_factory.mktemp("runs")
    for name, seed in (("first", 0), ("second", 1)):
        assert finetune(moving, home / name, seed=seed, optimizer__lr=1e-3) == 0
    return [home / "first", home / "second"]


@pytest.fixture(scope="module")
def page(runs: list[Path]) -> str:
    write_report(runs, runs[0].parent / "page.html", clips=2)
    return (runs[0].parent / "page.html").read_text()


def test_curves_are_drawn_over_each_other_in_colors_of_their_own(moving: Path, page: str) -> None:
    charts = [json.loads(unescape(told)) for told in re.findall('data-lines="([^"]*)"', page)]
    assert len(charts) == 6
    for lines in charts:
        assert [line["name"].removeprefix("R@1, ") for line in lines] == ["first", "second"]
        assert [line["color"] for line in lines] == [0, 1]
    assert charts[0][0]["points"] != charts[0][1]["points"], "their losses"
    assert f"<title>first, second on {moving.name}, test: 2 runs</title>" in page
    marked = re.findall(r"<tr class=differs><th>([^<]*)", page)
    assert marked == ["out", "seed"]


def test_differences_are_of_the_ranks_query_by_query(moving: Path, runs: list[Path], page: str) -> None:
    first, second = (results_in(run) for run in runs)
    found = pair_results(first, second)
    for way in ("t2v", "v2t"):
        before, after = (np.array(one["rows"][0][way]["ranks"]) for one in (first, second))
        for depth in (1, 5, 10):
            one = found[way][f"r{depth}"]
            assert one.value == pytest.approx(100 * ((after <= depth).mean() - (before <= depth).mean()))
            # Of means of as many differences of 12 videos, drawn here by another dice.
            gains = 100.0 * (after <= depth) - 100.0 * (before <= depth)
            drawn = np.random.default_rng(7).choice(gains, size=(20_000, VIDEOS)).mean(axis=1)
            assert np.allclose(one.interval, np.percentile(drawn, [2.5, 97.5]), atol=100 / VIDEOS + 0.01)
        told = found[way]["r5"]
        spelt = f"{told.value:+.1f} <small>({told.interval.low:+.1f} to {told.interval.high:+.1f})</small>"
        assert spelt in page
    assert f"<h3>second less first, {moving.name}, test</h3>" in page


def test_what_cannot_be_paired_is_left_out_in_a_sentence(
    moving: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(moving, runs[1], split="train", out=tmp_path / "train") == 0
    other = json.loads((runs[1] / "results.json").read_text())
    (tmp_path / "others.json").write_text(json.dumps(other | {"queries_digest": "0" * 64}))
    untested = Path(shutil.copytree(runs[1], tmp_path / "untested"))
    (untested / "results.json").unlink()
    write_report(
        [runs[0], untested],
        tmp_path / "page.html",
        clips=0,
        tested=[tmp_path / "train", tmp_path / "others.json"],
    )
    text = unescape((tmp_path / "page.html").read_text())
    assert "train is not paired with first: not the same queries (split 'test' and 'train')." in text
    assert "is not paired with first: not the same queries (other videos or captions)." in text
    assert "untested is not paired: it has no results.json, which finetune writes when it has tested." in text
    assert " less first" not in text
    assert f"<h1><bdi>first, untested on {moving.name}, test, beside train on {moving.name}, train, " in text
    with pytest.raises(RequestError, match="not the same queries"):
        pair_results(results_in(runs[0]), results_in(tmp_path / "train"))


def test_a_finetuned_model_is_asked_about_the_videos_of_its_test(runs: list[Path]) -> None:
    """All twelve: both ways, the right ones have the ranks that results.json has."""
    answers = find_answers(read_history(runs[0]), 100)
    assert (answers.clips, answers.gallery, len(answers.shown), answers.chance) == (VIDEOS, VIDEOS, VIDEOS, {})
    told = results_in(runs[0])["rows"][0]
    for way, name in (("captions", "v2t"), ("clips", "t2v")):
        ranks = [next(one.rank for one in getattr(answer, way) if one.is_right) for answer in answers.shown]
        assert ranks == pytest.approx(told[name]["ranks"], abs=0.5)


def test_the_command_takes_runs_by_their_places(runs: list[Path], tmp_path: Path) -> None:
    said = stillreel("report", *runs, f"page={tmp_path / 'page.html'}", "clips=0")
    assert said.returncode == 0, said.stderr
    assert "Paired differences" in (tmp_path / "page.html").read_text()
    for words, message in (
        ((), "expected RUN ...; given 0"),
        ((runs[0], runs[0]), f"RUN {runs[0]} is given twice"),
        ([tmp_path / str(number) for number in range(7)], "7 runs are given; a chart tells at most 6 apart"),
        ((runs[0], f"beside={runs[1]}"), "unknown setting 'beside'"),
    ):
        wrong = stillreel("report", *words)
        assert (wrong.returncode, message in wrong.stderr) == (2, True), wrong.stderr


def _results(row: dict[str, Any]) -> dict[str, Any]:
    told = {
        "benchmark": "b",
        "variant": "",
        "split": "test",
        "queries_digest": "0",
        "protocol": "Title, test: 40 videos",
    }
    return told | {"rows": [row], "counts": {"videos": 40}, "checkpoint": {}, "settings_digest": "0" * 64}


@pytest.mark.parametrize(("evaluated", "head"), [(evaluate_recognition, "top-1"), (evaluate_choice, "accuracy")])
def test_recognition_and_multi_choice_are_paired_too(evaluated: Any, head: str) -> None:
    random = torch.Generator().manual_seed(0)
    right = torch.randint(5, (40,), generator=random)
    noise = [torch.randn(40, 5, generator=random) for _ in range(2)]
    sure = torch.nn.functional.one_hot(right, 5) * 4.0
    rows = [evaluated(scores, right).to_json() for scores in (noise[0], noise[1] + sure)]
    told = Told([], [Benchmarked("worse", _results(rows[0])), Benchmarked("better", _results(rows[1]))])
    assert f'<th scope="col">{head}</th>' in render_tested(told)
    paired = render_paired(told)
    assert "better less worse, Title, test" in paired and f'<th scope="col">{head}</th>' in paired
    (found,) = pair_results(told.tested[0].results, told.tested[1].results).values()
    assert found["r1"].interval.low > 0 and found["r1"].p < 0.01 and "<b>+" in paired


def test_folders_are_called_by_the_last_parts_that_tell_them_apart() -> None:
    assert names_of([Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    assert names_of([Path("/x/a/ft"), Path("/x/b/ft"), Path("/x/c")]) == ["a/ft", "b/ft", "c"]
    assert names_of([Path("/x/a/results.json"), Path("/y/b")]) == ["a", "b"]
