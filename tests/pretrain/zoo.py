"""Small models of the zoo with random weights, and their state dicts by the names of the published codes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from configs.model import ModelSettings
from pretrain.model import VideoTextModel
from pretrain.model.peers import FAMILIES
from pretrain.model.towers import TowerConfig, build_towers

SIZES = TowerConfig(
    embed_dim=64,
    image_size=32,
    patch_size=16,
    vision_width=128,
    vision_layers=3,
    text_width=64,
    text_layers=2,
    context_length=20,
    vocab_size=90,
)

# One published model of each kind: its family, and what it is.
PUBLISHED: dict[str, tuple[str, dict[str, object]]] = {
    "CLIP4Clip meanP": ("clip4clip", {}),
    "CLIP4Clip 3d": ("clip4clip", {"patches": "3d"}),
    "CLIP4Clip seqLSTM": ("clip4clip", {"temporal": "lstm"}),
    "CLIP4Clip seqTransf": ("clip4clip", {"temporal": "seq", "layers": 2}),
    "CLIP4Clip tightTransf": ("clip4clip", {"head": "tight", "layers": 2}),
    "CLIP2Video": ("clip2video", {"temporal": "tdb", "align": "slow_tdb", "layers": 2}),
    "STAN": ("stan", {"temporal": "stan", "stan": {"depth": 2}, "pool": "plain", "tau": 0.01}),
    "STAN conv": ("stan", {"temporal": "stan", "stan": {"depth": 2, "time": "conv"}, "pool": "plain", "tau": 0.01}),
}


def random_model(settings: Mapping[str, object], sizes: TowerConfig = SIZES) -> VideoTextModel:
    """Every tensor drawn, those that a fresh model has at zero too."""
    torch.manual_seed(0)
    model = VideoTextModel(build_towers(sizes.model_cfg()), ModelSettings.resolve(settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.05)
        if model.settings.tau:
            model.clip.logit_scale.fill_(torch.tensor(1 / model.settings.tau).log())
    return model.eval()


def published_state(model: VideoTextModel, family: str, sizes: TowerConfig = SIZES) -> dict[str, Tensor]:
    """The model's tensors as the family's code would save them, the ones that it never uses included."""
    named = FAMILIES[family]
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        state.update(named.place(name).split(tensor))
    return state | {name: torch.ones(shape) for name, shape in named.unused(sizes, model.settings).items()}


def clips(count: int = 3, frames: int = 4, words: int = 9, sizes: TowerConfig = SIZES) -> tuple[Tensor, ...]:
    """Frames, their mask with padding, token ids that end, and their mask."""
    generator = torch.Generator().manual_seed(1)
    seen = torch.randn(count, frames, 3, sizes.image_size, sizes.image_size, generator=generator)
    mask = torch.arange(frames) < torch.arange(frames, frames - count, -1).clamp(min=1)[:, None]
    ids = torch.randint(1, sizes.vocab_size - 2, (count, words), generator=generator)
    lengths = torch.arange(words, words - count, -1).clamp(min=2)[:, None]
    places = torch.arange(words)
    ids = ids.masked_fill(places == lengths - 1, sizes.vocab_size - 1).masked_fill(places >= lengths, 0)
    return seen, mask, ids, places < lengths
