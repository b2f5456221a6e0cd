"""Transformer blocks of the temporal modules.

Parameters are named and shaped as in the blocks of OpenAI's text tower, from which the published models initialize them. The
arithmetic is written out here because these blocks, unlike the towers', have masks that differ between the clips of a batch.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MASKED = -1e6  # finite: where all keys are padding the answer is ignored, and must not be NaN


def key_bias(mask: Tensor, heads: int, *, mixed_up: bool = False) -> Tensor:
    """Additive attention bias (B, 1 or heads, 1, L) that hides the keys where mask (B, L) is False.

    `mixed_up` is what CLIP2Video publishes: the masks are repeated heads times and then read as if each had been repeated on
    its own, so that head h of clip b has the mask of clip (b * heads + h) mod B.
    """
    bias = torch.where(mask, 0.0, _MASKED)[:, None, None, :]
    if not mixed_up:
        return bias
    clips = len(mask)
    owners = torch.arange(clips * heads, device=mask.device).remainder(clips).reshape(clips, heads)
    return bias[owners].squeeze(2)


class Attention(nn.Module):
    """Multi-head self-attention (B, L, D) -> (B, L, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.mix(*self.project(tokens), bias)

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, heads, L, D / heads)."""
        qkv = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def mix(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """What the queries hear (B, L, D)."""
        if bias is not None:
            bias = bias.to(q.dtype).clamp(min=torch.finfo(q.dtype).min)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        heard: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return heard


class Block(nn.Module):
    """A pre-norm residual block: attention, then a perceptron four times as wide."""

    def __init__(self, width: int, heads: int, activation: type[nn.Module], eps: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width, eps=eps)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=activation(), c_proj=nn.Linear(4 * width, width))
        )

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        tokens = tokens + self.attn(self.ln_1(tokens), bias)
        change: Tensor = self.mlp(self.ln_2(tokens))
        return tokens + change
