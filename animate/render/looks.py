"""Looks: one change of color for a whole clip, by albumentations with values that we drew.

The transforms are built with ranges of zero width, so that none of albumentations' own generators, which repeat their
draws in forked workers, decides anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stillreel.animate.camera.recipe import LookPlan, LookStep

if TYPE_CHECKING:
    import albumentations

Pixels = NDArray[np.uint8]


def apply_look(look: LookPlan, clip: Pixels) -> Pixels:
    """The clip (T, H, W, 3) in another color; a drifting look fades from its first steps to its last, in 256ths."""
    first = _apply(look.steps, clip)
    if look.until is None:
        return first
    last = _apply(look.until, clip)
    frames = len(clip)
    shares = np.round(np.linspace(0, 256, frames) if frames > 1 else np.array([128.0])).astype(np.uint16)[
        :, None, None, None
    ]
    return ((first.astype(np.uint16) * (256 - shares) + last.astype(np.uint16) * shares + 128) >> 8).astype(np.uint8)


def _apply(steps: Sequence[LookStep], clip: Pixels) -> Pixels:
    if not steps:
        return clip
    transform = _transform(tuple((step.transform, tuple(sorted(step.values.items()))) for step in steps))
    # One tall picture: every step works on pixels alone, so the whole clip is one call with one set of values.
    tall = clip.reshape(-1, *clip.shape[2:])
    changed: Pixels = transform(image=tall)["image"]
    return changed.reshape(clip.shape)


@lru_cache(32)
def _transform(steps: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]) -> albumentations.Compose:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it calls home otherwise
    import albumentations as A

    return A.Compose([_build(A, name, dict(values)) for name, values in steps])


def _build(A: Any, name: str, values: dict[str, float]) -> Any:
    def fixed(value: str) -> tuple[float, float]:
        return values[value], values[value]

    if name == "RandomBrightnessContrast":
        return A.RandomBrightnessContrast(brightness_limit=fixed("brightness"), contrast_limit=fixed("contrast"), p=1)
    if name == "HueSaturationValue":
        return A.HueSaturationValue(fixed("hue"), fixed("saturation"), fixed("value"), p=1)
    if name == "RandomGamma":
        return A.RandomGamma(gamma_limit=fixed("gamma"), p=1)
    if name == "ToSepia":
        return A.ToSepia(p=1)
    if name == "ToGray":
        return A.ToGray(p=1)
    raise ValueError(f"the recipe's look has a transform {name!r} that this stillreel lacks")
