"""Temporal modules: what joins the frames of a clip.

Each is a module over `Frames` (features, mask, tokens after the image tower's last `depth` blocks) that returns the
features (B, T, E) of the frames, now knowing of each other. Padding frames change nothing of the others.
"""

from __future__ import annotations

from stillreel.configs.model import ModelSettings
from stillreel.pretrain.model.adapter import Towers
from stillreel.pretrain.model.temporal.lstm import Lstm
from stillreel.pretrain.model.temporal.mean import Mean
from stillreel.pretrain.model.temporal.seq import SequenceTransformer
from stillreel.pretrain.model.temporal.stan import Stan
from stillreel.pretrain.model.temporal.tab import TemporalAlignment
from stillreel.pretrain.model.temporal.tdb import TemporalDifference

TemporalModule = Mean | SequenceTransformer | Lstm | TemporalDifference | Stan

__all__ = [
    "Lstm",
    "Mean",
    "SequenceTransformer",
    "Stan",
    "TemporalAlignment",
    "TemporalDifference",
    "TemporalModule",
    "build_temporal",
]


def build_temporal(settings: ModelSettings, clip: Towers) -> TemporalModule:
    """The module that the settings name, not yet initialized from CLIP."""
    match settings.temporal:
        case "mean":
            return Mean()
        case "seq":
            return SequenceTransformer(settings, clip)
        case "lstm":
            return Lstm(clip)
        case "tdb":
            return TemporalDifference(settings, clip)
        case "stan":
            return Stan(settings.stan, clip)
