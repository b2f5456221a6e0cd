"""Presets: every one that is shipped resolves and says how it is run; a preset may change another, and name a model's."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from stillreel.configs import RequestError, parse_words
from stillreel.configs.finetune import FinetuneSettings
from stillreel.configs.model import ModelSettings
from stillreel.configs.pretrain import PretrainSettings
from stillreel.configs.settings import load_preset, preset_names

GIVEN = {"data": "clips", "out": "run"}


@pytest.mark.parametrize("name", preset_names("pretrain"))
def test_a_pretraining_preset_resolves_and_its_header_says_how_it_is_run(name: str) -> None:
    settings = PretrainSettings.resolve({**GIVEN, **load_preset(name, "pretrain")})
    header = resources.files("stillreel.configs").joinpath("pretrain", f"{name}.yaml").read_text().splitlines()
    comments = "\n".join(line for line in header if line.startswith("#"))
    for word in ("Command:", "Hardware:", "Time", "core"):
        assert word in comments, word
    assert name in comments or name == "demo"
    if "rerank" in name:
        assert settings.model.rerank.layers and settings.objective.matching
    if "b16" in name:
        assert settings.model.towers.name.startswith("ViT-B-16")


@pytest.mark.parametrize("name", preset_names("model"))
def test_a_model_preset_resolves(name: str) -> None:
    ModelSettings.resolve(load_preset(name, "model"))


def test_every_corpus_takes_every_model_by_one_word() -> None:
    models = [
        f"{model}-{tower}" for model in ("mean", "seq", "clip2video", "stan", "rerank") for tower in ("b32", "b16")
    ]
    assert set(models) <= set(preset_names("model"))
    for corpus in ("cc3m", "cc12m"):
        for model in models:
            _, values = parse_words(
                [corpus, f"model={model}", "data=clips", "out=run"], ("PRESET",), PretrainSettings, presets="pretrain"
            )
            settings = PretrainSettings.resolve(values)
            assert settings.model == ModelSettings.resolve(load_preset(model, "model"))
            assert settings.optimizer.warmup_steps == {"cc3m": 1400, "cc12m": 5000}[corpus]


def test_words_change_what_a_preset_says_and_a_preset_what_its_base_says() -> None:
    given, values = parse_words(
        ["cc12m-rerank-b16", "data=clips", "out=run", "model.rerank.layers=3", "batch=64"],
        ("PRESET",),
        PretrainSettings,
        presets="pretrain",
    )
    settings = PretrainSettings.resolve(values)
    assert given == ["cc12m-rerank-b16"]
    assert settings.batch == 64 and settings.model.rerank.layers == 3  # words
    assert settings.objective.matching == 1  # the preset's
    assert settings.optimizer.warmup_steps == 5000  # its base's
    assert settings.fresh and settings.epochs == 4  # that one's base's


def test_a_model_is_named_by_one_word_or_changed_by_several() -> None:
    named = PretrainSettings.resolve({**GIVEN, "model": "stan-b32"})
    changed = PretrainSettings.resolve({**GIVEN, "model": {"preset": "stan-b32", "stan": {"time": "conv"}}})
    assert named.model.temporal == changed.model.temporal == "stan"
    assert (named.model.stan.time, changed.model.stan.time) == ("attention", "conv")


def test_a_preset_that_is_its_own_base_is_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"base: {two}\n")
    two.write_text(f"base: {one}\n")
    with pytest.raises(RequestError, match="its own base"):
        load_preset(str(one), "pretrain")


def test_a_missing_preset_is_named_with_those_there_are() -> None:
    with pytest.raises(RequestError, match=r"expected PRESET; given 0: \(none\)\. PRESETs: .*cc3m-rerank-b32"):
        parse_words(["data=clips"], ("PRESET",), PretrainSettings, presets="pretrain")
    with pytest.raises(RequestError, match="did you mean 'cc3m'"):
        parse_words(["cc3n"], ("PRESET",), PretrainSettings, presets="pretrain")


@pytest.mark.parametrize("name", preset_names("finetune"))
def test_a_finetuning_preset_resolves_and_its_header_says_how_it_is_run(name: str) -> None:
    settings = FinetuneSettings.resolve({**GIVEN, **load_preset(name, "finetune")})
    header = resources.files("stillreel.configs").joinpath("finetune", f"{name}.yaml").read_text().splitlines()
    comments = "\n".join(line for line in header if line.startswith("#"))
    for word in ("Command:", "Hardware:", "ime", "core"):
        assert word in comments, word
    assert f"preset={name}" in comments or name == "demo"
    if name.startswith("stan-"):
        assert settings.model.temporal == "stan" and settings.model.temperature and settings.video.sampler == "segments"
    if name.startswith("clip2video-"):
        assert settings.model.align == "slow_tdb" and settings.video.sampler == "clip2video"


def test_finetuning_presets_warm_up_and_save_as_their_data_s_sizes_ask() -> None:
    """By the pairs of the published training splits; CLIP4Clip and CLIP2Video warm up for a tenth of the steps."""
    pairs = {"msrvtt": 180_000, "msvd": 48_774, "lsmdc": 101_079, "didemo": 8_395, "activitynet": 10_009}
    for name in preset_names("finetune"):
        settings = FinetuneSettings.resolve({**GIVEN, **load_preset(name, "finetune")})
        count = pairs.get(name.rpartition("-")[2])
        if count is None:
            continue
        steps = settings.steps_of(count)
        assert steps / 25 <= settings.save_every <= steps, name
        if name.startswith("clip"):
            assert settings.optimizer.warmup(steps) == pytest.approx(steps / 10, rel=0.02), name
