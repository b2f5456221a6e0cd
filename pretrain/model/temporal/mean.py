"""No temporal module: the mean of the frames is taken where features are pooled."""

from __future__ import annotations

from torch import Tensor, nn

from stillreel.pretrain.model.features import Frames


class Mean(nn.Module):
    """Frames as they are: CLIP4Clip's `meanP` and STAN's CLIP baseline. Knows nothing of their order."""

    depth = 0

    def forward(self, frames: Frames) -> Tensor:
        return frames.features
