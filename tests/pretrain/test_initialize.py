"""A fresh model starts as the published ones do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stillreel.configs.model import ModelSettings
from stillreel.pretrain.model import VideoTextModel, build_model
from stillreel.pretrain.model.initialize import initialize
from stillreel.pretrain.model.peers import FAMILIES
from stillreel.pretrain.model.towers import TowerConfig, build_towers
from tests.making import SHARED, needs_shared
from tests.parity import Reference
from tests.pretrain.zoo import ZOO, inputs, tiny

REPORTED = [
    *("clip4clip_seqTransf", "clip4clip_seqLSTM", "clip4clip_tightTransf", "clip4clip_meanP_3d"),
    *("stan_retrieval", "stan_conv_retrieval", "mugstan_retrieval"),
]


def fresh(reference: Reference) -> dict[str, Tensor]:
    """The tensors, by their published names, of a fresh model on the reference's towers."""
    read = reference.load("no")
    torch.manual_seed(3)
    model = VideoTextModel(read.clip, read.settings)
    initialize(model)
    place = FAMILIES[reference.family].place
    return {
        theirs: part
        for name, tensor in model.state_dict().items()
        for theirs, part in place(name).split(tensor).items()
    }


@needs_shared
@pytest.mark.parametrize("family", REPORTED)
def test_every_tensor_starts_as_the_published_report_says(family: str) -> None:
    reference = Reference(SHARED / "reference" / family / "open.npz")
    tensors, report = fresh(reference), reference.about["init"]
    assert report
    for name, origin in report.items():
        if name not in tensors:
            continue  # the published model has it and never uses it
        if copied := re.fullmatch(r"copied from (\S+)", origin):
            source = copied[1] if copied[1] in tensors else f"clip.{copied[1]}"
            assert torch.equal(tensors[name], tensors[source]), name
        else:
            drawn = re.search(r"fresh \(?mean (\S+) std ([^\s)]+)", origin)
            assert drawn, origin
            mean, std = float(drawn[1]), float(drawn[2])
            ours = tensors[name]
            assert ours.std(unbiased=False).item() == pytest.approx(std, rel=0.25, abs=2e-3), name
            assert ours.mean().item() == pytest.approx(mean, abs=5 * std / ours.numel() ** 0.5 + 1e-3), name


def test_blocks_positions_and_types_come_from_the_text_tower() -> None:
    model = tiny("clip2video")
    text = model.clip.transformer.resblocks
    for blocks in (model.temporal.blocks, model.temporal.difference, model.align.slow):
        for block, source in zip(blocks, text, strict=False):
            for name, tensor in block.state_dict().items():
                assert torch.equal(tensor, source.state_dict()[name]), name
    assert torch.equal(model.temporal.positions, model.clip.positional_embedding)
    assert torch.equal(model.temporal.types, model.clip.positional_embedding[:2])
    assert model.align.centres.std().item() == pytest.approx(0.125, rel=0.2)
    mlp = tiny("tdb, mlp")
    assert torch.equal(mlp.temporal.projection, mlp.clip.visual.proj[:64])


def test_blocks_beyond_the_text_towers_stay_drawn() -> None:
    model = tiny("seq", layers=6)
    assert len(model.temporal.blocks) == 6
    assert model.temporal.blocks[5].mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_3d_patches_start_as_the_2d_ones() -> None:
    volume, plane, given = tiny("3d"), tiny("mean"), inputs()
    assert torch.allclose(volume.score(*given), plane.score(*given), atol=1e-5)


def test_stans_layers_in_space_are_the_towers_last_and_those_in_time_add_nothing() -> None:
    model = tiny("stan")
    for layer, block in zip(model.temporal.layers, model.clip.visual.transformer.resblocks, strict=True):
        for name, tensor in layer.space.state_dict().items():
            assert torch.equal(tensor, block.state_dict()[name]), name
        patches = torch.randn(2, 3, 16, 64)
        assert torch.equal(layer.time(patches, torch.ones(2, 3, dtype=torch.bool), None), patches)


def test_a_fixed_temperature_is_kept_in_the_towers_scale() -> None:
    model = tiny("stan", temperature=0.02)
    assert model.clip.logit_scale.exp().item() == pytest.approx(50)
    assert not model.clip.logit_scale.requires_grad


def test_a_text_tower_of_another_width_gives_blocks_over_frames_nothing() -> None:
    towers = build_towers(TowerConfig(32, 32, 16, 64, 1, 64, 1, 20, 600).model_cfg())
    model = VideoTextModel(towers, ModelSettings(temporal="seq"))
    initialize(model)
    assert model.temporal.blocks[0].mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.temporal.positions.std().item() == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("kind", sorted(ZOO))
def test_the_same_seed_makes_the_same_model(kind: str, tmp_path: Path) -> None:
    first, second = tiny(kind).state_dict(), tiny(kind).state_dict()
    assert all(torch.equal(first[name], second[name]) and first[name].isfinite().all() for name in first)


def test_build_model_takes_settings_alone() -> None:
    model = build_model(ModelSettings.resolve({"towers": {"name": "tiny"}, "temporal": "seq"}))
    assert model.score(*inputs()).shape == (3, 3)
