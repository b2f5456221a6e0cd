"""Finetuning on the real captioned clips (MSR-VTT, MSVD, Panda-70M): a tiny model learns those that it trains on by heart.

Of the held-out ones it can know nothing: some fifty clips teach a random model none of what a caption says of another clip.
So nothing is asked of that figure but that it is there, with its interval.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.finetune.running import evaluate, finetune, finetune_words, kill_after, results_in
from tests.making import SHARED, needs_shared

VIDEOS = SHARED / "data" / "videos"
LEARNING = {
    "frames": 2,
    "batch": 16,
    "steps": 0,
    "epochs": 30,
    "context_length": 24,
    "workers": 1,
    "optimizer__warmup_steps": 40,
    "save_every": 300,
    "log_every": 10,
}

pytestmark = needs_shared


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """captions.json of the 61 clips, every fifth held out, and their frames, stored."""
    home = tmp_path_factory.mktemp("captioned")
    with (VIDEOS / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file"].startswith(("msrvtt/", "msvd/", "panda70m/"))]
    told = [
        {"video": row["file"], "captions": json.loads(row["all_captions"]), "split": "train" if number % 5 else "test"}
        for number, row in enumerate(rows)
    ]
    assert len(told) == 61
    (home / "captions.json").write_text(json.dumps(told))
    assert finetune(home, home / "frames", **LEARNING, videos=VIDEOS, prepare="true") == 0
    return home


def test_it_fits_its_training_clips_across_a_kill_and_tells_the_held_out_figure_as_it_is(
    captioned: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = {**LEARNING, "prepared": captioned / "frames"}
    kill_after(finetune_words(captioned, out, **settings), out, step=310)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000300"]
    assert finetune(captioned, out, **settings) == 0

    held_out = results_in(out)
    assert held_out["counts"]["videos"] == 13 and "every caption is a query" in held_out["protocol"]
    assert held_out["counts"]["queries"] == sum(held_out["captions_of_videos"]) > 13
    low, high = held_out["rows"][0]["t2v"]["intervals"]["r1"]
    assert 0 <= low <= held_out["metrics"]["t2v_r1"] <= high <= 100

    asked = {key: settings[key] for key in ("frames", "context_length", "prepared")}
    assert evaluate(captioned, out, **asked, split="train", out=tmp_path / "train", dual_softmax="false") == 0
    known = results_in(tmp_path / "train")
    assert known["counts"]["videos"] == 48
    assert known["metrics"]["t2v_r1"] >= 90
