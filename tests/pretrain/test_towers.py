"""The towers are open_clip's own, of the right architecture, activation and weights."""

from __future__ import annotations

import copy
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from stillreel.configs import DataError, RequestError
from stillreel.configs.model import ModelSettings, TowerSettings
from stillreel.configs.system.storage import Folder
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.checkpoint import save_model
from stillreel.pretrain.model.pretrained import load_towers
from stillreel.pretrain.model.towers import (
    TINY,
    CausalAttention,
    PackedAttention,
    activation_of,
    build_towers,
    causal_mask,
    infer_tower,
    model_cfg_of,
)
from tests.pretrain.zoo import shaken

SMALL = TINY.__class__(32, 48, 16, 128, 2, 64, 3, 12, 300)


def named(name: str) -> open_clip.model.CLIP:
    with torch.device("meta"):
        return build_towers(open_clip.get_model_config(name))


SUPPORTED = [
    name
    for name in open_clip.list_models()
    if name.startswith("ViT-") and not any(other in name for other in ("SigLIP", "CLIPA", "worldwide"))
]


USUAL = {"ViT-B-32", "ViT-B-16-quickgelu", "ViT-L-14", "ViT-g-14", "ViT-M-16-alt"}


@pytest.mark.parametrize(
    "name", [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in SUPPORTED]
)
def test_every_vit_of_openais_architecture_can_be_a_tower(name: str) -> None:
    clip = named(name)
    assert (activation_of(clip) is QuickGELU) == name.endswith("-quickgelu")
    with torch.device("meta"):
        rebuilt = build_towers(model_cfg_of(clip))
        model = VideoTextModel(clip, ModelSettings.resolve({"temporal": "stan", "head": "mug"}))
    shapes = {key: tensor.shape for key, tensor in clip.state_dict().items()}
    assert {key: tensor.shape for key, tensor in rebuilt.state_dict().items()} == shapes
    assert rebuilt.transformer.resblocks[0].attn.num_heads == clip.transformer.resblocks[0].attn.num_heads
    scores = model(
        torch.empty(2, 3, 3, *clip.visual.image_size, device="meta"),
        None,
        torch.ones(4, 32, dtype=torch.long, device="meta"),
        None,
    )
    assert scores.shape == (4, 2)


def test_there_are_more_than_thirty_of_them() -> None:
    assert len(SUPPORTED) > 30 and {"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336-quickgelu"} <= set(SUPPORTED)


@pytest.mark.parametrize("config", [TINY, SMALL])
def test_sizes_are_inferred_from_tensors(config: object) -> None:
    assert infer_tower(build_towers(config.model_cfg()).state_dict()) == config  # type: ignore[attr-defined]


def test_one_wrong_tensor_does_not_mislead_the_others() -> None:
    state = build_towers(SMALL.model_cfg()).state_dict()
    state["visual.class_embedding"] = torch.zeros(999)
    assert infer_tower(state) == SMALL


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "ViT-B-33"}, r"towers\.name=ViT-B-33.*open_clip knows no such model; the nearest are ViT-B-32"),
        ({"name": "ViT-B-32", "pretrained": "opena"}, r"opena is neither a file nor one of its tags, openai, "),
        ({"name": "tiny", "pretrained": "openai"}, r"neither a file nor a tag: it has none"),
    ],
)
def test_towers_that_cannot_be_are_refused(settings: dict[str, str], expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        load_towers(TowerSettings.resolve(settings))


def test_weights_of_a_file_must_fit_the_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    towers = build_towers(TINY.model_cfg())
    torch.save(towers.state_dict(), tmp_path / "towers.pt")
    loaded = load_towers(TowerSettings(name="tiny", pretrained=str(tmp_path / "towers.pt")))
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in towers.state_dict().items())
    torch.save(build_towers(SMALL.model_cfg()).state_dict(), tmp_path / "small.pt")
    with pytest.raises(DataError, match=r"visual\.class_embedding is \(128,\), expected \(64,\)"):
        load_towers(TowerSettings(name="tiny", pretrained=str(tmp_path / "small.pt")))


def test_a_file_of_openai_brings_its_quickgelu(tmp_path: Path) -> None:
    state = build_towers(TINY.model_cfg()).state_dict() | {"input_resolution": torch.tensor(64)}
    torch.save(state, tmp_path / "openai.pt")
    loaded = load_towers(TowerSettings(name="tiny", pretrained=str(tmp_path / "openai.pt")))
    assert activation_of(loaded) is QuickGELU


def test_a_model_of_ours_gives_its_towers_to_one_with_another_module(tmp_path: Path) -> None:
    model = shaken("seq")
    save_model(model, Folder(str(tmp_path / "ours")), {})
    towers = TowerSettings(name="tiny", pretrained=str(tmp_path / "ours"))
    clip = load_towers(towers)
    assert clip.state_dict().keys() == model.clip.state_dict().keys()
    assert all(torch.equal(one, model.clip.state_dict()[name]) for name, one in clip.state_dict().items())
    with pytest.raises(DataError, match=r"towers\.name=ViT-B-32.*visual"):
        load_towers(TowerSettings(name="ViT-B-32", pretrained=str(tmp_path / "ours")))


class Copies(TorchDispatchMode):
    """The shapes of tensors that are copied within it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.overloadpacket.__name__ in ("clone", "copy_", "_to_copy"):
            self.found.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "length"), [(PackedAttention, 50), (CausalAttention, 32)])
def test_packed_attention_is_torchs_without_its_copies(kind: type[PackedAttention], length: int) -> None:
    """Training: outcomes and gradients in fp32 to a millionth. Evaluation: torch's own, to the bit."""
    torch.manual_seed(2)
    plain = nn.MultiheadAttention(128, 2, batch_first=True).train()
    nn.init.normal_(plain.in_proj_bias)
    packed = copy.deepcopy(plain)
    packed.__class__ = kind
    mask = causal_mask(length) if kind.causal else None
    tokens = torch.randn(6, length, 128)
    asked = torch.randn(6, length, 128)
    told, copies = [], []
    for attention in (plain, packed):
        given = tokens.clone().requires_grad_()
        with Copies() as counted:
            outcome = attention(given, given, given, need_weights=False, attn_mask=mask, is_causal=kind.causal)[0]
            outcome.backward(asked)
        told.append([outcome, given.grad, *(one.grad for one in attention.parameters())])
        copies.append([shape for shape in counted.found if len(shape) > 2])
    for one, right in zip(told[1], told[0], strict=True):
        assert (one - right).norm() < 1e-6 * right.norm()
    assert copies[0] and not copies[1], copies
    with torch.no_grad():
        ends = [one.eval()(tokens, tokens, tokens, need_weights=False, attn_mask=mask)[0] for one in (packed,)]
        ends.append(plain.eval()(tokens, tokens, tokens, need_weights=False, attn_mask=mask, is_causal=kind.causal)[0])
    assert torch.equal(*ends)
