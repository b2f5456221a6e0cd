"""TDB, the temporal difference block of CLIP2Video: between two frames goes a token of what changed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from stillreel.configs.model import ModelSettings
from stillreel.pretrain.model.adapter import Towers
from stillreel.pretrain.model.features import Frames
from stillreel.pretrain.model.temporal.seq import SequenceTransformer, new_block


class Tokens(NamedTuple):
    """Frames and differences f_0 d_0 f_1 d_1 ... f_(T-1), and what is added to them."""

    values: Tensor  # (B, 2T - 1, E)
    positions: Tensor  # (2T - 1, E): a difference has the position of the frame before it
    types: Tensor  # (2T - 1, E): row 1 for frames, row 0 for differences
    mask: Tensor  # (B, 2T - 1) bool

    def sum(self) -> Tensor:
        return self.values + self.positions + self.types


class TemporalDifference(SequenceTransformer):
    """`SequenceTransformer` over frames and their differences; the frames' outputs are added to the frames.

    Fang et al., CLIP2Video (arXiv 2106.11097). Differences are projected into [-1, 1] by a block of attention, by a matrix,
    or taken plain. A difference is valid where both of its frames are; the published code takes it for valid with the first
    one, so that the first padding frame leaks into the score (`faithful`).
    """

    def __init__(self, settings: ModelSettings, clip: Towers) -> None:
        super().__init__(settings, clip)
        width = self.positions.shape[1]
        self.types = nn.Parameter(torch.zeros(2, width))
        self.leaky = settings.faithful != "no"
        self.difference = nn.ModuleList([new_block(settings, clip)] if settings.difference == "attention" else [])
        self.projection = nn.Parameter(torch.zeros(width, width)) if settings.difference == "mlp" else None
        self.norm = None if settings.difference == "plain" else nn.LayerNorm(width)

    def forward(self, frames: Frames) -> Tensor:
        tokens = self.expand(frames.features, frames.mask)
        return self.attend(self.blocks, tokens.sum(), tokens.mask)[:, ::2] + frames.features

    def expand(self, features: Tensor, mask: Tensor) -> Tokens:
        """Frames (B, T, E) and mask (B, T) -> 2T - 1 tokens."""
        positions = self.first_positions(features.shape[1])
        both = mask[:, :-1] & mask[:, 1:]
        differences = self._differences(features, positions, mask[:, 1:] if self.leaky else both)
        frame_type, difference_type = self.types[1].expand_as(positions), self.types[0].expand_as(positions[1:])
        return Tokens(
            _interleave(features, differences),
            _interleave(positions[None], positions[None, :-1])[0],
            _interleave(frame_type[None], difference_type[None])[0],
            _interleave(mask, mask[:, :-1] if self.leaky else both),
        )

    def _differences(self, features: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B, T - 1, E), in [-1, 1] unless plain."""
        differences = features[:, 1:] - features[:, :-1]
        if self.norm is None or differences.shape[1] == 0:
            return differences
        if self.projection is not None:
            projected = differences @ self.projection
        else:
            projected = self.attend(self.difference, differences + positions[1:], mask)
        normed: Tensor = self.norm(projected)
        return 2 * normed.sigmoid() - 1


def _interleave(outer: Tensor, inner: Tensor) -> Tensor:
    """Along axis 1: o_0 i_0 o_1 i_1 ... o_(T-1)."""
    pairs = torch.stack([outer[:, :-1], inner], dim=2).flatten(1, 2)
    return torch.cat([pairs, outer[:, -1:]], dim=1)
