"""CLIP4Clip's 3-D patch embedding: a patch sees the same patch of the frame before and of the one after."""

from __future__ import annotations

from torch import Tensor, nn


class Patches3d(nn.Module):
    """Frames (B, T, 3, H, W) -> patches (B * T, D, h, w), in place of the image tower's `conv1`.

    Luo et al., CLIP4Clip, 2021, section 3.2 (`linear_patch=3d`). Before the first frame and after the last there are zeros.
    """

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(
            3, width, (3, patch_size, patch_size), stride=(1, patch_size, patch_size), padding=(1, 0, 0), bias=False
        )

    def forward(self, frames: Tensor) -> Tensor:
        return self.conv(frames.transpose(1, 2)).transpose(1, 2).flatten(0, 1)
