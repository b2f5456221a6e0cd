"""The part of a frame that a clip shows in training, where it is drawn: of any size and shape, within limits.

Szegedy et al., Going Deeper with Convolutions (2015), as STAN trains.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from stillreel.configs.system.dice import Dice, between

_AREA = (0.08, 1.0)  # of the frame
_ASPECT = (3 / 4, 4 / 3)  # of the part, width / height
_ATTEMPTS = 10


class Part(NamedTuple):
    """A rectangle of a frame, in shares of its width and height."""

    left: float
    top: float
    right: float
    bottom: float

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The same in pixels of a frame that is stored in this width and height."""
        return self.left * width, self.top * height, self.right * width, self.bottom * height


class DrawnCrop(NamedTuple):
    """What is drawn for a clip; the shape of its frames then says which part of them that is.

    An area and a shape are drawn until they fit into the frame, and then a place; after ten attempts it is the middle square.
    """

    units: tuple[float, ...]  # in [0, 1): four an attempt

    def part(self, width: float, height: float) -> Part:
        """Of a frame that is shown in this width and height."""
        for area, shape, left, top in zip(*(self.units[one::4] for one in range(4)), strict=True):
            aspect = math.exp(between(math.log(_ASPECT[0]), math.log(_ASPECT[1]), shape))
            covered = between(*_AREA, area) * width * height
            wide, high = math.sqrt(covered * aspect) / width, math.sqrt(covered / aspect) / height
            if wide <= 1 and high <= 1:
                return _placed(wide, high, left, top)
        side = min(width, height)
        return _placed(side / width, side / height, 0.5, 0.5)


def draw_crop(dice: Dice) -> DrawnCrop:
    """One for all frames of a clip."""
    return DrawnCrop(tuple(dice.units("crop", 4 * _ATTEMPTS)))


def _placed(wide: float, high: float, left: float, top: float) -> Part:
    start, above = (1 - wide) * left, (1 - high) * top
    return Part(start, above, min(start + wide, 1.0), min(above + high, 1.0))
