"""The recipe: how one still is filmed. A small versioned JSON value, independent of frame count and frame size.

    {"version": 1, "renderer": 1, "grammar": "film", "picture": [640, 480], "caption": 0, "flip": false,
     "shots": [{"move": "zoom_in", "span": [0, 1], "ease": "smoothstep",
                "start": {"x": 0.5, "y": 0.5, "scale": 1.0}, "end": {"x": 0.42, "y": 0.55, "scale": 0.6}}]}

Time runs from 0 (first frame) to 1 (last frame). Shots that overlap in time dissolve into each other. A view's center is
in fractions of the picture's width and height, its side `scale` in fractions of the picture's short side, angles in
degrees. `flip` mirrors the picture before it is filmed, so that all views are of the mirrored picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

RECIPE_VERSION = 1

# The arithmetic that turns a picture and its windows into pixels (animate/render/cpu.py). Raised when any byte changes.
RENDERER_VERSION = 2

_VIEW_DEFAULTS = {"roll": 0.0, "yaw": 0.0, "pitch": 0.0}


class View(NamedTuple):
    """The quadrilateral of the picture that is seen at an instant."""

    x: float
    y: float
    scale: float
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0

    def to_json(self) -> dict[str, float]:
        return {name: value for name, value in self._asdict().items() if value != _VIEW_DEFAULTS.get(name)}


class Shake(NamedTuple):
    """Handheld noise on a view's center: `amount` is its largest excursion in view sides, `seed` gives its phases."""

    amount: float
    seed: int


class Shot(NamedTuple):
    """A span of time under one camera move."""

    move: str
    span: tuple[float, float]
    start: View
    end: View
    ease: str = "linear"
    shake: Shake | None = None


class Jump(NamedTuple):
    """Independent random crops, one a frame, drawn from `seed`; sides uniform in `scale`."""

    seed: int
    scale: tuple[float, float]


class LookStep(NamedTuple):
    """An albumentations transform with the exact values it was drawn with."""

    transform: str
    values: Mapping[str, float]


class LookPlan(NamedTuple):
    """Steps for the whole clip; with `until`, a cross-fade from `steps` at the first frame to `until` at the last."""

    steps: tuple[LookStep, ...]
    until: tuple[LookStep, ...] | None = None


@dataclass(frozen=True)
class Recipe:
    """How one still is filmed. `picture` is its (width, height); exactly one of `shots` and `jump` is given."""

    grammar: str
    picture: tuple[int, int]
    caption: int = 0
    flip: bool = False
    shots: tuple[Shot, ...] = ()
    jump: Jump | None = None
    look: LookPlan | None = None
    renderer: int = RENDERER_VERSION
    version: int = RECIPE_VERSION

    @property
    def moves(self) -> list[str]:
        """The move of each shot, in order."""
        return ["jump"] if self.jump else [shot.move for shot in self.shots]

    def to_json(self) -> dict[str, Any]:
        """The JSON value; what is at its default inside views and shots is left out."""
        value: dict[str, Any] = {
            "version": self.version,
            "renderer": self.renderer,
            "grammar": self.grammar,
            "picture": list(self.picture),
            "caption": self.caption,
            "flip": self.flip,
        }
        if self.jump:
            value["jump"] = {"seed": self.jump.seed, "scale": list(self.jump.scale)}
        else:
            value["shots"] = [_shot_to_json(shot) for shot in self.shots]
        if self.look:
            value["look"] = {"steps": [[step.transform, dict(step.values)] for step in self.look.steps]}
            if self.look.until is not None:
                value["look"]["until"] = [[step.transform, dict(step.values)] for step in self.look.until]
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Recipe:
        """The recipe of a JSON value. Raises ValueError for another version or a value that is no recipe."""
        if value.get("version") != RECIPE_VERSION:
            raise ValueError(f"recipe version {value.get('version')!r}; this stillreel films version {RECIPE_VERSION}")
        try:
            jump, look = value.get("jump"), value.get("look")
            width, height = value["picture"]
            return cls(
                grammar=value["grammar"],
                picture=(int(width), int(height)),
                caption=value["caption"],
                flip=value["flip"],
                shots=tuple(_shot_from_json(shot) for shot in value.get("shots", ())),
                jump=Jump(jump["seed"], tuple(jump["scale"])) if jump else None,
                look=_look_from_json(look) if look else None,
                renderer=value["renderer"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a recipe: {error!r}") from None


def _shot_to_json(shot: Shot) -> dict[str, Any]:
    value: dict[str, Any] = {"move": shot.move, "span": list(shot.span), "start": shot.start.to_json()}
    if shot.end != shot.start:
        value["end"] = shot.end.to_json()
    if shot.ease != "linear":
        value["ease"] = shot.ease
    if shot.shake:
        value["shake"] = list(shot.shake)
    return value


def _shot_from_json(value: Mapping[str, Any]) -> Shot:
    start = View(**value["start"])
    begin, end = value["span"]
    shake = value.get("shake")
    return Shot(
        move=value["move"],
        span=(begin, end),
        start=start,
        end=View(**value["end"]) if "end" in value else start,
        ease=value.get("ease", "linear"),
        shake=Shake(*shake) if shake else None,
    )


def _look_from_json(value: Mapping[str, Any]) -> LookPlan:
    until = value.get("until")
    return LookPlan(
        tuple(LookStep(name, values) for name, values in value["steps"]),
        None if until is None else tuple(LookStep(name, values) for name, values in until),
    )
