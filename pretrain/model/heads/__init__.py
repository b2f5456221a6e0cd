"""Heads: what compares a caption with a clip. Each maps features of B clips and A captions to scores (A, B)."""

from __future__ import annotations

from stillreel.configs.model import ModelSettings
from stillreel.pretrain.model.adapter import Towers
from stillreel.pretrain.model.heads.dot import Dot
from stillreel.pretrain.model.heads.mug import Mug
from stillreel.pretrain.model.heads.tight import Tight

Head = Dot | Mug | Tight

__all__ = ["Dot", "Head", "Mug", "Tight", "build_head"]


def build_head(settings: ModelSettings, clip: Towers) -> Head:
    """The head that the settings name, not yet initialized from CLIP."""
    match settings.head:
        case "dot":
            return Dot()
        case "mug":
            return Mug(settings, clip)
        case "tight":
            return Tight(settings, clip)
