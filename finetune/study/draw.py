"""From a plan to frames: things on a canvas larger than the view, and a camera that looks at part of it."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from stillreel.animate.scenes import Pixels, Scene, Thing, draw_scene
from stillreel.configs.system.dice import Dice, between
from stillreel.finetune.study.world import Plan

_CANVAS = 1.5  # sides of a view
_STILL = 2.0  # sides of a view: a picture is larger, so that a camera has room
_TRAVEL, _REACH = 0.17, 0.15  # of a thing and of the camera, either way, in sides of the canvas
_APART = 0.15  # two things from the center
_SIDE = -1.6  # times as far, one that is by itself on a side


class _State(NamedTuple):
    """Where a thing is at an instant, and how much of it is there."""

    thing: Thing
    presence: float


def draw_video(plan: Plan, seed: int, frames: int, size: int) -> Pixels:
    """Frames uint8 (T, size, size, 3) of a video; of a plan backwards those of the other way, from the last to the first."""
    dice = Dice(seed, plan.dice)
    drawn = np.stack([_draw_frame(plan, dice, (number + 0.5) / frames, size) for number in range(frames)])
    return np.ascontiguousarray(drawn[::-1]) if plan.backwards else drawn


def draw_still(plan: Plan, seed: int, size: int, *, whole: bool = False) -> Pixels:
    """A picture uint8 (H, W, 3), twice as large as a view or more; square where it is to be seen `whole`."""
    dice = Dice(seed, plan.dice)
    wide, *_ = dice.units("sides", 2)
    width, height = (1.0, 1.0) if whole else ((1.25, 1.0), (1.0, 1.25), (1.0, 1.0))[int(wide * 3)]
    shape = round(width * _STILL * size), round(height * _STILL * size)
    things = [state.thing for state in _states(plan, dice, 0.5)]
    return draw_scene(Scene(*shape, plan.ground, tuple(things), dice))


def _draw_frame(plan: Plan, dice: Dice, time: float, size: int) -> Pixels:
    side = round(_CANVAS * size)
    states = _states(plan, dice, time)
    canvas = _draw(plan, dice, [state.thing for state in states if state.presence > 0], side)
    faint = [state for state in states if 0 < state.presence < 1]
    if faint:
        without = _draw(plan, dice, [state.thing for state in states if state.presence == 1], side)
        share = faint[0].presence
        canvas = np.asarray(cv2.addWeighted(canvas, share, without, 1 - share, 0.0), np.uint8)
    return _look(canvas, plan, time, size)


def _draw(plan: Plan, dice: Dice, things: list[Thing], side: int) -> Pixels:
    return draw_scene(Scene(side, side, plan.ground, tuple(things), dice))


def _look(canvas: Pixels, plan: Plan, time: float, size: int) -> Pixels:
    """What the camera sees at an instant 0..1."""
    swing = 2 * time - 1
    x, y = _REACH * swing * (plan.camera == "pan"), _REACH * swing * (plan.camera == "tilt")
    scale = 1.4**-swing if plan.camera == "zoom" else 1.0
    side = len(canvas)
    across = scale * side / _CANVAS / size  # pixels of the canvas a pixel
    left, top = (0.5 + x) * side - across * size / 2, (0.5 + y) * side - across * size / 2
    # Pixel centers: a view that stands still and is not scaled copies them.
    matrix = np.array([[across, 0, left + across / 2 - 0.5], [0, across, top + across / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(canvas, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT), np.uint8
    )


def _states(plan: Plan, dice: Dice, time: float) -> list[_State]:
    """The things at an instant 0..1, the farther ones first."""
    states = []
    for number, actor in enumerate(plan.actors):
        x, y, radius, turn = dice.units(f"thing {number}", 4)
        place = _place(plan, number, between(-0.04, 0.04, x), between(-0.04, 0.04, y))
        alone = len(plan.actors) == 1
        thing = Thing(
            actor.shape,
            actor.color,
            actor.finish,
            False,
            *place,
            between(0.13, 0.17, radius) if alone else between(0.1, 0.12, radius),
            between(-20, 20, turn),
        )
        states.append(_acting(plan, number, _State(thing, 1.0), time))
    return states


def _place(plan: Plan, number: int, x: float, y: float) -> tuple[float, float]:
    """Where the center of a thing stands, in sides of the canvas."""
    sign = 1 if number else -1
    across = {"left of": sign, "right of": -sign, "at the left": _SIDE, "at the right": -_SIDE}.get(plan.place, 0)
    along = {"above": sign, "below": -sign, "at the top": _SIDE, "at the bottom": -_SIDE}.get(plan.place, 0)
    return 0.5 + x + _APART * across, 0.5 + y + _APART * along


def _acting(plan: Plan, number: int, state: _State, time: float) -> _State:
    if plan.acts:
        return _in_turn(plan.acts[number], number, state, time)
    swing = (2 * time - 1) * (-1 if plan.against else 1)
    thing = state.thing
    if number or not plan.act:
        return state
    moved: dict[str, _State] = {
        "across": _State(thing._replace(x=thing.x + _TRAVEL * swing), 1.0),
        "behind": _State(thing._replace(x=thing.x + 1.3 * _TRAVEL * swing), 1.0),
        "along": _State(thing._replace(y=thing.y + _TRAVEL * swing), 1.0),
        "size": _State(thing._replace(radius=thing.radius * 1.5**swing), 1.0),
        "turn": _State(thing._replace(turn=thing.turn + 50 * swing), 1.0),
        "presence": _State(thing, min(max(0.5 + 2 * swing, 0.0), 1.0)),
    }
    return moved[plan.act]


def _in_turn(act: str, number: int, state: _State, time: float) -> _State:
    """The first thing acts in the first half and the second one in the second; each half looks the same backwards."""
    share = 2 * time - number
    strength = math.sin(math.pi * share) if 0 < share < 1 else 0.0
    thing = state.thing
    if act == "jump":
        return _State(thing._replace(y=thing.y - 0.16 * strength), 1.0)
    if act == "swell":
        return _State(thing._replace(radius=thing.radius * (1 + 0.6 * strength)), 1.0)
    return _State(thing, 1 - strength)
