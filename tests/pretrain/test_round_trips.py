"""Towers go out as open_clip and transformers have them and come back: the same features, and the same weights.

What is compared is the map of the weights, so features are computed in float64 on every side: in float32 two ways to sum an
attention differ by 1e-6 of the largest feature, of the same weights.
"""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor

from stillreel.configs.exchange import ExportSettings, ImportSettings
from stillreel.configs.model import ModelSettings
from stillreel.configs.system.storage import Folder
from stillreel.finetune.commands import export, import_checkpoint
from stillreel.pretrain.model import VideoTextModel, load_model
from stillreel.pretrain.model.adapter import image_size, preprocess_named, preprocess_of
from stillreel.pretrain.model.checkpoint import save_model
from stillreel.pretrain.model.towers import build_towers
from tests import towers
from tests.pretrain.hub_layout import HubModel

CLOSE = 1e-6  # of the largest feature
NAMES = ("ViT-B-32-quickgelu", "ViT-B-32", "ViT-B-16-SigLIP")
SLOW = ("ViT-B-32-SigLIP2-256", "ViT-B-16-SigLIP-i18n-256", "ViT-L-14")


def apart(ours: Tensor, theirs: Tensor) -> float:
    assert ours.dtype == theirs.dtype == torch.float64
    return float((ours - theirs).abs().max() / theirs.abs().max())


def write_ours(name: str, folder: Path) -> VideoTextModel:
    """A small model of a name's towers, in which nothing is zero or the identity, in a folder; and the same in float64."""
    torch.manual_seed(0)
    with torch.no_grad(), towers.shallow_timm():
        clip = build_towers(towers.small_cfg(name), preprocess_named(name))
        for weight in clip.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
        model = VideoTextModel(clip, ModelSettings()).eval()
        save_model(model, Folder(str(folder)), {})
    return model.double()


def features(model: VideoTextModel, frames: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return model.encode_video(frames[None].double()).frames[0], model.encode_text(ids).pooled


@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW)])
def test_what_is_exported_means_the_same_by_each_layout_and_comes_back(name: str, tmp_path: Path) -> None:
    ours, out = write_ours(name, tmp_path / "ours"), {kind: tmp_path / kind for kind in ("hf", "open_clip")}
    frames, ids = torch.randn(2, 3, *image_size(ours.clip)), towers.captions_for(ours.clip)
    image, text = features(ours, frames, ids)
    with torch.no_grad(), towers.shallow_timm():
        for kind, folder in out.items():
            export.run(str(tmp_path / "ours"), str(folder), ExportSettings.resolve({"towers": kind}))
        hub = HubModel(out["hf"] / "towers")
        assert apart(image, hub.image_features(frames)) < CLOSE
        assert apart(text, hub.text_features(ids)) < CLOSE
        theirs = open_clip.create_model(f"local-dir:{out['open_clip'] / 'towers'}").double().eval()
        assert apart(text, theirs.encode_text(ids)) < CLOSE
        assert apart(image, theirs.encode_image(frames.double())) < CLOSE
        for kind, folder in out.items():
            import_checkpoint.run(str(folder / "towers"), str(tmp_path / f"{kind} back"), ImportSettings())
            back = load_model(tmp_path / f"{kind} back")
            state = back.clip.state_dict()
            assert all(torch.equal(state[key].double(), one) for key, one in ours.clip.state_dict().items()), kind
            assert preprocess_of(back.clip)["mean"] == preprocess_of(ours.clip)["mean"]
            for found, expected in zip(features(back.double(), frames, ids), (image, text), strict=True):
                assert apart(found, expected) < CLOSE
