"""How a fresh model starts: from CLIP, as published.

A random start is as published too where CLIP has nothing to give: N(0, 0.02) for linear layers of CLIP4Clip and CLIP2Video,
torch's own for the LSTM and for STAN's layers in time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from stillreel.configs import RequestError
from stillreel.configs.model import ModelSettings
from stillreel.pretrain.model.blocks import Block
from stillreel.pretrain.model.heads import Tight
from stillreel.pretrain.model.model import VideoTextModel
from stillreel.pretrain.model.pretrained import load_towers
from stillreel.pretrain.model.temporal import SequenceTransformer, Stan, TemporalAlignment, TemporalDifference
from stillreel.pretrain.model.temporal.stan import AttentionInTime, StanLayer

_STD = 0.02


def build_model(settings: ModelSettings) -> VideoTextModel:
    """A model of the zoo on the towers that the settings name, initialized from them, on the CPU."""
    model = VideoTextModel(load_towers(settings.towers), settings)
    initialize(model)
    return model


def initialize(model: VideoTextModel) -> None:
    """Fill all that is not CLIP's own. RequestError where CLIP's text tower has another width than the joint space."""
    with torch.no_grad():
        _fill(model)


def _fill(model: VideoTextModel) -> None:
    clip, temporal = model.clip, model.temporal
    if model.settings.temperature:
        clip.logit_scale.fill_(math.log(1 / model.settings.temperature))
    if model.patches is not None:
        # The frame's own kernel in the middle, nothing before and after: 3-D patches start as the 2-D ones.
        model.patches.conv.weight.zero_()[:, :, 1] = clip.visual.conv1.weight
    if isinstance(temporal, SequenceTransformer):
        _from_text_tower(temporal.blocks, temporal.positions, clip)
    if isinstance(temporal, TemporalDifference):
        _difference(temporal, clip)
    if isinstance(temporal, Stan):
        _stan(temporal)
    if model.align is not None:
        _centers(model.align, clip)
    if isinstance(model.head, Tight):
        _from_text_tower(model.head.blocks, model.head.positions, clip)
        _normal(model.head.dense)
        _normal(model.head.score)
    if model.reranker is not None:
        _from_text_tower(model.reranker.blocks, model.reranker.positions, clip)
        nn.init.normal_(model.reranker.types, std=_STD)
        _normal(model.reranker.score)


def _from_text_tower(blocks: nn.ModuleList, positions: Tensor | None, clip: CLIP) -> None:
    """Blocks from the text tower's first ones, as far as it has them, and positions from its own."""
    width, joint = clip.transformer.width, clip.text_projection.shape[1]
    if width != joint:
        raise RequestError(
            f"blocks over frames start from the text tower's, which is {width} wide; the joint space is {joint} wide"
        )
    sources: Sequence[nn.Module] = list(clip.transformer.resblocks)
    for index, block in enumerate(blocks):
        assert isinstance(block, Block)
        if index < len(sources):
            block.load_state_dict(sources[index].state_dict())
        else:
            for part in block.modules():
                if isinstance(part, nn.Linear):  # attn.out_proj, mlp.c_fc, mlp.c_proj
                    _normal(part)
    if positions is not None:
        positions.copy_(clip.positional_embedding)


def _difference(temporal: TemporalDifference, clip: CLIP) -> None:
    temporal.types.copy_(clip.positional_embedding[:2])
    _from_text_tower(temporal.difference, None, clip)
    if temporal.projection is not None:
        rows, joint = clip.visual.proj.shape
        if rows < joint:
            raise RequestError(f"difference=mlp starts from {joint} rows of the image projection, which has {rows}")
        temporal.projection.copy_(clip.visual.proj[:joint])


def _centers(align: TemporalAlignment, clip: CLIP) -> None:
    for centers in (align.near, align.centres):
        nn.init.normal_(centers, std=64**-0.5)
    _from_text_tower(align.slow, None, clip)


def _stan(temporal: Stan) -> None:
    """The layers in space are copies of the tower's since they were built; those in time add nothing at first."""
    nn.init.normal_(temporal.time_embedding)  # as published: large beside CLIP's embeddings
    for layer in temporal.layers:
        assert isinstance(layer, StanLayer)
        nn.init.zeros_(layer.time.fc.weight)
        nn.init.zeros_(layer.time.fc.bias)
        if isinstance(layer.time, AttentionInTime):
            attn = layer.time.attn
            bound = attn.out_proj.in_features**-0.5
            nn.init.uniform_(attn.in_proj_weight, -bound, bound)
            nn.init.uniform_(attn.in_proj_bias, -bound, bound)


def _normal(linear: nn.Linear) -> None:
    nn.init.normal_(linear.weight, std=_STD)
    nn.init.zeros_(linear.bias)
