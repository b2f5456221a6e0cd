"""Pictures drawn by code, with true captions: the corpus of the demo, which needs no download.

A scene is a textured background with one to three textured shapes that cast a shadow, at the sizes of photographs. Its
caption names what is there and, of two or more shapes, where they stand to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from stillreel.configs.system.dice import Dice, between

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float32]

SIZES = ((640, 480), (480, 640), (500, 375), (375, 500), (512, 512), (640, 360), (512, 341), (480, 360))
COLOURS = {
    "red": (205, 45, 40),
    "green": (50, 150, 65),
    "blue": (45, 85, 200),
    "yellow": (240, 200, 50),
    "orange": (240, 130, 35),
    "purple": (130, 60, 165),
    "pink": (240, 140, 180),
    "brown": (125, 80, 45),
    "white": (240, 240, 235),
    "black": (35, 35, 40),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "hexagon", "cross", "heart", "crescent", "diamond")
FINISHES = ("plain", "striped", "dotted", "checked")
_SHEETS, _SHEET_SIDE = 3, 1024
_SMALL, _LARGE = (0.13, 0.18), (0.24, 0.32)  # radius in short sides of the picture


class Thing(NamedTuple):
    """A shape in a scene; center in fractions of the picture, radius in short sides."""

    shape: str
    color: str
    finish: str
    large: bool
    x: float
    y: float
    radius: float
    turn: float

    @property
    def name(self) -> str:
        """E.g. `large striped red star`; a plain finish is not spoken of."""
        return " ".join(
            (
                "large" if self.large else "small",
                *((self.finish,) if self.finish != "plain" else ()),
                self.color,
                self.shape,
            )
        )


class Scene(NamedTuple):
    """All that decides a picture."""

    width: int
    height: int
    ground: str
    things: tuple[Thing, ...]
    dice: Dice


def plan_scene(seed: int, number: int) -> Scene:
    """The scene of a number: a pure function of (seed, number)."""
    dice = Dice(seed, f"scene {number}")
    size, ground, count, side_by_side, swap = dice.units("scene", 5)
    width, height = SIZES[int(size * len(SIZES))]
    number_of_things = 1 + int(count * 3)
    # Places are spread along one axis, so that `left of` and `above` are plain to see.
    sideways = side_by_side < (0.75 if width >= height else 0.4)
    things = []
    for index in range(number_of_things):
        shape, color, finish, large, along, across, radius, turn = dice.units(f"thing {index}", 8)
        step = 1 / number_of_things
        place = step * (index + 0.5) + (along - 0.5) * step * 0.3
        other = between(0.35, 0.65, across)
        is_large = large < 0.5 and number_of_things < 3
        things.append(
            Thing(
                SHAPES[int(shape * len(SHAPES))],
                tuple(COLOURS)[int(color * len(COLOURS))],
                FINISHES[int(finish * len(FINISHES))],
                is_large,
                place if sideways else other,
                other if sideways else place,
                between(*(_LARGE if is_large else _SMALL), radius),
                between(-20, 20, turn),
            )
        )
    # Which one is named first is drawn too: `A left of B` and `B right of A` are both true.
    return Scene(
        width, height, tuple(GROUNDS)[int(ground * len(GROUNDS))], tuple(things[:: -1 if swap < 0.5 else 1]), dice
    )


def caption_of(scene: Scene) -> str:
    """One true sentence about a scene."""
    first, *others = scene.things
    words = f"a {first.name}"
    for before, thing in zip(scene.things, others, strict=False):
        across, along = thing.x - before.x, thing.y - before.y
        if abs(across) * scene.width >= abs(along) * scene.height:
            relation = "left of" if across > 0 else "right of"
        else:
            relation = "above" if along > 0 else "below"
        words += f" {relation} a {thing.name}"
    return f"{words} {GROUNDS[scene.ground].words}"


def draw_scene(scene: Scene) -> Pixels:
    """The picture of a scene, uint8 (H, W, 3), RGB."""
    sheet = _sheet(scene.ground, int(scene.dice.unit("sheet") * _SHEETS))
    right, down, mirrored = scene.dice.units("crop", 3)
    x, y = int(right * (_SHEET_SIDE - scene.width)), int(down * (_SHEET_SIDE - scene.height))
    canvas = sheet[y : y + scene.height, x : x + scene.width]
    canvas = np.ascontiguousarray(canvas[:, ::-1] if mirrored < 0.5 else canvas)
    for thing in scene.things:
        _draw_thing(thing, canvas)
    return canvas


def mask_of(thing: Thing, scene: Scene) -> NDArray[np.bool_]:
    """Where a thing is in the picture of its scene, (H, W)."""
    center = np.array([thing.x * scene.width, thing.y * scene.height])
    return _mask(thing, center, (scene.height, scene.width), min(scene.width, scene.height)) > 0.5


@lru_cache(32)
def _sheet(ground: str, variant: int) -> Pixels:
    """A large drawing of a background, of which scenes show parts: one for each scene would take ten times as long."""
    noise = np.random.default_rng([*ground.encode(), variant])
    drawn = GROUNDS[ground].draw(_SHEET_SIDE, _SHEET_SIDE, noise)
    grain = noise.normal(0, 2.5, drawn.shape[:2]).astype(np.float32)
    return np.asarray(np.clip(drawn + grain[..., None], 0, 255), np.uint8)


def _draw_thing(thing: Thing, canvas: Pixels) -> None:
    """Draw a thing and its shadow, touching only the part of the canvas where they are."""
    height, width = canvas.shape[:2]
    short = min(height, width)
    reach = thing.radius * short * 1.35
    left, top = max(0, int(thing.x * width - reach)), max(0, int(thing.y * height - reach))
    right, bottom = min(width, int(thing.x * width + reach)), min(height, int(thing.y * height + reach))
    part = canvas[top:bottom, left:right]
    center = np.array([thing.x * width - left, thing.y * height - top])
    mask = _mask(thing, center, part.shape[:2], short)
    fallen = np.zeros_like(mask)
    fallen[short // 40 :, short // 60 :] = mask[: -(short // 40), : -(short // 60)]
    shadow = cv2.GaussianBlur(fallen, (0, 0), short / 70)
    lit = part * (1 - 0.45 * shadow[..., None])
    drawn = lit + mask[..., None] * (_surface(thing, center, part.shape[:2], short) - lit)
    part[:] = np.clip(drawn, 0, 255).astype(np.uint8)


class Ground(NamedTuple):
    """A background: how a caption speaks of it, and how it is drawn: (height, width, generator) -> float32 (H, W, 3)."""

    words: str
    draw: Callable[[int, int, np.random.Generator], Plane]


def _cloud(height: int, width: int, noise: np.random.Generator, coarse: int) -> Plane:
    """Smooth noise of several octaves in 0..1; `coarse` cells along the long side in the first one."""
    total = np.zeros((height, width), np.float32)
    for octave in range(4):
        cells = coarse << octave
        grid = noise.random((max(2, cells * height // max(height, width)), max(2, cells * width // max(height, width))))
        total += cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC) / (1 << octave)
    return np.asarray(np.clip(total / 1.875, 0, 1), np.float32)


def _mix(low: tuple[int, int, int], high: tuple[int, int, int], share: Plane) -> Plane:
    start, end = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return np.asarray(start + share[..., None] * (end - start), np.float32)


def _grass(height: int, width: int, noise: np.random.Generator) -> Plane:
    blades = cv2.GaussianBlur(noise.random((height, width)).astype(np.float32), (0, 0), sigmaX=0.8, sigmaY=5) * 4 - 1.5
    return _mix((40, 85, 25), (120, 165, 60), np.clip(0.5 * _cloud(height, width, noise, 5) + 0.5 * blades, 0, 1))


def _sky(height: int, width: int, noise: np.random.Generator) -> Plane:
    clouds = np.clip((_cloud(height, width, noise, 3) - 0.45) * 3, 0, 1)
    fade = np.linspace(0, 1, height, dtype=np.float32)[:, None] * np.ones(width, np.float32)
    blue = _mix((85, 140, 215), (175, 210, 240), fade)
    return np.asarray(blue + clouds[..., None] * (245 - blue) * 0.9, np.float32)


def _sand(height: int, width: int, noise: np.random.Generator) -> Plane:
    rows = np.arange(height, dtype=np.float32)[:, None] / height
    ripples = 0.5 + 0.5 * np.sin(60 * rows + 9 * _cloud(height, width, noise, 3))
    return _mix(
        (190, 160, 110), (235, 212, 165), (0.7 * ripples + 0.3 * _cloud(height, width, noise, 20)).astype(np.float32)
    )


def _water(height: int, width: int, noise: np.random.Generator) -> Plane:
    rows = np.arange(height, dtype=np.float32)[:, None] / height
    waves = 0.5 + 0.5 * np.sin(120 * rows**1.4 + 14 * _cloud(height, width, noise, 4))
    return _mix((15, 70, 110), (95, 165, 190), (waves * _cloud(height, width, noise, 8)).astype(np.float32))


def _bricks(height: int, width: int, noise: np.random.Generator) -> Plane:
    tall, wide = height // 24, width // 11
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    course = rows // tall
    shifted = columns + (course % 2) * wide // 2
    mortar = ((rows % tall) < 4) | ((shifted % wide) < 4)
    tints = noise.random((course.max() + 1, shifted.max() // wide + 1)).astype(np.float32)
    wall = _mix(
        (135, 55, 40), (190, 95, 70), 0.7 * tints[course, shifted // wide] + 0.3 * _cloud(height, width, noise, 30)
    )
    return np.asarray(np.where(mortar[..., None], 185, wall), np.float32)


def _tiles(height: int, width: int, noise: np.random.Generator) -> Plane:
    side = max(height, width) // 14
    even = ((np.arange(height)[:, None] // side + np.arange(width)[None] // side) % 2).astype(np.float32)
    return _mix((70, 75, 85), (215, 210, 200), 0.85 * even + 0.15 * _cloud(height, width, noise, 10))


def _wood(height: int, width: int, noise: np.random.Generator) -> Plane:
    rows = np.arange(height, dtype=np.float32)[:, None] / height
    warped = rows * 9 + 1.5 * _cloud(height, width, noise, 2)
    return _mix((110, 65, 30), (195, 140, 85), (0.5 + 0.5 * np.sin(2 * np.pi * 4 * warped)).astype(np.float32))


def _night(height: int, width: int, noise: np.random.Generator) -> Plane:
    sky = _mix((8, 10, 30), (45, 40, 85), _cloud(height, width, noise, 3))
    stars = np.zeros((height, width), np.float32)
    for x, y, size in noise.random((420, 3)):
        cv2.circle(
            stars, (int(x * width), int(y * height)), 1 + int(size * 1.6), float(0.5 + size / 2), -1, cv2.LINE_AA
        )
    return np.asarray(sky + stars[..., None] * (np.float32(250) - sky), np.float32)


GROUNDS = {
    "grass": Ground("on green grass", _grass),
    "sky": Ground("against a cloudy sky", _sky),
    "sand": Ground("on rippled sand", _sand),
    "water": Ground("on dark water", _water),
    "bricks": Ground("in front of a brick wall", _bricks),
    "tiles": Ground("on a checkered floor", _tiles),
    "wood": Ground("on a wooden table", _wood),
    "night": Ground("under a starry night sky", _night),
}


def _mask(thing: Thing, center: NDArray[np.float64], shape: tuple[int, ...], short: int) -> Plane:
    """Where a thing is, 0..1, smooth at its edges; `center` in pixels of a part of the canvas of this shape."""
    mask = np.zeros(shape, np.uint8)
    radius = thing.radius * short
    if thing.shape in ("circle", "ring", "crescent"):
        _disc(mask, center, radius, 255)
        if thing.shape == "ring":
            _disc(mask, center, radius * 0.55, 0)
        elif thing.shape == "crescent":
            angle = np.radians(thing.turn)
            _disc(mask, center + radius * 0.45 * np.array([np.cos(angle), np.sin(angle)]), radius * 0.8, 0)
    else:
        angle = np.radians(thing.turn)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = center + radius * _outline(thing.shape) @ rotation.T
        cv2.fillPoly(mask, [np.round(corners * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return np.asarray(mask / np.float32(255), np.float32)


def _disc(mask: Pixels, center: NDArray[np.float64], radius: float, value: int) -> None:
    x, y = (round(float(number) * 16) for number in center)
    cv2.circle(mask, (x, y), round(radius * 16), value, -1, cv2.LINE_AA, shift=4)


def _outline(shape: str) -> NDArray[np.float64]:
    """Corners of a shape of radius 1 about the origin, y down."""
    if shape == "heart":
        t = np.linspace(0, 2 * np.pi, 60)
        x = 16 * np.sin(t) ** 3
        y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
        return np.stack([x, y], axis=1) / 16
    if shape == "cross":
        arm = 0.35
        quarter = np.array([[-arm, -1], [arm, -1], [arm, -arm], [1, -arm], [1, arm], [arm, arm]])
        return np.concatenate([quarter, -quarter])
    corners = {"square": 4, "diamond": 4, "triangle": 3, "hexagon": 6, "star": 10}[shape]
    angles = np.arange(corners) * 2 * np.pi / corners - np.pi / 2 + (np.pi / 4 if shape == "square" else 0)
    radii = np.where(np.arange(corners) % 2, 0.42, 1.0) if shape == "star" else np.ones(corners)
    stretch = (0.72, 1.0) if shape == "diamond" else (1.0, 1.0)
    return np.asarray(radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1) * stretch)


def _surface(thing: Thing, center: NDArray[np.float64], shape: tuple[int, ...], short: int) -> Plane:
    """A thing's color over a part of the canvas: its finish, lit from above."""
    u = (np.arange(shape[1], dtype=np.float32)[None] - np.float32(center[0])) / short
    v = (np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(center[1])) / short
    angle = np.radians(thing.turn)
    period = thing.radius / 2.6
    along = (np.cos(angle) * u + np.sin(angle) * v) / period
    across = (np.cos(angle) * v - np.sin(angle) * u) / period
    if thing.finish == "striped":
        pattern = np.floor(along) % 2
    elif thing.finish == "checked":
        pattern = (np.floor(along) + np.floor(across)) % 2
    elif thing.finish == "dotted":
        pattern = (along % 1 - 0.5) ** 2 + (across % 1 - 0.5) ** 2 < 0.09
    else:
        pattern = np.zeros_like(along)
    color = np.asarray(COLOURS[thing.color], np.float32)
    # A pattern's second tone is the same hue, lighter or (of light colors) darker, so that the caption stays true.
    second = color * 0.62 if color.mean() > 150 else color + (255 - color) * 0.45
    light = (1.05 - 0.17 * v / thing.radius)[..., None]
    return np.asarray((color + pattern.astype(np.float32)[..., None] * (second - color)) * light, np.float32)
