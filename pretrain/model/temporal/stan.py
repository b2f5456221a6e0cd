"""STAN: a branch of spatial and temporal layers beside the image tower's last blocks."""

from __future__ import annotations

import copy

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from stillreel.configs import RequestError
from stillreel.configs.model import StanSettings
from stillreel.pretrain.model.adapter import Towers, needs_class_token
from stillreel.pretrain.model.blocks import Attention, key_bias
from stillreel.pretrain.model.dropout import DropPath
from stillreel.pretrain.model.features import Frames, masked_mean
from stillreel.pretrain.model.patches3d import convolve_in_time
from stillreel.pretrain.model.towers import project_class_token


class Stan(nn.Module):
    """The tokens of the tower's last blocks feed the branch, and the branch's class token is added to every frame's.

    Liu et al., STAN, CVPR 2023 (arXiv 2301.11116). One class token per clip, one token per patch and frame; the tower
    itself is not changed. The class embedding, the positions and the projection are the tower's own parameters.
    """

    def __init__(self, settings: StanSettings, clip: Towers) -> None:
        super().__init__()
        needs_class_token(clip.visual, "temporal=stan")
        blocks, width = clip.visual.transformer.resblocks, clip.visual.transformer.width
        if settings.depth > len(blocks):
            raise RequestError(f"stan.depth={settings.depth}: the image tower has only {len(blocks)} blocks")
        self.depth = settings.depth
        self.time_embedding = nn.Parameter(torch.zeros(settings.frames, width))
        rates = torch.linspace(0, settings.drop_path, settings.depth, device="cpu").tolist()
        self.layers = nn.ModuleList()
        for block, rate in zip(blocks[len(blocks) - settings.depth :], rates, strict=True):
            time = _TIME[settings.time](block, clip.visual.grid_size, rate)
            self.layers.append(StanLayer(time, copy.deepcopy(block), rate))

    def forward(self, frames: Frames) -> Tensor:
        visual, mask, count = frames.visual, frames.mask, frames.mask.shape[1]
        if count > len(self.time_embedding):
            raise RequestError(
                f"a clip of {count} frames is too long: this model's stan.frames is {len(self.time_embedding)}"
            )
        token = (visual.class_embedding + visual.positional_embedding[0]).expand(len(mask), -1)
        patches = self._positions(visual.positional_embedding[1:], frames.places) + self.time_embedding[:count, None]
        for index, (layer, trunk) in enumerate(zip(self.layers, frames.blocks, strict=True)):
            token = token + masked_mean(trunk[:, :, 0], mask)
            if index == 0:
                token = token / 2
            token, patches = layer(token, patches + trunk[:, :, 1:], mask, frames.draws)
        return project_class_token(visual, frames.blocks[-1][:, :, 0] + token[:, None])

    @staticmethod
    def _positions(table: Tensor, places: Tensor | None) -> Tensor:
        """(L, D), or (B, 1, L, D) of each clip's own places. Looked up as embeddings are: their gradient adds in one order."""
        return table if places is None else F.embedding(places, table)[:, None]


class StanLayer(nn.Module):
    """One layer of the branch: along time (patches only), then within each frame.

    `space` is a block of the image tower; its attention sees the clip's class token in every frame, and what the frames
    answer it is averaged.
    """

    def __init__(
        self, time: AttentionInTime | ConvolutionInTime, space: ResidualAttentionBlock, drop_path: float
    ) -> None:
        super().__init__()
        self.time = time
        self.space = space
        self.drop_path = DropPath(drop_path)

    def forward(
        self, token: Tensor, patches: Tensor, mask: Tensor, draws: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Class tokens (B, D) and patches (B, T, L, D) under mask (B, T) -> the same. `draws` (B,) are for drop path."""
        clips, count = mask.shape
        patches = self.time(patches, mask, draws)
        seen = torch.cat([token[:, None, None].expand(-1, count, -1, -1), patches], dim=2)
        answer = self.space.ls_1(self.space.attention(self.space.ln_1(seen.flatten(0, 1))))
        answer = self.drop_path(answer, draws).unflatten(0, (clips, count))
        token = token + masked_mean(answer[:, :, 0], mask)
        patches = patches + answer[:, :, 1:]
        tokens = torch.cat([token[:, None], patches.flatten(1, 2)], dim=1)
        tokens = tokens + self.space.ls_2(self.space.mlp(self.space.ln_2(tokens)))
        return tokens[:, 0], tokens[:, 1:].unflatten(1, patches.shape[1:3])


class AttentionInTime(nn.Module):
    """Attention between the same patch of all frames, added to the patches (B, T, L, D)."""

    def __init__(self, block: ResidualAttentionBlock, grid: tuple[int, int], drop_path: float) -> None:
        super().__init__()
        width = block.ln_1.normalized_shape[0]
        self.norm = nn.LayerNorm(width, eps=block.ln_1.eps)
        self.attn = Attention(width, block.attn.num_heads)
        self.drop_path = DropPath(drop_path)
        self.fc = nn.Linear(width, width)

    def forward(self, patches: Tensor, mask: Tensor, draws: Tensor | None) -> Tensor:
        clips, places = patches.shape[0], patches.shape[2]
        bias = key_bias(mask, self.attn.heads).repeat_interleave(places, dim=0)
        tracks = self.norm(patches).transpose(1, 2).flatten(0, 1)
        moved = self.fc(self.drop_path(self.attn(tracks, bias), draws))
        back: Tensor = moved.unflatten(0, (clips, places))
        return patches + back.transpose(1, 2)


class ConvolutionInTime(nn.Module):
    """A 3 x 3 x 3 convolution over time and the grid of patches, added to the patches (B, T, L, D)."""

    def __init__(self, block: ResidualAttentionBlock, grid: tuple[int, int], drop_path: float) -> None:
        super().__init__()
        width = block.ln_1.normalized_shape[0]
        self.grid = grid
        self.conv = nn.Conv3d(width, width, 3, padding=1)
        self.drop_path = DropPath(drop_path)
        self.fc = nn.Linear(width, width)

    def forward(self, patches: Tensor, mask: Tensor, draws: Tensor | None) -> Tensor:
        # Padding frames read as the zeros that a convolution puts around a clip.
        volume = (patches * mask[:, :, None, None]).mT.unflatten(3, self.grid)
        moved = convolve_in_time(self.conv, volume).flatten(3).mT
        change: Tensor = self.fc(self.drop_path(moved, draws))
        return patches + change


_TIME: dict[str, type[AttentionInTime | ConvolutionInTime]] = {"attention": AttentionInTime, "conv": ConvolutionInTime}
