"""TAB, the temporal alignment block of CLIP2Video: words and frames meet at shared centers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillreel.configs.model import ModelSettings
from stillreel.pretrain.model.adapter import Towers, joint_width
from stillreel.pretrain.model.features import Frames, unit
from stillreel.pretrain.model.temporal.seq import SequenceTransformer, new_block
from stillreel.pretrain.model.temporal.tdb import TemporalDifference


class TemporalAlignment(nn.Module):
    """A second vector of a clip and of a caption, each summed over tokens by the K centers they are near to.

    Fang et al., CLIP2Video (arXiv 2106.11097). The tokens of a clip are its frames; with `align=slow` also every second
    frame, through a block of its own; with `align=slow_tdb` these with their differences, as TDB makes them.
    """

    def __init__(self, settings: ModelSettings, clip: Towers) -> None:
        super().__init__()
        width = joint_width(clip)
        self.near = nn.Parameter(torch.zeros(settings.tab.centers, width))  # whose softmax shares a token out
        self.centres = nn.Parameter(torch.zeros(settings.tab.centers, width))  # which are subtracted from it
        self.with_differences = settings.align == "slow_tdb"
        self.slow = nn.ModuleList([] if settings.align == "frames" else [new_block(settings, clip)])

    def video(self, frames: Frames, temporal: nn.Module) -> Tensor:
        """(B, E) of length one. `temporal` is the model's own, whose positions and differences the slow frames share."""
        features, mask = frames.features, frames.mask
        if self.slow:
            assert isinstance(temporal, SequenceTransformer)
            slow, slow_mask = features[:, ::2], mask[:, ::2]
            slow = self._slow(slow, slow_mask, temporal) + slow
            features, mask = torch.cat([features, slow], dim=1), torch.cat([mask, slow_mask], dim=1)
        return self.gather(features, mask)

    def text(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, E) of length one, of words (B, W, E) without the first, which starts every text alike."""
        return self.gather(tokens[:, 1:], mask[:, 1:])

    def gather(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B, L, E) under mask (B, L) -> (B, E): by center, their distance from it; then the centers' mean."""
        shares = (tokens @ self.near.T).softmax(dim=-1) * mask[:, :, None]
        by_center = shares.mT @ tokens - shares.sum(dim=1)[:, :, None] * self.centres
        return unit(unit(by_center).mean(dim=1))

    def _slow(self, features: Tensor, mask: Tensor, temporal: SequenceTransformer) -> Tensor:
        if not self.with_differences:
            return temporal.attend(self.slow, features + temporal.first_positions(features.shape[1]), mask)
        assert isinstance(temporal, TemporalDifference)
        tokens = temporal.expand(features, mask)
        return temporal.attend(self.slow, tokens.sum(), tokens.mask)[:, ::2]
