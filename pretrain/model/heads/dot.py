"""One vector each: the dual encoder, whose clips can be indexed."""

from __future__ import annotations

from torch import Tensor, nn

from stillreel.pretrain.model.features import TextFeatures, VideoFeatures, unit


class Dot(nn.Module):
    """Cosines (A, B) of pooled features."""

    scaled = True  # cosines: a temperature belongs to them

    def forward(self, video: VideoFeatures, text: TextFeatures) -> Tensor:
        return unit(text.pooled) @ unit(video.pooled).T
