"""What benchmarks of whole paragraphs and of many captions are asked with: the published words, frames and lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillreel.cli import main
from stillreel.configs.benchmark import USUAL
from stillreel.configs.finetune import EvaluateSettings, FinetuneSettings
from stillreel.configs.model import ModelSettings, TowerSettings
from stillreel.configs.settings import load_preset
from stillreel.pretrain.engine.start import fit_clips, resolve_start
from stillreel.pretrain.model.towers import TINY
from stillreel.pretrain.run.opening import Described, describe_fresh
from tests.finetune.benchmarks.making import ids, lines, read, write
from tests.finetune.running import SMALL, finetune, results_in

FRESH = describe_fresh(ModelSettings(towers=TowerSettings(name="tiny")))


@pytest.mark.parametrize("name", ["didemo", "activitynet"])
def test_paragraphs_have_the_published_words_and_frames(name: str) -> None:
    """CLIP4Clip's max_words and max_frames of both."""
    found = fit_clips(EvaluateSettings(), FRESH, USUAL[name])
    assert (found.context_length, found.frames) == (64, 64)
    asked = FinetuneSettings.resolve({"data": "x", "out": "y", "model": {"towers": {"name": "tiny"}}})
    trained, _ = resolve_start(asked, USUAL[name])
    assert (trained.context_length, trained.frames) == (64, 64)
    given = fit_clips(EvaluateSettings.resolve({"context_length": 20, "frames": 3}), FRESH, USUAL[name])
    assert (given.context_length, given.frames) == (20, 3)
    preset = FinetuneSettings.resolve({"data": "x", "out": "y", **load_preset(f"clip4clip-{name}", "finetune")})
    assert (preset.context_length, preset.frames) == (64, 64)


def test_a_model_s_own_frames_go_first_and_it_is_given_no_more_words_than_it_reads() -> None:
    short = TINY.model_cfg() | {"text_cfg": TINY.model_cfg()["text_cfg"] | {"context_length": 48}}
    found = fit_clips(EvaluateSettings(), Described(ModelSettings(), short, {}, 8), USUAL["didemo"])
    assert (found.context_length, found.frames) == (48, 8)
    other = fit_clips(EvaluateSettings(), FRESH)
    assert (other.context_length, other.frames) == (32, 12)


def test_a_paragraph_of_more_than_32_words_is_not_cut(
    moving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(moving, tmp_path / "run", steps=1, save_every=1) == 0
    name = "12345678@N00_1234567890_0123456789"
    said = [{"video": f"{name}.avi", "description": "a red thing moves to the left side of it"}] * 5
    write(tmp_path / "data" / "test_data.json", [one | {"times": [[0, 1]]} for one in said])
    write(tmp_path / "data" / "test_list.txt", lines(f"{name}.avi"))
    (tmp_path / "data" / f"{name}.mp4").symlink_to(next((moving / "videos").iterdir()))
    words = [f"{key}={SMALL[key]}" for key in ("preset", "threads", "workers", "device", "frames")]
    words += [
        f"data={tmp_path / 'data'}",
        f"checkpoint={tmp_path / 'run'}",
        "allow_missing=true",
        f"out={tmp_path / 'out'}",
    ]
    capsys.readouterr()
    assert main(["evaluate", "didemo", *words]) == 0
    assert "2 frames by" in (told := capsys.readouterr().out) and "64 tokens" in told and "texts cut" not in told
    assert results_in(tmp_path / "out")["counts"]["cut"] == 0
    assert main(["evaluate", "didemo", *words, "context_length=32"]) == 0
    assert "32 tokens (1 of 1 texts cut)" in capsys.readouterr().out


def test_vatex_asks_by_each_of_ten_captions_and_its_two_tests_share_no_validation(tmp_path: Path) -> None:
    names = [f"Abcdefghij{letter}_000010_000020" for letter in "ABCDEF"]
    write(tmp_path / "vatex_data.json", {name: {"enCap": [f"{name} {n}" for n in range(10)]} for name in names})
    parts = {"train": names[:1], "val": names[1:3], "test": names[3:5], "test1k5_sec": names[2:4]}
    for part, listed in parts.items():
        write(tmp_path / f"{part}_list.txt", lines(*listed))
    for variant, test in (("hgr", names[3:5]), ("clip2video", names[2:4])):
        benchmark, _ = read("vatex", tmp_path, variant=variant, needs=("train", "validation", "test"))
        assert ids(benchmark, "test") == test and benchmark.queries("test") == 20
        title = "CLIP2Video" if variant == "clip2video" else "HGR"
        assert benchmark.describe() == (
            f"VATEX (English, {title} split), test: 2 videos, 20 queries (every caption is a query; video to text: a video's "
            "best caption counts); published with 1,500 videos"
        )
        assert benchmark.splits["test"].published[0][:2] == (1500, 15_000)
        assert not set(test) & set(ids(benchmark, "validation"))
