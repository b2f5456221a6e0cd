"""`stillreel finetune` and `evaluate` in one process: what they train on, choose, test, write, and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from stillreel.cli import main
from stillreel.configs.prompts import ENSEMBLES
from stillreel.pretrain.data.tokens import CLIPS_OWN
from stillreel.pretrain.evaluation.evaluator import _ensemble
from stillreel.pretrain.model import load_model
from stillreel.pretrain.model.features import pick_rows, unit
from tests.finetune.running import (
    evaluate,
    evaluate_words,
    finetune,
    finetune_words,
    kill_after,
    losses_told,
    results_in,
    steps_told,
    weights_in,
)
from tests.making import torchrun
from tests.pretrain import containers
from tests.pretrain.published import published
from tests.pretrain.video.making import write_video


@pytest.fixture(scope="module")
def finished(moving: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of a run of six steps."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert finetune(moving, out) == 0
    return out


def test_results_hold_the_protocol_the_counts_the_settings_and_every_query_s_rank(finished: Path) -> None:
    found = results_in(finished)
    assert "test: 12 videos, 12 queries (one caption a video)" in found["protocol"]
    assert "2 frames by segments, 64 px, 16 tokens" in found["protocol"]
    assert found["counts"] == {"videos": 12, "queries": 12, "missing": 0, "damaged": 0, "cut": 0}
    assert [row["label"] for row in found["rows"]] == ["raw", "dual softmax (transductive)"]
    for row in found["rows"]:
        for way in ("t2v", "v2t"):
            ranks = row[way]["ranks"]
            assert len(ranks) == 12 and all(1 <= rank <= 12 for rank in ranks)
            assert row[way]["r5"] == pytest.approx(100 * sum(rank <= 5 for rank in ranks) / 12)
            low, high = row[way]["intervals"]["r5"]
            assert low <= row[way]["r5"] <= high
    assert found["settings"]["steps"] == 6 and len(found["settings_digest"]) == 64
    assert found["checkpoint"]["path"].endswith("finished/final") and len(found["checkpoint"]["sha256"]) == 64


def test_the_checkpoint_is_the_best_on_validation_and_never_chosen_on_test(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    told = {line["step"]: line["t2v_r1"] for line in lines if "t2v_r1" in line}
    assert list(told) == [0, 3, 6]
    best = max((3, 6), key=lambda step: (told[step], -step))  # of equal ones the earlier
    assert json.loads((finished / "final" / "config.json").read_text())["origin"]["step"] == best
    assert results_in(finished)["protocol"].count("selection: on validation") == 1


def test_validation_has_its_own_pace_and_saves_what_it_measured(moving: Path, tmp_path: Path) -> None:
    assert finetune(moving, tmp_path / "run", steps=4, eval__every=2, save_every=4, keep_last=9) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "t2v_r1" in line] == [0, 2, 4]
    assert sorted(one.name for one in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step-00000002",
        "step-00000004",
    ]


def test_without_a_validation_split_the_last_step_is_taken(moving: Path, tmp_path: Path) -> None:
    assert finetune(moving, tmp_path / "run", select="last", save_every=2) == 0
    assert json.loads((tmp_path / "run" / "final" / "config.json").read_text())["origin"]["step"] == 6
    assert "selection: last step" in results_in(tmp_path / "run")["protocol"]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "t2v_r1" not in lines


def test_a_second_stage_is_swept_with_the_weight_that_validation_chose(
    moving: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(moving, finished, rerank=4) == 2
    assert "rerank=4: the model has no fine stage" in capsys.readouterr().err
    fine = {"model__rerank__layers": 2, "objective__matching": 1, "steps": 2, "save_every": 2}
    assert finetune(moving, tmp_path / "run", **fine) == 0
    capsys.readouterr()
    assert evaluate(moving, tmp_path / "run", rerank=4, out=tmp_path / "told") == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(number for number, line in enumerate(lines) if "re-ranked: weight" in line)
    assert "best R@1 at K=4 on validation" in lines[head]
    assert [line.split()[0] for line in lines[head + 1 : head + 7]] == ["K", "coarse", "4", "5", "10", "all"]
    told = results_in(tmp_path / "told")["two_stage"]
    assert told["queries"] == told["videos"] == 12 and 0 <= told["weight"] <= 1
    assert told["levels"][0]["ranks"] == results_in(tmp_path / "told")["rows"][0]["t2v"]["ranks"]
    assert (tmp_path / "told" / "rerank.svg").read_text().startswith("<svg")


def test_a_run_that_was_killed_ends_as_one_that_was_not(moving: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    kill_after(finetune_words(moving, out), out, step=4)
    assert not (out / "results.json").exists()
    assert finetune(moving, out) == 0
    assert steps_told(out) == steps_told(finished) == [1, 2, 3, 4, 5, 6]
    found, right = weights_in(out), weights_in(finished)
    assert all(torch.equal(found[name], right[name]) for name in right)
    assert results_in(out)["rows"] == results_in(finished)["rows"]


def test_stored_frames_train_as_the_videos_do(moving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The JPEGs of a store are not the decoder's pixels, but near them; which frames are drawn is the same."""
    store, words = tmp_path / "store", {"steps": 3, "select": "last"}
    assert finetune(moving, store, **words, prepare="true") == 0
    assert main(["verify", str(store), "progress=off"]) == 0
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    (annotations / "captions.tsv").write_bytes((moving / "captions.tsv").read_bytes())
    assert finetune(moving, tmp_path / "videos", **words) == 0
    assert finetune(annotations, tmp_path / "stored", **words, prepared=store) == 0  # the videos need not be there
    losses = []
    for out in ("videos", "stored"):
        lines = [json.loads(line) for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert finetune(annotations, tmp_path / "x", **words, prepared=store, frames=3) == 2
    assert "frames is 2 there, 3 here" in capsys.readouterr().err
    assert finetune(moving, store, **words, prepare="true", frames=3) == 2
    assert "stored with other settings" in capsys.readouterr().err


def test_a_dry_run_says_what_a_run_would_be_and_does_nothing(
    moving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert finetune(moving, out, dry_run="true", steps=0, epochs=4) == 0
    said = capsys.readouterr().out
    for part in (
        "train               -      18",
        "test: 12 videos, 12 queries",
        "9 steps of 8 clips: 4 epochs of 18 pairs",
        "parameters:",
        "of weights and optimizer on each device",
        "FLOP a step",
        "reading:",
        "time:",
    ):
        assert part in said, part
    assert not out.exists()


def test_a_dry_run_warns_of_what_cannot_come_to_much(
    moving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(moving, tmp_path / "run", dry_run="true", batch=64, optimizer__warmup_steps=1000) == 0
    told = capsys.readouterr().err.splitlines()
    warned = [line.split()[1:5] for line in told if line.startswith("WARNING: ")]
    assert warned == [["the", "warm-up", "of", "1,000"], ["18", "pairs", "are", "fewer"]]


def test_captions_that_are_cut_are_counted(
    moving: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 4 tokens, start and end included, all are longer than that."""
    assert evaluate(moving, finished, out=tmp_path / "cut", context_length=4) == 0
    assert "4 tokens (12 of 12 texts cut)" in capsys.readouterr().out
    assert results_in(tmp_path / "cut")["counts"]["cut"] == 12
    assert finetune(moving, tmp_path / "run", dry_run="true", context_length=4) == 0
    assert "train: 18 of 18 captions are longer than 4 tokens, and cut" in capsys.readouterr().out


@pytest.mark.parametrize("sampler", ["fps", "segments", "clip2video"])
def test_videos_of_one_frame_are_clips_and_raw_streams_are_named(
    sampler: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, 1)
    write_video(tmp_path / "c.h264", 5).rename(tmp_path / "c.mp4")
    (tmp_path / "captions.csv").write_text("video,caption\na.mp4,a dog\nb.mp4,a bus\nc.mp4,a raw stream\n")
    words = {"video__sampler": sampler, "max_bad": 1, "out": tmp_path / "found"}
    assert evaluate(tmp_path, finished, **words) == 0
    assert "1 videos are damaged and count as misses: c.mp4" in capsys.readouterr().out
    found = results_in(tmp_path / "found")
    assert found["damaged"] == ["c.mp4"] and "not_a_video" in found["troubles"][0]


def test_an_evaluation_repeats_the_run_s_table_and_tests_against_it(
    moving: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = f"{finished}/results.json"
    assert evaluate(moving, finished, out=tmp_path / "again", compare=other, querybank=6) == 0
    again, before = results_in(tmp_path / "again"), results_in(finished)
    assert [row["label"] for row in again["rows"]] == [
        *(row["label"] for row in before["rows"]),
        "QB-norm (transductive)",
    ]
    assert again["rows"][:2] == before["rows"]
    said = capsys.readouterr().out
    assert "t2v r1: +0.00 (+0.00 to +0.00), p 1.0000" in said and "QB-norm" in said
    assert evaluate(moving, finished, split="train", compare=other) == 2
    assert "results.json: not the same queries (split 'test' and 'train')" in capsys.readouterr().err


def test_any_clip_and_any_peer_s_file_is_evaluated_without_training(moving: Path, tmp_path: Path) -> None:
    """A CLIP by its towers, a peer's file as it is published, and what import-checkpoint makes of it: the same ranks."""
    _, state = published("CLIP4Clip meanP")
    file = containers.write_torch(tmp_path / "pytorch_model.bin.0", state)
    assert main(["import-checkpoint", str(file), str(tmp_path / "ours")]) == 0
    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "exported")]) == 0
    towers = f"local-dir:{tmp_path / 'exported' / 'towers'}"
    for name, words in (
        ("peer", [f"checkpoint={file}"]),
        ("ours", [f"checkpoint={tmp_path / 'ours'}"]),
        ("clip", [f"model.towers.name={towers}"]),
    ):
        words += [
            f"data={moving}",
            f"out={tmp_path / name}.out",
            "size=64",
            "frames=2",
            "workers=0",
            "threads=1",
        ]
        assert main(["evaluate", "folder", *words]) == 0
    rows = [results_in(tmp_path / f"{name}.out")["rows"] for name in ("peer", "ours", "clip")]
    assert rows[0] == rows[1] == rows[2]
    assert results_in(tmp_path / "clip.out")["checkpoint"]["towers"]["name"] == towers


def test_two_ranks_find_what_one_finds(moving: Path, finished: Path, tmp_path: Path) -> None:
    words = evaluate_words(moving, finished, split="train", out=tmp_path / "two", querybank=5, batch=4)
    done = torchrun("stillreel", words, ranks=2, timeout=240)
    assert done.returncode == 0, done.stderr
    assert evaluate(moving, finished, split="train", out=tmp_path / "one", querybank=5, batch=4) == 0
    assert results_in(tmp_path / "two")["rows"] == results_in(tmp_path / "one")["rows"]
    assert done.stdout.count("text to video") == 3  # one of them prints


@pytest.fixture
def directions(moving: Path, tmp_path: Path) -> Path:
    """A folder whose table has the classes of the moving things."""
    folder = tmp_path / "classes"
    folder.mkdir()
    rows = [line.split("\t") for line in (moving / "captions.tsv").read_text().splitlines()[1:]]
    lines = [f"{file}\t{file.rpartition('-')[2].removesuffix('.mp4')}\t{split}" for file, _, split in rows]
    (folder / "labels.tsv").write_text("\n".join(["video\tlabel\tsplit", *lines, ""]))
    return folder


def test_recognition_is_trained_and_told_by_its_classes(moving: Path, directions: Path, tmp_path: Path) -> None:
    words = {"videos": moving, "prompt": "it goes {}", "frames": 4}
    assert finetune(directions, tmp_path / "run", **words, views__segments=2, views__crops=3) == 0
    found = results_in(tmp_path / "run")
    (row,) = found["rows"]
    assert row["items"] == 6 and len(row["ranks"]) == 12
    assert found["metrics"].keys() == {"top1", "top5"}
    assert "2 x 3 views" in found["protocol"] and found["counts"]["queries"] == 12


def test_an_ensemble_of_prompts_compares_the_mean_of_their_vectors(
    moving: Path, directions: Path, finished: Path, tmp_path: Path
) -> None:
    def ranks(prompt: str) -> list[float]:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        assert evaluate(directions, finished, videos=moving, prompt=prompt, out=out) == 0
        found = results_in(out)
        assert ("prompts a class" in found["protocol"]) == ("|" in prompt or prompt == "clip28")
        return list(found["rows"][0]["ranks"])

    one, other = ranks("it goes {}"), ranks("a photo of {}, upside down")
    assert ranks("it goes {}|it goes {} | it goes {}") == one, "the mean of one vector three times is that vector"
    both = ranks("it goes {}|a photo of {}, upside down")
    assert both == ranks("a photo of {}, upside down|it goes {}")
    assert len(ranks("clip28")) == 12 and other != one
    model, texts = load_model(finished / "final").eval(), [f"it goes {way}" for way in ("left", "right")]
    with torch.no_grad():
        text = model.encode_text(CLIPS_OWN([*texts, "now left", "now right"], 16))
        chosen = pick_rows(text, torch.tensor([0, 2, 1, 3]))
        found = _ensemble(model, chosen, 2).pooled
    expected = torch.stack([(unit(text.pooled[n]) + unit(text.pooled[n + 2])) / 2 for n in (0, 1)])
    assert torch.allclose(found, unit(expected), atol=1e-6)


def test_clip_s_ensembles_are_those_that_were_published() -> None:
    assert {name: len(set(ENSEMBLES[name])) for name in ENSEMBLES} == {"clip28": 28, "clip48": 48}
    assert {"a photo of {}.", "a demonstration of a person practicing {}."} <= set(ENSEMBLES["clip28"])
    assert {"a video of the person {}.", "a example of a person during {}."} <= set(ENSEMBLES["clip48"])


def test_clips_are_told_apart_by_all_classes_not_by_those_of_a_batch(
    moving: Path, directions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = {"objective__infonce": 0, "objective__classes": 1}
    words = {"videos": moving, "prompt": "it goes {}", **alone}
    assert finetune(directions, tmp_path / "plan", **words, dry_run="true") == 0
    assert "FLOP a step" in capsys.readouterr().out
    # One clip a step has nobody to be compared with but the classes.
    assert finetune(directions, tmp_path / "run", **words, batch=1, steps=1) == 0
    (told,) = losses_told(tmp_path / "run")
    assert told["loss"] == told["loss.classes"] > 0.1
    assert told["grad_norm"] > 0.1
    assert finetune(moving, tmp_path / "refused", **alone) == 2
    assert (
        "objective.classes=1.0 tells clips apart by their classes, and folder has captions" in capsys.readouterr().err
    )


def test_missing_videos_are_refused_or_count_as_misses(
    moving: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = tmp_path / "some"
    (some / "videos").mkdir(parents=True)
    (some / "captions.tsv").write_bytes((moving / "captions.tsv").read_bytes())
    for file in sorted((moving / "videos").iterdir()):
        if not file.name.startswith("test-000-left"):
            (some / "videos" / file.name).symlink_to(file)
    assert evaluate(some, finished) == 2
    assert "1 of 12 videos are not in" in capsys.readouterr().err
    assert evaluate(some, finished, allow_missing="true", out=tmp_path / "out") == 0
    found = results_in(tmp_path / "out")
    assert found["counts"]["missing"] == 1 and "counted as misses" in found["protocol"]
    assert found["rows"][0]["t2v"]["missed"] == [0] and found["rows"][0]["t2v"]["ranks"][0] == 12


def test_a_damaged_video_is_named_and_counts_as_a_miss_within_the_budget(
    moving: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = tmp_path / "some"
    (some / "videos").mkdir(parents=True)
    (some / "captions.tsv").write_bytes((moving / "captions.tsv").read_bytes())
    for file in sorted((moving / "videos").iterdir()):
        if file.name.startswith("test-000-left"):
            (some / "videos" / file.name).write_bytes(b"no video")
        else:
            (some / "videos" / file.name).symlink_to(file)
    assert evaluate(some, finished, out=tmp_path / "out") == 0
    found = results_in(tmp_path / "out")
    assert found["counts"]["damaged"] == 1 and found["damaged"] == ["videos/test-000-left.mp4"]
    assert "not_a_video" in found["troubles"][0]
    assert "1 videos are damaged and count as misses" in capsys.readouterr().out
    assert evaluate(some, finished, max_bad=0) == 1
    assert "not_a_video" in capsys.readouterr().err


def test_what_cannot_be_is_said_before_anything_is_done(
    moving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for settings, said in (
        ({"size": 224}, "the model's image tower reads 64"),
        ({"init": tmp_path}, "a folder without a checkpoint"),
        ({"prepared": tmp_path}, "holds neither manifest.json"),
        ({"prompt": "nothing"}, "has no {} for the name"),
        ({"views__segments": 2, "video__sampler": "fps"}, "needs video.sampler=segments"),
    ):
        assert finetune(moving, tmp_path / "run", **settings) == 2, settings  # type: ignore[arg-type]
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(["evaluate", "folder", f"data={moving}"]) == 2
    assert "nothing to evaluate" in capsys.readouterr().err
