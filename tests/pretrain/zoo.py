"""Small models of every kind, and clips and captions for them."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stillreel.pretrain.model import ModelSettings, VideoTextModel, build_model

ZOO: dict[str, dict[str, Any]] = {
    "mean": {},
    "mean, plain": {"pool": "plain", "temperature": 0.05},
    "3d": {"patches": "3d"},
    "seq": {"temporal": "seq"},
    "lstm": {"temporal": "lstm"},
    "tdb": {"temporal": "tdb"},
    "tdb, mlp": {"temporal": "tdb", "difference": "mlp"},
    "tdb, plain": {"temporal": "tdb", "difference": "plain"},
    "tab": {"align": "frames"},
    "tab, slow": {"temporal": "seq", "align": "slow"},
    "clip2video": {"temporal": "tdb", "align": "slow_tdb"},
    "stan": {"temporal": "stan", "pool": "plain", "temperature": 0.05},
    "stan, conv": {"temporal": "stan", "stan": {"time": "conv"}},
    "mug": {"temporal": "stan", "head": "mug", "temperature": 0.05},
    "mug, attended": {"head": "mug", "mug": "frame_token"},
    "mug, pooled": {"head": "mug", "mug": "frame_text"},
    "mug, weighted": {"head": "mug", "mug": "wti"},
    "tight": {"head": "tight"},
}
# With a re-ranker, which no published loss trains: apart from those that every test of a model goes through.
RERANKERS: dict[str, dict[str, Any]] = {
    "rerank": {"rerank": {"layers": 2}},
    "rerank, one layer": {"rerank": {"layers": 1}},
    "rerank, patches": {"temporal": "seq", "rerank": {"layers": 2, "grid": 2}},
    "rerank, clip2video": {**ZOO["clip2video"], "rerank": {"layers": 2}},
    "rerank, mug": {**ZOO["mug, weighted"], "rerank": {"layers": 2, "grid": 1}},
}
DROPPING: dict[str, dict[str, Any]] = {  # at rates that are felt in a few draws
    "stan, dropping": {**ZOO["stan"], "stan": {"drop_path": 0.5}},
    "stan, conv, dropping": {**ZOO["stan, conv"], "stan": {"time": "conv", "drop_path": 0.5}},
    "tight, dropping": {**ZOO["tight"], "tight": {"dropout": 0.3}},
}


def tiny(kind: str = "mean", **settings: Any) -> VideoTextModel:
    """A fresh model on tiny towers; the same for the same words."""
    torch.manual_seed(7)
    values = {"towers": {"name": "tiny"}, "layers": 2, **(ZOO | RERANKERS | DROPPING)[kind], **settings}
    return build_model(ModelSettings.resolve(values)).eval()


@cache
def shaken(kind: str, **settings: Any) -> VideoTextModel:
    """`tiny` with noise on all weights, so that nothing is zero or the identity, as fresh parts are. Shared: change none."""
    model = tiny(kind, **settings)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


class Inputs(NamedTuple):
    frames: Tensor
    frame_mask: Tensor | None
    token_ids: Tensor
    token_mask: Tensor | None


def inputs(clips: int = 3, frames: int = 5, words: int = 9, seed: int = 0) -> Inputs:
    """Random clips without padding, and captions of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    return Inputs(
        torch.randn(clips, frames, 3, 64, 64, generator=generator),
        None,
        captions([4 + row % (words - 3) for row in range(clips)], words, seed),
        None,
    )


def captions(lengths: list[int], words: int, seed: int = 0) -> Tensor:
    """Token ids (A, words) of captions with this many tokens, start and end included."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 49000, (len(lengths), words), generator=generator)
    for row, length in zip(ids, lengths, strict=True):
        row[0], row[length - 1], row[length:] = 49406, 49407, 0
    return ids


def mask_of(counts: list[int], width: int) -> Tensor:
    """(B, width): the first `count` of each row."""
    return torch.arange(width) < torch.tensor(counts)[:, None]
