"""Recipes of crops, which are controls of a study: independent ones (jump), and ones nested about the middle."""

from __future__ import annotations

import numpy as np

from stillreel.animate.camera.recipe import Jump, Recipe, Shot, View
from stillreel.animate.camera.windows import windows
from stillreel.configs.grammar import Grammar
from stillreel.configs.system.dice import Dice, between, pick

DIGITS = 6  # of a view's numbers
NOMINAL = 12  # frames of the clip by which the seen area is measured
SEEN_MARGIN = 0.03  # the area is measured along the camera's path, a clip of T frames sees a little less of it
_JUMP_TRIES = 8


def draw_nested(grammar: Grammar, dice: Dice) -> tuple[Shot, ...]:
    """Center crops of growing size, cut to cut, equally long; the last is the largest that the grammar allows."""
    count = 1 + pick(grammar.shots, dice.unit("shots"))
    low, high = grammar.scale
    scales = [*sorted(between(low, high, unit) for unit in dice.units("scales", count - 1)), high]
    shots = []
    for number, scale in enumerate(scales):
        view = View(0.5, 0.5, round(scale, DIGITS))
        shots.append(Shot("crop", (round(number / count, 4), round((number + 1) / count, 4)), view, view))
    return tuple(shots)


def draw_jump(grammar: Grammar, dice: Dice, picture: tuple[int, int]) -> tuple[Jump, float]:
    """The first of a few drawn seeds whose crops cover what the grammar asks for, else the one that covers most."""
    best: tuple[float, Jump] | None = None
    for attempt in range(_JUMP_TRIES):
        jump = Jump(dice.seed(f"jump {attempt}"), grammar.scale)
        covered = area_covered(windows(Recipe("jump", picture, jump=jump), NOMINAL)[0][:, 0])
        if best is None or covered > best[0]:
            best = covered, jump
        if covered >= grammar.seen + SEEN_MARGIN:
            break
    assert best is not None
    return best[1], best[0]


def area_covered(crops: np.ndarray, grid: int = 32) -> float:
    """Share of the unit square that axis-aligned windows (n, 3, 3), mirrored or not, cover; on a grid."""
    centers = (np.arange(grid) + 0.5) / grid
    low_x, low_y = crops[:, 0, 2] + np.minimum(crops[:, 0, 0], 0), crops[:, 1, 2]
    in_x = (centers >= low_x[:, None]) & (centers < (low_x + np.abs(crops[:, 0, 0]))[:, None])
    in_y = (centers >= low_y[:, None]) & (centers < (low_y + crops[:, 1, 1])[:, None])
    return float((in_y[:, :, None] & in_x[:, None, :]).any(axis=0).mean())
