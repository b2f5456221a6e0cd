"""`stillreel evaluate msrvtt variant=mc`: each video among its own five sentences; ties, misses, blocks and ranks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stillreel.cli import main
from stillreel.pretrain.evaluation import Matches, evaluate_choice
from stillreel.pretrain.evaluation.evaluator import EncodedSet, _of_own
from tests.finetune.running import SMALL, finetune, results_in
from tests.making import torchrun
from tests.pretrain.zoo import captions, shaken

QUESTIONS = 6


@pytest.fixture(scope="module")
def asked(moving: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of moving things under MSR-VTT's names, each with its own sentence among four of others."""
    folder = tmp_path_factory.mktemp("asked")
    rows = [line.split("\t") for line in (moving / "captions.tsv").read_text().splitlines()[1:]]
    test = [(file, said) for file, said, split in rows if split == "test"][:QUESTIONS]
    questions = []
    for number, (file, _) in enumerate(test):
        (folder / f"video{7010 + number}.mp4").symlink_to(moving / file)
        options = [test[(number + step) % QUESTIONS][1] for step in range(5)]
        answer = number % 5
        options[0], options[answer] = options[answer], options[0]
        questions.append({"video": f"video{7010 + number}.mp4", "caption": options, "answer": answer})
    (folder / "msrvtt_mc_test.json").write_text(json.dumps(questions))
    return folder


@pytest.fixture(scope="module")
def trained(moving: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert finetune(moving, out, steps=2, save_every=2) == 0
    return out


def words(data: Path, checkpoint: Path, out: Path, **more: object) -> list[str]:
    kept = {key: SMALL[key] for key in ("preset", "threads", "workers", "device", "frames", "context_length")}
    given = {
        "variant": "mc",
        "data": data,
        "checkpoint": checkpoint,
        "out": out,
        "allow_missing": "true",
        **kept,
        **more,
    }
    return ["evaluate", "msrvtt", *(f"{key}={value}" for key, value in given.items())]


def test_each_video_is_told_among_its_own_options(
    asked: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(asked, trained, tmp_path / "out")) == 0
    found = results_in(tmp_path / "out")
    (row,) = found["rows"]
    assert row["items"] == 5 and len(row["ranks"]) == QUESTIONS
    assert found["metrics"] == {"accuracy": pytest.approx(100 * sum(rank == 1 for rank in row["ranks"]) / QUESTIONS)}
    low, high = row["intervals"]["accuracy"]
    assert 0 <= low <= row["accuracy"] <= high <= 100
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(
        "MSR-VTT MC, test: 6 videos, a question each of 5 options, one of them right; a tie with it is"
    )
    assert said[1].split() == ["accuracy", "accuracy", "95%", "questions", "options", "missed", "tied"]
    assert said[2].split()[-4:] == ["6", "5", "0", "0"]
    assert main(words(asked, trained, tmp_path / "again", compare=tmp_path / "out" / "results.json")) == 0
    assert "r1: +0.00 (+0.00 to +0.00), p 1.0000" in capsys.readouterr().out


def test_their_order_changes_no_rank_and_a_missing_video_is_a_miss(asked: Path, trained: Path, tmp_path: Path) -> None:
    """Whichever option stands first, it is not given the benefit of a doubt."""
    (tmp_path / "turned").mkdir()
    questions = json.loads((asked / "msrvtt_mc_test.json").read_text())
    for number, question in enumerate(questions):
        question["caption"], question["answer"] = question["caption"][::-1], 4 - question["answer"]
        if number:
            (tmp_path / "turned" / question["video"]).symlink_to((asked / question["video"]).resolve())
    (tmp_path / "turned" / "msrvtt_mc_test.json").write_text(json.dumps(questions))
    assert (
        main(words(asked, trained, tmp_path / "one"))
        == main(words(tmp_path / "turned", trained, tmp_path / "two"))
        == 0
    )
    (one,), (two,) = results_in(tmp_path / "one")["rows"], results_in(tmp_path / "two")["rows"]
    assert two["ranks"][1:] == one["ranks"][1:] and two["missed"] == [0] and two["ranks"][0] == 5


def test_two_ranks_find_what_one_finds(asked: Path, trained: Path, tmp_path: Path) -> None:
    """All questions are of one block, so the second rank has none."""
    done = torchrun("stillreel", words(asked, trained, tmp_path / "two"), ranks=2, timeout=240)
    assert done.returncode == 0, done.stderr
    assert main(words(asked, trained, tmp_path / "one")) == 0
    assert results_in(tmp_path / "two")["rows"] == results_in(tmp_path / "one")["rows"]


def test_a_split_without_options_is_refused(
    moving: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.csv").write_text("video_id\nvideo1\n")
    (tmp_path / "MSRVTT_data.json").write_text('{"sentences": [{"video_id": "video1", "caption": "a cat"}]}')
    (tmp_path / "video1.mp4").symlink_to(next((moving / "videos").iterdir()))
    asks = words(tmp_path, trained, tmp_path / "out", split="train")
    assert main([*asks, "files.train=train.csv"]) == 2
    assert "split=train: it has captions and no options; MSR-VTT MC is asked of its test" in capsys.readouterr().err


def test_a_tie_for_the_best_is_no_hit_wherever_the_right_option_stands() -> None:
    nan = float("nan")
    scores = torch.tensor([[3.0, 1, 2], [2, 2, 1], [1, 2, 2], [1, 1, 2], [nan, nan, nan], [0, 0, 0]])
    found = evaluate_choice(scores, torch.tensor([0, 0, 2, 0, 1, 1]))
    assert found.ranks.values.tolist() == [1, 1.5, 1.5, 2.5, 3, 2]
    assert found.tied.tolist() == [False, True, True, False, False, True]
    assert found.ranks.missed.tolist() == [False, False, False, False, True, False]
    assert found.metrics() == {"accuracy": pytest.approx(100 / 6)}
    assert found.to_json()["tied"] == [1, 2, 5] and found.rows()[0][-2:] == ["1", "3"]


@pytest.mark.parametrize("kind", ["mean", "tab", "mug", "tight"])
def test_blocks_have_the_scores_that_all_pairs_have(kind: str) -> None:
    model = shaken(kind)
    count, options, views = 5, 3, 2
    torch.manual_seed(0)
    with torch.no_grad():
        video = model.encode_video(torch.randn(count * views, 2, 3, 64, 64))
        text = model.encode_text(captions([5] * (count * options), 8))
        whole = model.similarity(video, text).unflatten(1, (count, views)).mean(dim=2)
        encoded = EncodedSet(
            video, text, Matches(torch.zeros(1), torch.zeros(1)), torch.ones(count, dtype=torch.bool), ()
        )
        parts = [_of_own(model, encoded, slice(start, start + 2), views) for start in range(0, 8, 2)]
    assert [len(one) for one in parts] == [2, 2, 1, 0]
    expected = np.stack([whole[number * options : (number + 1) * options, number].numpy() for number in range(count)])
    assert np.allclose(torch.cat(parts).numpy(), expected, atol=1e-5)
