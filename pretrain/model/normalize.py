"""Frames as pixels become what a model reads: normalized, and encoded without gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stillreel.pretrain.model.adapter import preprocess_of
from stillreel.pretrain.model.features import VideoFeatures
from stillreel.pretrain.model.model import VideoTextModel


class Pixels(NamedTuple):
    """What pixels from 0 to 1 are normalized by, per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def told_by(cls, preprocess: Mapping[str, Any]) -> Pixels:
        """Those of open_clip's `preprocess_cfg`; where it says nothing, CLIP's."""
        return cls(tuple(preprocess.get("mean", CLIPS_PIXELS.mean)), tuple(preprocess.get("std", CLIPS_PIXELS.std)))


CLIPS_PIXELS = Pixels((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def normalize(
    frames: Tensor,
    mean: Sequence[float] = CLIPS_PIXELS.mean,
    std: Sequence[float] = CLIPS_PIXELS.std,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Frames uint8 (..., H, W, 3) as a model eats them, (..., 3, H, W); the defaults are CLIP's."""
    scale, shift = affine(tuple(mean), tuple(std), frames.device)
    ready = torch.empty((*frames.shape[:-3], 3, *frames.shape[-3:-1]), dtype=dtype, device=frames.device)
    # Cast, scaled, shifted, turned and cast again in one kernel: frames are the largest thing that a step reads.
    return torch.addcmul(shift, frames.movedim(-1, -3), scale, out=ready)


def pixels_of(model: VideoTextModel) -> Pixels:
    """The mean and deviation that a model's towers were trained behind."""
    return Pixels.told_by(preprocess_of(model.clip))


def encode_frames(
    model: VideoTextModel, frames: Tensor, mask: Tensor | None, autocast: torch.dtype | None = None
) -> VideoFeatures:
    """Features of frames uint8 (B, T, H, W, 3) with mask (B, T), on the model's device; `autocast` is the towers' type."""
    weights = next(model.parameters())
    seen = normalize(frames.to(weights.device, non_blocking=True), *pixels_of(model), dtype=weights.dtype)
    shown = None if mask is None else mask.to(weights.device, non_blocking=True)
    with torch.no_grad(), torch.autocast(weights.device.type, autocast, enabled=autocast is not None):
        features: VideoFeatures = model.encode_video(seen, shown)
    return features


@lru_cache(16)
def affine(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """What pixels 0 to 255 are multiplied by, and what is added then, (3, 1, 1) each."""
    scale = torch.tensor([1 / (255 * value) for value in std])
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
    return scale[:, None, None].to(device), shift[:, None, None].to(device)
