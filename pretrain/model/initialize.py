"""How a fresh model starts: from CLIP, as published.

A random start is as published too where CLIP has nothing to give: N(0, 0.02) for linear layers of CLIP4Clip and CLIP2Video,
torch's own for the LSTM and for STAN's layers in time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stillreel.configs import RequestError
from stillreel.configs.model import ModelSettings
from stillreel.pretrain.model.adapter import Towers, joint_width, text_of
from stillreel.pretrain.model.blocks import Block
from stillreel.pretrain.model.heads import Tight
from stillreel.pretrain.model.model import VideoTextModel
from stillreel.pretrain.model.pretrained import load_towers
from stillreel.pretrain.model.temporal import SequenceTransformer, Stan, TemporalAlignment, TemporalDifference
from stillreel.pretrain.model.temporal.stan import AttentionInTime, StanLayer

_STD = 0.02
_POSITIONS_STD = 0.01  # as open_clip draws its own


def build_model(settings: ModelSettings) -> VideoTextModel:
    """A model of the zoo on the towers that the settings name, initialized from them, on the CPU."""
    model = VideoTextModel(load_towers(settings.towers), settings)
    initialize(model)
    return model


def initialize(model: VideoTextModel) -> None:
    """Fill all that is not CLIP's own. RequestError where CLIP has not what it starts from."""
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


def _from_text_tower(blocks: nn.ModuleList, positions: Tensor | None, clip: Towers) -> None:
    """Blocks from the text tower's first ones, as far as it has them, and positions from its own.

    A text tower of another kind, or of another width than the joint space, has nothing to give: blocks are drawn then.
    """
    text, width = text_of(clip), joint_width(clip)
    transformer = getattr(text, "transformer", None)
    sources: Sequence[Any] = list(getattr(transformer, "resblocks", ()))
    for index, block in enumerate(blocks):
        assert isinstance(block, Block)
        if index < len(sources) and _is_like(sources[index], block):
            block.load_state_dict(sources[index].state_dict())
        else:
            for part in block.modules():
                if isinstance(part, nn.Linear):  # attn.out_proj, mlp.c_fc, mlp.c_proj
                    _normal(part)
    if positions is not None:
        table: Tensor | None = getattr(text, "positional_embedding", None)
        rows = min(len(table), len(positions)) if table is not None and table.shape[1] == width else 0
        if table is not None and rows:
            positions[:rows] = table[:rows]
        if rows < len(positions):  # and not a draw more: a fresh model of old is the same to the bit
            nn.init.normal_(positions[rows:], std=_POSITIONS_STD)


def _is_like(source: Any, block: Block) -> bool:
    """Whether a block of the text tower has the names, shapes and heads of one over frames."""
    theirs, ours = source.state_dict(), block.state_dict()
    return bool(
        theirs.keys() == ours.keys()
        and all(theirs[name].shape == ours[name].shape for name in ours)
        and source.attn.num_heads == block.attn.heads
    )


def _difference(temporal: TemporalDifference, clip: Towers) -> None:
    _from_text_tower(nn.ModuleList(), temporal.types, clip)
    _from_text_tower(temporal.difference, None, clip)
    if temporal.projection is not None:
        joint, proj = joint_width(clip), getattr(clip.visual, "proj", None)
        if not isinstance(proj, Tensor) or len(proj) < joint:
            raise RequestError(
                f"difference=mlp starts from {joint} rows of the image projection, which has "
                f"{'none' if proj is None else len(proj)}; choose difference=attention"
            )
        temporal.projection.copy_(proj[:joint])


def _centers(align: TemporalAlignment, clip: Towers) -> None:
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
