"""Published checkpoints are read strictly: by name, by shape, and whatever their size."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stillreel.configs import DataError
from stillreel.configs.model import PUBLISHED_EPS, ModelSettings, PeerOptions
from stillreel.pretrain.model import VideoTextModel, load_peer, read_peer
from stillreel.pretrain.model.initialize import initialize
from stillreel.pretrain.model.peers import FAMILIES
from stillreel.pretrain.model.towers import TowerConfig, build_towers, infer_tower
from tests.making import SHARED, needs_shared
from tests.parity import Reference
from tests.pretrain.zoo import inputs, mask_of, shaken

KEYS = sorted((SHARED / "reference" / "keys").glob("*.txt"))
FOLDERS = sorted(path.parent for path in (SHARED / "reference").glob("*/open.npz"))

pytestmark = needs_shared


def weights(family: str) -> dict[str, Tensor]:
    return Reference(SHARED / "reference" / family / "open.npz").weights()


def real_size(path: Path) -> dict[str, Tensor]:
    """Meta tensors of a list `name<tab>shape<tab>dtype`."""
    state = {}
    for line in path.read_text().splitlines():
        name, shape, dtype = line.split("\t")
        sizes = [int(size) for size in re.findall(r"\d+", shape)]
        state[name] = torch.empty(sizes, dtype=getattr(torch, dtype), device="meta")
    return state


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "clip2video_msrvtt_msvd_vitb32": {
            "temporal": "tdb",
            "align": "slow_tdb",
            "layers": 4,
            "centers": 5,
            "patch": 32,
        },
        "clip2video_vatex_vitb32": {"temporal": "tdb", "align": "slow_tdb", "layers": 4, "centers": 7, "patch": 32},
        "clip4clip_meanP_3d_vitb32": {"temporal": "mean", "patches": "3d", "patch": 32},
        "clip4clip_meanP_vitb32": {"temporal": "mean", "patches": "2d", "patch": 32},
        "clip4clip_seqLSTM_vitb32": {"temporal": "lstm", "patch": 32},
        "clip4clip_seqTransf_vitb32": {"temporal": "seq", "layers": 4, "patch": 32},
        "clip4clip_tightTransf_vitb32": {"head": "tight", "layers": 4, "patch": 32},
        "mugstan_vitb32": {"temporal": "stan", "depth": 4, "patch": 32},
        "stan_vitb16": {"temporal": "stan", "depth": 4, "patch": 16},
        "stan_vitb32": {"temporal": "stan", "depth": 4, "patch": 32},
        "stan_vitl14": {"temporal": "stan", "depth": 4, "patch": 14},
    }.items(),
)
def test_a_checkpoint_of_real_size_makes_the_right_model(name: str, expected: dict[str, object]) -> None:
    state = real_size(SHARED / "reference" / "keys" / f"{name}.txt")
    model, lines = read_peer(state)
    settings, visual = model.settings, model.clip.visual
    found = {
        **settings.model_dump(),
        "centers": settings.tab.centers,
        "depth": settings.stan.depth,
        "patch": visual.patch_size[0],
    }
    assert {key: found[key] for key in expected} == expected
    assert {line.given for line in lines if line.given} == set(state), "a line for every tensor"
    assert visual.image_size == (224, 224)
    assert model.clip.context_length == 77 and model.clip.vocab_size == 49408
    loaded = sum(parameter.numel() for parameter in model.parameters())
    unused = sum(state[line.given].numel() for line in lines if line.what == "unused")
    temperature = int(settings.temperature > 0)  # STAN's is not in the file
    assert loaded + unused - temperature == sum(tensor.numel() for tensor in state.values())


def test_all_lists_of_keys_are_tried() -> None:
    assert len(KEYS) == 11


# Without these alone, a file is a whole checkpoint of a simpler model.
OPTIONAL = {"clip.visual.conv2.weight", "frame2t_projection", "type_position_embeddings.weight"}


@pytest.mark.long
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_any_missing_extra_or_misshapen_tensor_is_named(folder: Path) -> None:
    reference = Reference(folder / "open.npz")
    state, options = reference.weights(), reference.options("no")
    every = 1 if folder.name == "clip2video_full" else 12  # all tensors of one family, some of each of the others
    for name in list(state)[::every]:
        if name not in OPTIONAL:
            with pytest.raises(DataError, match=re.escape(name)):
                load_peer({other: tensor for other, tensor in state.items() if other != name}, options)
        with pytest.raises(DataError, match=re.escape(name)):
            load_peer(state | {name: state[name][None]}, options)
    with pytest.raises(DataError, match="1 unexpected: one_too_many"):
        load_peer(state | {"one_too_many": torch.zeros(2)}, options)


def test_what_the_file_cannot_tell_is_taken_from_the_options_and_reported() -> None:
    state = weights("clip2video_full")
    model, lines = read_peer(state)
    assert (model.settings.align, model.settings.tab.weight) == ("slow_tdb", 0.5)
    assert {"center_weight", "center_proj"} == {line.became for line in lines if line.what == "initialized"}
    model = load_peer(state, PeerOptions(center_proj="TAB", center_weight=0.25))
    assert (model.settings.align, model.settings.tab.weight) == ("slow", 0.25)
    model = load_peer(weights("stan_retrieval"), PeerOptions(temperature=0.02, head="mug", mug="frame_text"))
    assert (model.settings.temperature, model.settings.head, model.settings.mug) == (0.02, "mug", "frame_text")
    assert model.clip.logit_scale.exp().item() == pytest.approx(50)


def test_names_of_old_releases_and_wrappers_are_understood() -> None:
    state = weights("stan_retrieval")
    given = Reference(SHARED / "reference" / "stan_retrieval" / "open.npz")
    expected = given.scores(load_peer(state))
    width = len(state["backbone.class_embedding"])
    old = {f"module.{name}".replace("STAN_", "timesFPN_"): tensor for name, tensor in state.items()} | {
        "module.backbone.timesFPN_pos_embed": torch.zeros(17, width),
        "module.backbone.timesFPN_cls_token": torch.zeros(1, 1, width),
        "module.text_backbone.text_model.embeddings.position_ids": torch.arange(20)[None],
    }
    model, lines = read_peer(old)
    assert torch.equal(given.scores(model), expected)
    assert {line.given for line in lines if line.given} == set(old)
    with pytest.raises(DataError, match=r"twice"):
        load_peer(state | old)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_file_loads_as_its_tensors_do(suffix: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    reference = Reference(SHARED / "reference" / "clip4clip_seqTransf" / "open.npz")
    path = tmp_path / f"pytorch_model{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(reference.weights(), path)
    assert torch.equal(reference.scores(load_peer(path)), reference.scores(load_peer(reference.weights())))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=re.escape(str(path))):
        load_peer(path)


class Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.trace,)


def test_a_pickle_with_a_payload_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    state: dict[str, object] = {**weights("clip4clip_meanP"), "clip.extra": Payload(tmp_path / "trace")}
    torch.save(state, tmp_path / "evil.bin")
    with pytest.raises(DataError):
        load_peer(tmp_path / "evil.bin")
    assert not (tmp_path / "trace").exists()


def test_a_file_of_something_else_is_refused() -> None:
    with pytest.raises(DataError, match=r"no checkpoint of CLIP4Clip, CLIP2Video or STAN.*here are layer\.weight"):
        load_peer({"layer.weight": torch.zeros(2)})
    with pytest.raises(DataError, match=r"missing or without axes: clip\.visual\.conv1\.weight"):
        load_peer({"clip.visual.layer1.0.conv1.weight": torch.zeros(2)})


def test_the_callers_tensors_are_not_the_models() -> None:
    state = {name: tensor.float() for name, tensor in weights("clip4clip_meanP").items()}
    before = state["clip.visual.proj"].clone()
    model = load_peer(state)
    with torch.no_grad():
        model.clip.visual.proj.zero_()
    assert torch.equal(state["clip.visual.proj"], before)


def test_a_fresh_model_scores_like_one_read_from_its_tensors() -> None:
    """Nothing but tensors makes a model: buffers and settings are rebuilt the same."""
    model = shaken("seq", eps=PUBLISHED_EPS)
    names = {
        name.replace("temporal.positions", "frame_position_embeddings.weight").replace(
            "temporal.blocks.", "transformerClip.resblocks."
        ): tensor
        for name, tensor in model.state_dict().items()
    }
    assert torch.equal(load_peer(names).score(*inputs()), model.score(*inputs()))


OTHER_SIZES = {
    "clip4clip": [
        {"temporal": "seq", "layers": 1},
        {"temporal": "lstm"},
        {"head": "tight", "layers": 3},
        {"patches": "3d"},
    ],
    "clip2video": [
        {"temporal": "tdb", "align": "slow_tdb", "tab": {"centers": 3}},
        {"temporal": "tdb", "difference": "mlp"},
    ],
    "stan": [
        {"temporal": "stan", "stan": {"depth": 2, "frames": 9}, "pool": "plain", "temperature": 0.01},
        {"temporal": "stan", "stan": {"depth": 1, "time": "conv"}, "pool": "plain", "temperature": 0.01},
    ],
}


@pytest.mark.parametrize(("family", "chosen"), [(name, one) for name, all_ in OTHER_SIZES.items() for one in all_])
@pytest.mark.parametrize("clips", [1, 3])
def test_a_model_of_any_size_survives_its_published_names(family: str, chosen: dict[str, object], clips: int) -> None:
    """Widths of 2 and 3 heads, other depths, patches and contexts than any reference has; one clip, and some padding."""
    torch.manual_seed(5)
    towers = build_towers(TowerConfig(128, 24, 8, 192, 2, 128, 3, 11, 90).model_cfg())
    model = VideoTextModel(towers, ModelSettings.resolve({**chosen, "eps": PUBLISHED_EPS}))
    initialize(model)
    published = {
        theirs: part.contiguous()
        for name, tensor in model.state_dict().items()
        for theirs, part in FAMILIES[family].place(name).split(tensor).items()
    }
    published |= {
        name: torch.zeros(shape)
        for name, shape in FAMILIES[family].unused(infer_tower(towers.state_dict()), model.settings).items()
    }
    frames, mask = torch.randn(clips, 5, 3, 24, 24), mask_of([5, 2, 4][:clips], 5)
    ids = torch.tensor([[88, 3, 4, 89, 0, 0, 0], [88, 7, 89, 0, 0, 0, 0]])
    read = load_peer(published, PeerOptions.resolve({"family": family}))
    assert torch.allclose(read.score(frames, mask, ids, None), model.score(frames, mask, ids, None), atol=1e-6)
