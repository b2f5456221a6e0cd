"""State dicts as the published codes would save them, made of our own models."""

from __future__ import annotations

import torch
from torch import Tensor

from stillreel.configs.model import PUBLISHED_EPS
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.peers import FAMILIES
from stillreel.pretrain.model.towers import TINY
from tests.pretrain.zoo import shaken

# One published model of each kind: its family, and the model of the zoo that it is.
PUBLISHED: dict[str, tuple[str, str, dict[str, object]]] = {
    "CLIP4Clip meanP": ("clip4clip", "mean", {}),
    "CLIP4Clip 3d": ("clip4clip", "3d", {}),
    "CLIP4Clip seqLSTM": ("clip4clip", "lstm", {}),
    "CLIP4Clip seqTransf": ("clip4clip", "seq", {"eps": PUBLISHED_EPS}),
    "CLIP4Clip tightTransf": ("clip4clip", "tight", {"eps": PUBLISHED_EPS}),
    "CLIP2Video": ("clip2video", "clip2video", {"eps": PUBLISHED_EPS}),
    "STAN": ("stan", "stan", {"temperature": 0.01}),
    "STAN conv": ("stan", "stan, conv", {"temperature": 0.01, "pool": "plain"}),
}


def published(name: str) -> tuple[VideoTextModel, dict[str, Tensor]]:
    """A model with random weights, and its tensors by the family's names, those included that its code never uses."""
    family, kind, settings = PUBLISHED[name]
    model, named = shaken(kind, **settings), FAMILIES[family]
    state: dict[str, Tensor] = {}
    for ours, tensor in model.state_dict().items():
        state.update(named.place(ours).split(tensor))
    return model, state | {one: torch.ones(shape) for one, shape in named.unused(TINY, model.settings).items()}
