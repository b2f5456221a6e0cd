"""`stillreel pretrain`, in one process: what it leaves, what it goes on from, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stillreel.cli import main
from stillreel.pretrain.model import load_model
from tests.pretrain.trainer import losses_of, tensors_of, words_of
from tests.streaming import write_set

SHORT = {"steps": 4, "workers": 0, "save_every": 2, "optimizer__warmup_steps": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("command") / "clips", [9, 7])


@pytest.fixture(scope="module")
def finished(data: Path) -> Path:
    """OUT of a run of four steps."""
    out = data.parent / "finished"
    assert main(words_of(data, out, **SHORT)) == 0
    return out


def run(data: Path, out: Path, **settings: Any) -> int:
    return main(words_of(data, out, **(SHORT | settings)))


def test_the_last_checkpoint_and_the_final_model_are_models(finished: Path) -> None:
    last = finished / "checkpoints" / "step-00000004"
    weights, final = load_file(last / "model.safetensors"), load_file(finished / "final" / "model.safetensors")
    assert weights.keys() == final.keys() and all(torch.equal(weights[name], final[name]) for name in final)
    for folder in (last, finished / "final"):
        assert not load_model(folder).training
    assert json.loads((finished / "run.json").read_text())["settings"]["steps"] == 4


def test_held_out_clips_are_searched_before_between_and_in_the_end(data: Path, tmp_path: Path) -> None:
    held_out = write_set(tmp_path / "held out", [6], name="others")
    settings = {"eval.data": held_out, "eval.every": 3, "eval.clips": 5}
    assert run(data, tmp_path / "run", **settings) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line for line in lines if "t2v_r1" in line}
    assert list(found) == [0, 3, 4]
    assert all(0 <= line["t2v_r1"] <= 100 and line["v2t_mdr"] >= 1 for line in found.values())
    assert all(line["missing"] == 0 and line["clips_per_s"] > 0 for line in found.values())


def test_what_cannot_come_to_much_is_said_before_the_first_step(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"steps": 2, "workers": 0, "batch": 4, "optimizer__warmup_steps": 1000}
    assert main(words_of(data, tmp_path / "run", **words)) == 0
    lines = capsys.readouterr().err.splitlines()
    warned = next(at for at, line in enumerate(lines) if line.startswith("WARNING: the warm-up of 1,000 steps"))
    assert warned < next(at for at, line in enumerate(lines) if line.startswith("step "))


def test_a_finished_run_is_not_run_again_and_a_longer_one_goes_on(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(data, out) == run(data, out) == 0
    assert list(losses_of(out)) == [1, 2, 3, 4]
    assert run(data, out, steps=6) == 0
    assert list(losses_of(out)) == [1, 2, 3, 4, 5, 6]
    assert json.loads((out / "final" / "config.json").read_text())["origin"]["step"] == 6


def test_an_average_of_weights_is_kept_across_a_resume_and_is_the_final_model(data: Path, tmp_path: Path) -> None:
    kept = {"ema__decay": 0.5, "ema__warmup": "false"}
    assert run(data, tmp_path / "whole", **kept) == 0
    assert run(data, tmp_path / "parts", steps=4, **kept, save_every=1) == 0
    final = load_file(tmp_path / "whole" / "final" / "model.safetensors")
    steps = [tensors_of(tmp_path / "parts", step) for step in (2, 3, 4)]
    name = "clip.visual.proj"
    before = steps[0][f"ema.model.{name}"]
    expected = before.lerp(steps[1][name], 0.5).lerp(steps[2][name], 0.5)
    assert torch.allclose(final[name], expected, atol=1e-7)
    assert not torch.equal(final[name], steps[2][name])


def test_the_mean_with_the_start_goes_from_the_start_to_what_was_trained(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    for share in (0, 0.25):
        assert run(data, tmp_path / str(share), wise_ft_alpha=share) == 0
    start, quarter = (load_file(tmp_path / share / "final" / "model.safetensors") for share in ("0", "0.25"))
    trained = load_file(finished / "final" / "model.safetensors")
    name = "clip.visual.proj"
    assert not torch.equal(start[name], trained[name])
    assert torch.allclose(quarter[name], 0.75 * start[name] + 0.25 * trained[name], atol=1e-7)


def test_a_run_begins_from_a_model_of_ours_that_is_the_one_asked_for(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A rate of nothing moves nothing: what comes out is what went in.
    still = {"optimizer__lr": 1e-30, "optimizer__lr_new": 1e-30, "optimizer__weight_decay": 0}
    assert run(data, tmp_path / "run", init=finished / "final", steps=1, **still) == 0
    began, ended = (load_file(out / "final" / "model.safetensors") for out in (finished, tmp_path / "run"))
    assert all(torch.allclose(began[name], ended[name], atol=1e-6) for name in began)
    assert run(data, tmp_path / "other", init=finished / "final", model__pool="plain") == 2
    assert "model.pool: unit -> plain" in capsys.readouterr().err


def test_a_model_is_given_the_parts_that_it_lacks_which_begin_as_on_its_own_towers(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = {"optimizer__lr": 1e-30, "optimizer__lr_new": 1e-30, "optimizer__weight_decay": 0, "steps": 1}
    asked = {"init": finished / "final", "model__rerank__layers": 2, "model__temporal": "seq", **still}
    asked |= {"objective__matching": 1}
    assert run(data, tmp_path / "run", **asked) == run(data, tmp_path / "again", **asked) == 0
    began, ended, again = (
        load_file(out / "final" / "model.safetensors") for out in (finished, tmp_path / "run", tmp_path / "again")
    )
    assert all(torch.allclose(began[name], ended[name], atol=1e-6) for name in began)
    assert {name.partition(".")[0] for name in ended.keys() - began.keys()} == {"reranker", "temporal"}
    for part in ("reranker", "temporal"):
        fresh = [name for name in ended if name.startswith(f"{part}.blocks.")]
        assert fresh
        for name in fresh:
            theirs = name.replace(f"{part}.blocks", "clip.transformer.resblocks")
            assert torch.allclose(ended[name], began[theirs], atol=1e-6), name
    assert all(torch.equal(ended[name], again[name]) for name in ended)
    for other, said in (
        ({"model__rerank__layers": 3}, "model.rerank.layers: 2 -> 3"),
        ({"model__temporal": "stan"}, "model.temporal: seq -> stan"),
        ({"model__temporal": "mean"}, "model.temporal: seq -> mean"),
    ):
        assert run(data, tmp_path / "other", **{**asked, "init": tmp_path / "run" / "final", **other}) == 2
        assert said in capsys.readouterr().err


def test_other_settings_are_told_and_another_order_or_model_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(data, out) == 0
    assert run(data, out, steps=5, optimizer__lr=2e-4) == 0
    said = capsys.readouterr().err
    assert "optimizer.lr: 0.001 -> 0.0002" in said and "steps: 4 -> 5" in said
    for wrong, named in (
        ({"seed": 1}, "seed was 0, is 1"),
        ({"model__temporal": "seq"}, "model.temporal was mean, is seq"),
    ):
        assert run(data, out, steps=6, **wrong) == 2
        assert named in capsys.readouterr().err
    assert run(data, out, resume="never") == 2
    assert "holds a run already" in capsys.readouterr().err


def test_what_cannot_be_is_said_before_anything_is_done(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        "eval.data": (str(data), "give clips that are not"),
        "context_length": (0, "training needs captions"),
        "objective__matching": (1, "needs a re-ranker"),
        "device": ("cuda", "needs a CUDA device of its own"),
        "model__towers__name": ("ViT-B-33", "ViT-B-32"),
        "data": ("nothing", "nothing"),
    }
    for number, (key, (value, said)) in enumerate(cases.items()):
        if key == "device" and torch.cuda.is_available():
            continue
        given = {} if key == "data" else {key: value}
        source = tmp_path / "nothing" if key == "data" else data
        assert run(source, tmp_path / str(number), **given) == 2, key
        assert said in capsys.readouterr().err
    assert main(["pretrain", "cc3m", f"out={tmp_path / 'x'}"]) == 2
    assert "data= is missing: clip shards" in capsys.readouterr().err
