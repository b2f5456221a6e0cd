"""Every caption with every clip through blocks of their own: CLIP4Clip's `tightTransf`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillreel.configs import RequestError
from stillreel.configs.model import ModelSettings
from stillreel.pretrain.model.adapter import Towers, joint_width, most_tokens
from stillreel.pretrain.model.blocks import Block, key_bias
from stillreel.pretrain.model.dropout import Dropout, pair_draws
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures
from stillreel.pretrain.model.towers import activation_of, heads_of


class Tight(nn.Module):
    """Scores (A, B), one pass through the blocks for each pair of a caption's vector and a clip's frames.

    Luo et al., CLIP4Clip (arXiv 2104.08860), `tightTransf`: not cosines, so no temperature belongs to them.
    """

    scaled = False

    def __init__(self, settings: ModelSettings, clip: Towers) -> None:
        super().__init__()
        width, eps = joint_width(clip), settings.norm_eps
        self.heads = settings.tight.heads or heads_of(width)
        if width % self.heads:
            raise RequestError(f"tight.heads={self.heads} does not divide the joint width {width}")
        self.positions = nn.Parameter(torch.zeros(most_tokens(clip), width))
        self.dropout = Dropout(settings.tight.dropout)
        self.blocks = nn.ModuleList(Block(width, self.heads, activation_of(clip), eps) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dense = nn.Linear(width, width)
        self.activation = activation_of(clip)()
        self.score = nn.Linear(width, 1)

    def forward(self, video: VideoFeatures, text: TextFeatures) -> Tensor:
        captions, (clips, count) = len(text.pooled), video.mask.shape
        if count + 1 > len(self.positions):
            raise RequestError(
                f"a clip of {count} frames is too long: the tight head has {len(self.positions)} positions"
            )
        first = text.pooled[:, None, None].expand(-1, clips, -1, -1)
        pairs = torch.cat([first, video.frames.expand(captions, -1, -1, -1)], dim=2).flatten(0, 1)
        mask = torch.cat([video.mask.new_ones(clips, 1), video.mask], dim=1).repeat(captions, 1)
        draws = pair_draws(text.draws, video.draws)
        tokens = self.dropout(pairs + self.positions[: count + 1], None if draws is None else draws.flatten())
        bias = key_bias(mask, self.heads)
        for block in self.blocks:
            tokens = block(tokens, bias)
        pooled = self.activation(self.dense(self.norm(tokens[:, 0])))
        scores: Tensor = self.score(pooled)
        return scores.reshape(captions, clips)
