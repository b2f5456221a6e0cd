"""A transformer over the frames: CLIP4Clip's `seqTransf`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillreel.configs import RequestError
from stillreel.configs.model import ModelSettings
from stillreel.pretrain.model.adapter import Towers, joint_width, most_tokens
from stillreel.pretrain.model.blocks import Block, key_bias
from stillreel.pretrain.model.features import Frames
from stillreel.pretrain.model.towers import activation_of, heads_of


class SequenceTransformer(nn.Module):
    """Frames plus positions through blocks like those of the text tower, added to the frames.

    Luo et al., CLIP4Clip (arXiv 2104.08860). `positions` has as many rows as the text tower's.
    """

    depth = 0

    def __init__(self, settings: ModelSettings, clip: Towers) -> None:
        super().__init__()
        longest, width = most_tokens(clip), joint_width(clip)
        self.positions = nn.Parameter(torch.zeros(longest, width))
        self.blocks = nn.ModuleList(new_block(settings, clip) for _ in range(settings.layers))
        self.mixed_up = settings.faithful == "peer"

    def forward(self, frames: Frames) -> Tensor:
        tokens = frames.features + self.first_positions(frames.features.shape[1])
        return self.attend(self.blocks, tokens, frames.mask) + frames.features

    def first_positions(self, count: int) -> Tensor:
        """Positions (count, E). RequestError for a clip that is longer than their table."""
        if count > len(self.positions):
            raise RequestError(f"a clip of {count} frames is too long: this model has {len(self.positions)} positions")
        return self.positions[:count]

    def attend(self, blocks: nn.ModuleList, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B, L, E) through blocks that see those where mask (B, L) is True."""
        bias = key_bias(mask, heads_of(tokens.shape[-1]), mixed_up=self.mixed_up)
        for block in blocks:
            tokens = block(tokens, bias)
        return tokens


def new_block(settings: ModelSettings, clip: Towers) -> Block:
    """A block of the joint width, with the text tower's activation."""
    width = joint_width(clip)
    return Block(width, heads_of(width), activation_of(clip), settings.norm_eps)
