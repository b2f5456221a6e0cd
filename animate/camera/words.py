"""Recipes and captions in words."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stillreel.animate.camera.recipe import Recipe, Shot

# A caption with one of these would be false of a mirrored picture. "Right" also means correct; a flip lost is no harm.
_SIDES = re.compile(
    r"\b(?:left|right)(?:s|most|ward|wards|hand|handed|ies|y)?\b|\b(?:counter|anti)?-?clockwise\b|\bstarboard\b",
    re.IGNORECASE,
)

_NAMES = {
    "static": "hold still",
    "zoom_in": "zoom in",
    "zoom_out": "zoom out",
    "pan_left": "pan left",
    "pan_right": "pan right",
    "tilt_up": "tilt up",
    "tilt_down": "tilt down",
    "diagonal": "move across",
    "orbit": "orbit",
    "crop": "center crop",
}


def speaks_of_sides(captions: Iterable[str]) -> bool:
    """Whether any caption would change its truth in a mirror."""
    return any(_SIDES.search(caption) for caption in captions)


def in_words(recipe: Recipe) -> str:
    """E.g. `zoom in 1.6x, then cut, pan left, handheld; mirrored`."""
    if recipe.jump:
        return "jump between random crops" + ("; mirrored" if recipe.flip else "")
    parts: list[str] = []
    for before, shot in zip((None, *recipe.shots), recipe.shots, strict=False):
        if before is not None:
            parts.append("then dissolve" if before.span[1] > shot.span[0] else "then cut")
        parts.append(_shot_in_words(shot))
    words = ", ".join(parts)
    if recipe.look:
        words += "; colored" if recipe.look.until is None else "; color drifts"
    return words + ("; mirrored" if recipe.flip else "")


def _shot_in_words(shot: Shot) -> str:
    words = _NAMES.get(shot.move, shot.move)
    ratio = max(shot.start.scale, shot.end.scale) / min(shot.start.scale, shot.end.scale)
    if shot.move == "crop":
        words += f" {shot.start.scale:.0%}"
    elif ratio > 1.05:
        words += (
            f" {ratio:.1f}x"
            if shot.move.startswith("zoom")
            else f", zoom {'in' if shot.end.scale < shot.start.scale else 'out'} {ratio:.1f}x"
        )
    if shot.shake:
        words += ", handheld"
    return words
