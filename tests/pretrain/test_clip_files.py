"""CLIP's checkpoints: each publisher's file makes the same towers, and a file that does not fit is refused by name."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor

from stillreel.configs import DataError, RequestError, StillreelError
from stillreel.pretrain.model.adapter import plain_cfg, preprocess_named
from stillreel.pretrain.model.clip_files import hub_config, hub_state, read_clip
from stillreel.pretrain.model.files import Checkpoint, read_checkpoint
from stillreel.pretrain.model.towers import TowerConfig, build_towers, model_cfg_of
from tests.making import SHARED, needs_shared
from tests.pretrain import containers

SIZES = TowerConfig(
    embed_dim=24,
    image_size=32,
    patch_size=8,
    vision_width=128,
    vision_layers=3,
    text_width=64,
    text_layers=2,
    context_length=12,
    vocab_size=90,
)


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(build_towers(SIZES.model_cfg()).state_dict())


def checkpoint(tensors: dict[str, Tensor], **config: object) -> Checkpoint:
    return Checkpoint(tensors, "safetensors", "", "", (), dict(config))


def assert_same(found: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("write", [containers.write_torchscript, containers.write_torch, containers.write_training])
def test_openai_and_open_clip_files_make_the_towers(write: object, state: dict[str, Tensor], tmp_path: Path) -> None:
    read = read_clip(read_checkpoint(write(tmp_path / "file", state)))  # type: ignore[operator]
    assert_same(read.state, state)
    # Only the archive of OpenAI says of itself that it has QuickGELU.
    assert read.model_cfg["quick_gelu"] == (write is containers.write_torchscript)
    assumed = [line.became for line in read.lines if line.what == "initialized"]
    assert assumed == ([] if write is containers.write_torchscript else ["quick_gelu"])
    assert sum(line.what == "kept" for line in read.lines) == len(state)
    build_towers(read.model_cfg).load_state_dict(read.state, strict=True)


def test_hub_names_there_and_back(state: dict[str, Tensor], tmp_path: Path) -> None:
    named = hub_state(state)
    named["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    folder = containers.write_sharded(tmp_path / "hub", named, hub_config(SIZES.model_cfg()))
    read = read_clip(read_checkpoint(folder))
    assert_same(read.state, state)
    assert read.model_cfg == model_cfg_of(build_towers(SIZES.model_cfg()))
    assert {line.given for line in read.lines if line.what == "unused"} == {"text_model.embeddings.position_ids"}
    assert sorted(line.given for line in read.lines) == sorted(named)  # each key of the file in one line of the report
    assert {line.became for line in read.lines} - {""} == state.keys()


def test_a_custom_text_tower_is_the_same_tower(state: dict[str, Tensor]) -> None:
    custom = {name if name.startswith(("visual.", "logit")) else f"text.{name}": one for name, one in state.items()}
    assert_same(read_clip(checkpoint(custom)).state, state)


def test_halves_are_read_as_floats(state: dict[str, Tensor]) -> None:
    read = read_clip(checkpoint({name: tensor.half() for name, tensor in state.items()}))
    assert_same(read.state, {name: tensor.half().float() for name, tensor in state.items()})


def test_openais_extras_are_unused_and_said(state: dict[str, Tensor]) -> None:
    extras = dict.fromkeys(("input_resolution", "context_length", "vocab_size", "attn_mask"), torch.tensor(1))
    read = read_clip(checkpoint(state | extras))
    assert {line.given for line in read.lines if line.what == "unused"} == extras.keys()
    assert read.model_cfg["quick_gelu"] is True


def test_what_lies_beside_the_file_tells_heads_and_activation(state: dict[str, Tensor]) -> None:
    hub = {"vision_config": {"num_attention_heads": 4, "hidden_act": "gelu"}, "text_config": {"hidden_act": "gelu"}}
    read = read_clip(checkpoint(hub_state(state), **hub))
    cfg = read.model_cfg
    assert (cfg["vision_cfg"]["head_width"], cfg["text_cfg"]["heads"], cfg["quick_gelu"]) == (32, 8, False)
    own = model_cfg_of(build_towers(SIZES.model_cfg()))
    own["vision_cfg"]["head_width"] = 16
    assert read_clip(checkpoint(state, model_cfg=own)).model_cfg == own
    assert read_clip(checkpoint(state, model_cfg=own), quick_gelu=False).model_cfg["quick_gelu"] is False


def test_heads_of_large_models_are_those_of_open_clips_list() -> None:
    with torch.device("meta"):
        clip = open_clip.create_model("ViT-H-14", device="meta")
    shapes = {name: torch.empty(tensor.shape, device="meta") for name, tensor in clip.state_dict().items()}
    assert read_clip(checkpoint(shapes)).model_cfg == model_cfg_of(clip)


@pytest.mark.parametrize(
    "name",
    [
        "RN101",
        "ViT-L-14-CLIPA",
        pytest.param("ViT-H-14-worldwide", marks=pytest.mark.long),
        pytest.param("ViT-B-16-SigLIP", marks=pytest.mark.slow),
    ],
)
def test_other_towers_are_told_by_their_tensors(name: str) -> None:
    """Named and shaped as open_clip's: of the same architecture, and behind the same pixels."""
    clip = open_clip.create_model(name, device="meta")
    read = read_clip(checkpoint(dict(clip.state_dict())))
    assert read.model_cfg == plain_cfg(open_clip.get_model_config(name))
    assert read.preprocess == preprocess_named(name)
    assert {line.given for line in read.lines} - {""} == clip.state_dict().keys()


def test_tensors_of_several_towers_are_not_guessed_at() -> None:
    clip = open_clip.create_model("convnext_base_w", device="meta")
    with pytest.raises(
        RequestError, match=r"those of convnext_base_w and convnext_base_w_320, .*give import-checkpoint one name"
    ):
        read_clip(checkpoint(dict(clip.state_dict())))
    named = read_clip(
        checkpoint(dict(clip.state_dict())), model_cfg=plain_cfg(open_clip.get_model_config("convnext_base_w"))
    )
    assert named.model_cfg["vision_cfg"]["image_size"] == 256


def test_a_captioner_is_no_tower() -> None:
    clip = open_clip.create_model("coca_ViT-B-32", device="meta")
    read = read_clip(checkpoint(dict(clip.state_dict())))
    unused = {line.given for line in read.lines if line.what == "unused"}
    assert unused == {name for name in clip.state_dict() if name.startswith("text_decoder.")}
    assert not any(name.startswith("text_decoder.") for name in read.state)


def test_missing_extra_and_misshapen_tensors_are_named(state: dict[str, Tensor]) -> None:
    del state["visual.transformer.resblocks.1.ln_1.bias"]
    state["visual.transformer.resblocks.0.mlp.c_fc.bias"] = torch.zeros(7)
    state["visual.trunk.weight"] = torch.zeros(1)
    with pytest.raises(DataError) as error:
        read_clip(checkpoint(state))
    for part in (
        "1 missing: visual.transformer.resblocks.1.ln_1.bias",
        "1 unexpected: visual.trunk.weight",
        "visual.transformer.resblocks.0.mlp.c_fc.bias is (7,), expected (512,)",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vision_config": {"num_attention_heads": 0}}, "describes no CLIP"),
        ({"vision_config": {"num_attention_heads": "two"}}, "describes no CLIP"),
        ({"vision_config": {"num_attention_heads": 3}}, "makes no CLIP"),
        ({"vision_config": {"hidden_act": "relu"}}, "relu"),
        ({"vision_config": 7}, "describes no CLIP"),
        ({"model_cfg": []}, "describes no CLIP"),
    ],
)
def test_a_wrong_configuration_beside_the_file_is_said(
    config: dict[str, object], message: str, state: dict[str, Tensor]
) -> None:
    with pytest.raises(StillreelError, match=message):
        read_clip(checkpoint(hub_state(state), **config))


def test_a_block_number_that_nobody_could_build_is_refused(state: dict[str, Tensor]) -> None:
    state["transformer.resblocks.400000000.ln_1.weight"] = torch.zeros(64)
    with pytest.raises(DataError, match="only 75 tensors"):
        read_clip(checkpoint(state))


def test_missing_and_extra_tensors_of_the_hub_are_named_as_the_file_names_them(state: dict[str, Tensor]) -> None:
    named = hub_state(state)
    del named["text_model.encoder.layers.1.self_attn.k_proj.weight"]
    named["vision_model.head.weight"] = torch.zeros(1)
    with pytest.raises(DataError, match=r"layers\.1\.self_attn\.k_proj\.weight; 1 unexpected: vision_model\.head"):
        read_clip(checkpoint(named))


@needs_shared
@pytest.mark.parametrize("model", ["clip4clip_meanP_vitb32", "stan_vitb32"])
def test_names_are_those_of_the_published_codes(model: str) -> None:
    """CLIP4Clip's trunk is OpenAI's CLIP; STAN's is transformers' CLIP by a shorter path."""
    names = [line.split("\t")[0] for line in (SHARED / "reference/keys" / f"{model}.txt").read_text().splitlines()]
    with torch.device("meta"):
        clip = open_clip.create_model("ViT-B-32", device="meta").state_dict()
    if model.startswith("clip4clip"):
        assert {name.removeprefix("clip.") for name in names} == set(clip)
        return
    ours = {name.replace("vision_model.encoder.", "backbone.") for name in hub_state(clip)} - {"logit_scale"}
    ours = {name.replace("vision_model.embeddings.", "backbone.") for name in ours}
    ours = {name.replace("vision_model.", "backbone.") for name in ours}
    ours = {f"text_backbone.{name}" if name.startswith("text") else name for name in ours}
    ours = {name.replace("visual_projection", "backbone.visual_projection") for name in ours}
    assert ours == {name for name in names if "STAN" not in name}
