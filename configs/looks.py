"""A look: how the color of a whole clip is changed. One YAML file each in `configs/looks/`.

A look is a list of albumentations transforms with a chance and ranges. The values are drawn by us, once a clip, and
written into the recipe; the transform is then built with exactly these values, so no generator of its own is asked.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from stillreel.configs.settings import Settings, load_preset

Chance = Annotated[float, Field(ge=0, le=1)]

# Transforms whose result is a pure function of the listed parameters, with the range each parameter may take.
TRANSFORMS: dict[str, dict[str, tuple[float, float]]] = {
    "RandomBrightnessContrast": {"brightness": (-0.5, 0.5), "contrast": (-0.5, 0.5)},
    "HueSaturationValue": {"hue": (-30, 30), "saturation": (-80, 80), "value": (-60, 60)},
    "RandomGamma": {"gamma": (40, 250)},
    "ToSepia": {},
    "ToGray": {},
}


class LookStep(Settings):
    """One transform of a look."""

    transform: str
    chance: Chance = 1.0
    ranges: dict[str, tuple[float, float]] = {}

    @model_validator(mode="after")
    def _known(self) -> LookStep:
        if self.transform not in TRANSFORMS:
            raise ValueError(f"transform {self.transform!r} is not one of {', '.join(TRANSFORMS)}")
        limits = TRANSFORMS[self.transform]
        if set(self.ranges) != set(limits):
            raise ValueError(f"{self.transform}: expected ranges for {sorted(limits)}, given {sorted(self.ranges)}")
        for name, (low, high) in self.ranges.items():
            if not limits[name][0] <= low <= high <= limits[name][1]:
                raise ValueError(
                    f"{self.transform}.{name}: expected {limits[name][0]} <= low <= high <= {limits[name][1]}, "
                    f"given {low}, {high}"
                )
        return self


class Look(Settings):
    """Steps applied in order to every frame of a clip; with `drift`, cross-faded from a first drawing to a second one."""

    steps: tuple[LookStep, ...] = Field((), max_length=8)
    drift: Chance = Field(0.0, description="chance that the look changes smoothly over the clip")


def load_look(name: str) -> Look | None:
    """The look of a preset's name or a YAML file's path; None for `none`."""
    return None if name == "none" else Look.resolve(load_preset(name, "looks"))
