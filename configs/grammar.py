"""A grammar: how recipes are drawn. One YAML file each in `configs/grammars/`; ranges and reasons stand in those files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stillreel.configs.settings import Settings, load_preset

Chance = Annotated[float, Field(ge=0, le=1)]
Ease = Literal["linear", "smoothstep", "accelerate", "decelerate"]
MOVES = ("static", "zoom_in", "zoom_out", "pan", "tilt", "diagonal", "orbit")


class MoveWeights(Settings):
    """How often a shot is each move; weights need not add up to 1."""

    static: float = Field(0.0, ge=0)
    zoom_in: float = Field(0.0, ge=0)
    zoom_out: float = Field(0.0, ge=0)
    pan: float = Field(0.0, ge=0)
    tilt: float = Field(0.0, ge=0)
    diagonal: float = Field(0.0, ge=0)
    orbit: float = Field(0.0, ge=0)

    def listed(self) -> tuple[float, ...]:
        """Weights in the order of MOVES."""
        return tuple(getattr(self, move) for move in MOVES)


class Shake(Settings):
    """A hand that holds the camera: smooth noise on the view's center."""

    chance: Chance = 0.0
    amount: tuple[float, float] = Field((0.005, 0.015), description="peak, in view sides")


class Grammar(Settings):
    """How recipes are drawn. Lengths are in short sides of the picture, angles in degrees, times in clips."""

    kind: Literal["shots", "jump", "nested"] = "shots"
    shots: tuple[float, ...] = Field(
        (1.0,), description="weights of 1, 2, 3 ... shots (nested: crops) a clip", min_length=1, max_length=8
    )
    moves: MoveWeights = MoveWeights()
    scale: tuple[float, float] = Field((0.5, 1.0), description="side of a view")
    zoom: tuple[float, float] = Field((1.1, 2.0), description="side at the wide end of a zoom / at its close end")
    travel: tuple[float, float] = Field((0.5, 1.0), description="share of the free way that a pan or tilt crosses")
    roll: float = Field(0.0, ge=0, le=15, description="largest, degrees")
    roll_chance: Chance = 0.0
    orbit: tuple[float, float] = Field((3.0, 10.0), description="yaw or pitch at either end of an orbit, degrees")
    shake: Shake = Shake()
    easing: tuple[Ease, ...] = ("linear",)
    dissolve_chance: Chance = Field(0.0, description="of a cut to be a dissolve")
    dissolve: tuple[float, float] = Field((0.05, 0.15), description="length of a dissolve")
    flip: Chance = Field(0.5, description="of mirroring, where no caption speaks of sides")
    seen: Chance = Field(0.5, description="share of the picture that a clip must see")

    @model_validator(mode="after")
    def _ranges_hold(self) -> Grammar:
        for name in ("scale", "zoom", "travel", "orbit", "dissolve"):
            low, high = getattr(self, name)
            if not low <= high:
                raise ValueError(f"{name}: expected low <= high, given {low}, {high}")
        if not 0.1 <= self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale: expected within 0.1 to 1, given {self.scale}")
        if not self.zoom[0] >= 1 or not 0 <= self.travel[0] <= self.travel[1] <= 1:
            raise ValueError("zoom starts at 1 or more; travel lies in 0 to 1")
        if self.orbit[1] > 20 or self.shake.amount[1] > 0.05 or self.dissolve[1] > 0.2:
            raise ValueError("expected orbit <= 20 degrees, shake.amount <= 0.05, dissolve <= 0.2")
        if self.kind == "shots" and not any(self.moves.listed()):
            raise ValueError("moves: every weight is 0")
        if not any(weight > 0 for weight in self.shots):
            raise ValueError("shots: every weight is 0")
        return self


def load_grammar(name: str) -> Grammar:
    """The grammar of a preset's name or a YAML file's path; RequestError says what is wrong with it."""
    return Grammar.resolve(load_preset(name, "grammars"))
