"""Any towers of open_clip: features are open_clip's own, and every module of the zoo works on them or says why not."""

from __future__ import annotations

import open_clip
import pytest
import torch

from stillreel.configs import RequestError
from stillreel.configs.model import ModelSettings
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.adapter import image_size, most_tokens
from stillreel.pretrain.model.initialize import initialize
from stillreel.pretrain.model.towers import build_towers
from tests import towers

KINDS = (
    {"temporal": "seq", "head": "mug", "layers": 1},
    {"temporal": "tdb", "align": "slow_tdb", "layers": 1},
    {"temporal": "lstm", "rerank": {"layers": 1}},
    {"head": "tight", "layers": 1},
)
NEED_PATCHES = ({"temporal": "stan", "stan": {"depth": 1}}, {"patches": "3d"}, {"rerank": {"layers": 1, "grid": 2}})
FAST = ("RN50", "convnext_tiny", "MobileCLIP-S1", "PE-Core-T-16-384")


@pytest.mark.parametrize(
    "name",
    [one if one in FAST else pytest.param(one, marks=pytest.mark.slow) for one in open_clip.list_models()],
)
def test_features_are_open_clips_own(name: str) -> None:
    hub = open_clip.get_model_config(name)["text_cfg"].get("hf_model_name")
    with towers.shallow_timm():
        if not hub:
            assert towers.compare(name) <= towers.CLOSE
            return
        with pytest.raises(RequestError, match=f"its text tower, {hub}, is of transformers and the hub"):
            towers.compare(name)


@pytest.fixture(scope="module")
def convnext() -> torch.nn.Module:
    with towers.shallow_timm():
        return build_towers(towers.small_cfg("convnext_tiny"))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_module_trains_on_them(kind: dict[str, object], convnext: torch.nn.Module) -> None:
    model = VideoTextModel(convnext.requires_grad_(True), ModelSettings.resolve(kind))
    initialize(model)
    model.train()
    frames, ids = torch.randn(2, 3, 3, *image_size(convnext)), towers.captions_for(convnext, 2)
    video, text = model.encode_video(frames), model.encode_text(ids[:, :24])
    loss = model.loss(video, text)
    if model.reranker is not None:
        loss = loss + model.rerank(video, text).sum()
    model.zero_grad()
    loss.backward()
    without = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    assert not without
    assert not convnext.training  # drop path and batch norms would make a clip's features hang on its batch


@pytest.mark.parametrize("kind", NEED_PATCHES, ids=str)
def test_what_reads_the_blocks_of_a_vit_refuses_other_towers_by_name(
    kind: dict[str, object], convnext: torch.nn.Module
) -> None:
    with pytest.raises(RequestError, match=r"reads the blocks of a ViT with a class token.*timm's convnext_tiny"):
        VideoTextModel(convnext, ModelSettings.resolve(kind))


def test_stan_has_a_vit_whatever_the_text_tower_is() -> None:
    clip = build_towers(towers.small_cfg("ViT-H-14-worldwide") | {"embed_dim": 64})
    model = VideoTextModel(clip, ModelSettings.resolve({"temporal": "stan", "stan": {"depth": 1}}))
    with torch.no_grad():
        assert model.eval().encode_video(torch.randn(1, 2, 3, 224, 224)).pooled.shape == (1, 64)


def test_a_caption_that_the_tower_cannot_read_is_refused() -> None:
    cfg = towers.small_cfg("coca_base") | {"embed_dim": 64}
    clip = build_towers(cfg)
    model = VideoTextModel(clip, ModelSettings())
    with pytest.raises(RequestError, match="reads captions of 76 tokens"):
        model.encode_text(torch.ones(2, 32, dtype=torch.int64))
    assert most_tokens(clip) == 77
