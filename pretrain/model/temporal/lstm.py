"""An LSTM over the frames: CLIP4Clip's `seqLSTM`."""

from __future__ import annotations

from torch import Tensor, nn

from stillreel.pretrain.model.adapter import Towers, joint_width
from stillreel.pretrain.model.features import Frames, without_autocast


class Lstm(nn.Module):
    """One layer over the valid frames in their order, added to them. Luo et al., CLIP4Clip (arXiv 2104.08860)."""

    depth = 0

    def __init__(self, clip: Towers) -> None:
        super().__init__()
        width = joint_width(clip)
        self.lstm = nn.LSTM(width, width, batch_first=True)

    def forward(self, frames: Frames) -> Tensor:
        # Valid frames go to the front, where nothing of the padding behind them reaches them; then all go back.
        order = frames.mask.logical_not().int().argsort(dim=1, stable=True)
        there = order[:, :, None].expand_as(frames.features)
        valid_first = frames.features.gather(1, there).to(next(self.lstm.parameters()).dtype)
        # Under autocast to bf16 cuDNN's LSTM computes in fp16, whose gradients need a scaler; twelve steps in fp32 cost little.
        with without_autocast(valid_first.device.type):
            hidden: Tensor = self.lstm(valid_first)[0]
        back = order.argsort(dim=1)[:, :, None].expand_as(hidden)
        return hidden.gather(1, back) * frames.mask[:, :, None] + frames.features
