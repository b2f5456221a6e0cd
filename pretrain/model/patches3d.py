"""Convolutions over time: CLIP4Clip's 3-D patch embedding, and how a 3-D convolution is computed here."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Patches3d(nn.Module):
    """Frames (B, T, 3, H, W) -> patches (B * T, D, h, w), in place of the image tower's `conv1`.

    Luo et al., CLIP4Clip (arXiv 2104.08860), `linear_patch=3d`: a patch sees the same patch of the frame before and of the
    one after. Before the first frame and after the last there are zeros.
    """

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(
            3, width, (3, patch_size, patch_size), stride=(1, patch_size, patch_size), padding=(1, 0, 0), bias=False
        )

    def forward(self, frames: Tensor) -> Tensor:
        return convolve_in_time(self.conv, frames).flatten(0, 1)


def convolve_in_time(conv: nn.Conv3d, frames: Tensor) -> Tensor:
    """A convolution of three frames with zeros around the clip: frames (B, T, C, H, W) -> (B, T, D, h, w).

    Computed as one 2-D convolution for the three frames' kernels and a sum over neighbors: in fp32 its rounding error is a
    quarter of torch's 3-D convolution on a CPU, and in bf16 on a GPU the latter may lack a fast kernel.
    """
    assert conv.kernel_size[0] == 3 and conv.padding[0] == conv.stride[0] == 1, conv
    kernels = conv.weight.permute(2, 0, 1, 3, 4).flatten(0, 1)
    each = F.conv2d(frames.flatten(0, 1), kernels, stride=conv.stride[1:], padding=conv.padding[1:])
    before, here, after = each.unflatten(0, frames.shape[:2]).chunk(3, dim=2)
    one_later, one_earlier = (0, 0, 0, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 0, 0, 1)
    summed: Tensor = here + F.pad(before[:, :-1], one_later) + F.pad(after[:, 1:], one_earlier)
    return summed if conv.bias is None else summed + conv.bias[:, None, None]
