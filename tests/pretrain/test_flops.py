"""The analytic cost of a model equals what torch's counter counts on its modules, part by part."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stillreel.configs.model import ModelSettings
from stillreel.configs.settings import load_preset, preset_names
from stillreel.pretrain.model.flops import clip_flops
from stillreel.pretrain.model.pretrained import named_cfg
from stillreel.pretrain.model.towers import TINY, build_towers
from tests.pretrain.zoo import RERANKERS, ZOO, inputs, shaken

FRAMES, WORDS = 5, 9
# torch says so wherever its oneDNN flags are set.
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")


@pytest.fixture(autouse=True)
def _countable() -> Iterator[None]:
    """What the counter cannot see is spelt out: fused attention of old torch, open_clip's fast path, oneDNN's LSTM."""
    torch.backends.mha.set_fastpath_enabled(False)
    with sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
        yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize(
    ("kind", "more"),
    [*((kind, {}) for kind in ZOO), *(("clip2video", {"difference": one}) for one in ("mlp", "plain"))],
)
def test_the_formula_is_what_the_counter_counts(kind: str, more: dict[str, str]) -> None:
    model = shaken(kind, **more)
    seen, _, ids, _ = inputs(clips=1, frames=FRAMES, words=WORDS)
    expected = clip_flops(model.settings, TINY.model_cfg(), FRAMES, WORDS)
    with FlopCounterMode(display=False) as image:
        model.encode_frames(seen)
    assert image.get_total_flops() == expected.image
    with FlopCounterMode(display=False) as features:
        video, text = model.encode_video(seen), model.encode_text(ids)
    assert features.get_total_flops() == expected.image + expected.temporal + expected.text
    with FlopCounterMode(display=False) as head:
        model.similarity(video, text)
    assert head.get_total_flops() == expected.head


@pytest.mark.parametrize("kind", RERANKERS)
def test_a_pair_costs_the_re_ranker_what_the_counter_counts(kind: str) -> None:
    model = shaken(kind)
    seen, _, ids, _ = inputs(clips=1, frames=FRAMES, words=WORDS)
    expected = clip_flops(model.settings, TINY.model_cfg(), FRAMES, WORDS)
    with FlopCounterMode(display=False) as image:
        model.encode_frames(seen)
    assert image.get_total_flops() == expected.image
    video, text = model.encode_video(seen), model.encode_text(ids)
    with FlopCounterMode(display=False) as pair:
        model.rerank(video, text)
    assert pair.get_total_flops() == expected.rerank


@pytest.mark.parametrize("kind", ZOO)
def test_forward_and_backward_within_one_percent(kind: str) -> None:
    model = shaken(kind)
    seen, _, ids, _ = inputs(clips=1, frames=FRAMES, words=WORDS)
    with FlopCounterMode(display=False) as counter:
        model(seen, None, ids, None).sum().backward()
    model.zero_grad()
    expected = clip_flops(model.settings, TINY.model_cfg(), FRAMES, WORDS).training
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("kind", ["mean", "3d", "seq", "stan"])
def test_patches_that_are_left_out_cost_only_their_embedding(kind: str) -> None:
    model = copy.deepcopy(shaken(kind)).train()
    model.drop_patches(0.5)
    seen, _, _, _ = inputs(clips=1, frames=FRAMES)
    expected = clip_flops(model.settings, TINY.model_cfg(), FRAMES, 1, patch_dropout=0.5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.temporal(model.encode_frames(seen))
    assert counter.get_total_flops() == expected.image + expected.temporal
    with FlopCounterMode(display=False) as image, torch.no_grad():
        model.encode_frames(seen)
    assert image.get_total_flops() == expected.image < clip_flops(model.settings, TINY.model_cfg(), FRAMES, 1).image


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-g-14"])
def test_image_towers_of_real_size(name: str) -> None:
    """On torch's meta device. The hidden width of ViT-g is no multiple of its width, and its heads are wider than 64."""
    cfg = named_cfg(name)
    with torch.device("meta"):
        clip = build_towers(cfg)
        frames = torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        clip.encode_image(frames)
    assert counter.get_total_flops() == clip_flops(ModelSettings(), cfg, frames=1, words=77).image


def test_the_anchors_of_one_clip() -> None:
    """Twelve frames of 224 pixels and 32 words on B/32 and B/16, forward and backward, as counted elsewhere: 322 and 1,269 GF."""
    for name, gflops in (("ViT-B-32", 322.0), ("ViT-B-16", 1269.1)):
        flops = clip_flops(ModelSettings(), named_cfg(name), frames=12, words=32)
        assert flops.training / 1e9 == pytest.approx(gflops, rel=0.001)


@pytest.mark.parametrize("preset", preset_names("model"))
def test_every_preset_resolves_and_costs(preset: str) -> None:
    settings = ModelSettings.resolve(load_preset(preset, "model"))
    flops = clip_flops(settings, named_cfg(settings.towers.name), 12, 32)
    assert 2.5 < flops.training / flops.forward < 3
