"""Drawing a recipe: a pure function of (seed, source key, grammar, picture size, captions).

Lengths here are in short sides of the picture, so the picture is `width` x `height` with the smaller one 1, and a view's
side is its scale. Ranges stand in the grammar; this module sees to it that no view leaves the picture and that the clip
sees as much of it as the grammar asks for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stillreel.animate.camera.geometry import Polygon, boxes_hull_area, hull, union_area
from stillreel.animate.camera.recipe import Jump, LookPlan, LookStep, Recipe, Shake, Shot, View
from stillreel.animate.camera.windows import advance, project, windows
from stillreel.animate.camera.words import speaks_of_sides
from stillreel.configs.grammar import MOVES, Grammar
from stillreel.configs.looks import Look
from stillreel.configs.system.dice import Dice, between

MAX_ASPECT = 5.0  # longer pictures are not filmed

_DIGITS = 6
_FRAME = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
_MARGIN = 1e-5  # keeps a view inside after its numbers are rounded
_SEEN_MARGIN = 0.03  # the area is measured along the camera's path, a clip of T frames sees a little less of it
_FASTEST = 5.0  # view sides a clip: at twelve frames and the hardest easing, each still overlaps the one before
_NOMINAL = 12  # frames of the clip by which the seen area is measured
_GROWTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SHORTEST_SHOT = 0.2
_JUMP_TRIES = 8


class ShotDraws(NamedTuple):
    """All that is drawn for one shot, each uniform in [0, 1). New ones go to the end: the others keep their values."""

    move: float
    scale: float
    zoom: float
    x: float
    y: float
    across: float  # share of the free way crossed to the side
    along: float  # share of the free way crossed up or down
    direction_x: float
    direction_y: float
    ease: float
    roll: float  # whether there is one
    roll_start: float
    roll_end: float
    yaw: float
    pitch: float
    axis: float  # which of yaw and pitch an orbit is mostly about
    shake: float  # whether there is one
    shake_amount: float
    shake_seed: float
    compound: float  # whether a diagonal also zooms, and which way


class Stage(NamedTuple):
    """What shots are drawn for: the picture in short sides, and whether a single shot must see it all by itself."""

    width: float
    height: float
    grammar: Grammar
    alone: bool

    @property
    def aspect(self) -> float:
        return max(self.width, self.height)


class Drawing(NamedTuple):
    """A recipe, and the share of the picture that its camera passes over (see `seen_area`)."""

    recipe: Recipe
    seen: float


def draw_recipe(
    name: str,
    grammar: Grammar,
    look: Look | None,
    seed: int,
    source_key: str,
    picture: tuple[int, int],
    captions: Sequence[str],
) -> Drawing:
    """How the still `source_key` is filmed. `name` is the grammar's, `picture` (width, height) with sides within 5:1."""
    short = min(picture)
    assert max(picture) <= MAX_ASPECT * short, picture
    width, height = picture[0] / short, picture[1] / short
    dice = Dice(seed, source_key)
    caption, flip = dice.units("clip", 2)
    shots: tuple[Shot, ...] = ()
    jump: Jump | None = None
    if grammar.kind == "jump":
        jump, seen = _draw_jump(grammar, dice, picture)
    elif grammar.kind == "nested":
        shots = _draw_nested(grammar, dice)
        seen = shots[-1].start.scale ** 2 / (width * height)
    else:
        shots, seen = _draw_shots(grammar, dice, width, height)
    recipe = Recipe(
        grammar=name,
        picture=picture,
        caption=int(caption * len(captions)),
        flip=flip < grammar.flip and not speaks_of_sides(captions),
        shots=shots,
        jump=jump,
        look=_draw_look(look, dice) if look else None,
    )
    return Drawing(recipe, seen)


def seen_area(recipe: Recipe) -> float:
    """Share of the picture that a clip of twelve frames passes over, 0 to 1.

    Exact for moves without roll, perspective and shake; these change it by a percent or two.
    """
    short = min(recipe.picture)
    width, height = recipe.picture[0] / short, recipe.picture[1] / short
    if recipe.jump:
        return _covered(windows(recipe, _NOMINAL)[0][:, 0])
    return _swept(recipe.shots, width, height) / (width * height)


def _draw_shots(grammar: Grammar, dice: Dice, width: float, height: float) -> tuple[tuple[Shot, ...], float]:
    """Shots, and the share of the picture that they see."""
    count = 1 + pick(grammar.shots, dice.unit("shots"))
    draws = [ShotDraws(*dice.units(f"shot {number}", len(ShotDraws._fields))) for number in range(count)]
    shots: tuple[Shot, ...] = ()
    seen = 0.0
    # The drawn moves stay; their views grow, and lose what keeps them small, until the clip sees enough. If several
    # shots never do, on a very long picture, the first of them gets the whole clip.
    for kept in {count: draws, 1: draws[:1]}.values():
        stage = Stage(width, height, grammar, alone=len(kept) == 1)
        spans = _draw_spans(grammar, dice, len(kept))
        for growth in _GROWTHS:
            shots = tuple(_compose(stage, one, span, growth) for one, span in zip(kept, spans, strict=True))
            seen = _swept(shots, width, height) / (width * height)
            if seen >= grammar.seen + _SEEN_MARGIN:
                return shots, seen
    return shots, seen


def _draw_spans(grammar: Grammar, dice: Dice, count: int) -> list[tuple[float, float]]:
    """Spans of the shots: cuts at random times, none too close to another; a dissolve is an overlap."""
    shortest = min(_SHORTEST_SHOT, 0.6 / count)
    cuts = [
        shortest * (number + 1) + (1 - shortest * count) * unit
        for number, unit in enumerate(sorted(dice.units("cuts", count - 1)))
    ]
    begins, ends = [0.0], []
    for number, cut in enumerate(cuts):
        chance, length = dice.units(f"dissolve {number}", 2)
        half = between(*grammar.dissolve, length) / 2 if chance < grammar.dissolve_chance else 0.0
        half = min(half, shortest / 2)
        ends.append(round(cut + half, 4))
        begins.append(round(cut - half, 4))
    return list(zip(begins, [*ends, 1.0], strict=True))


def _compose(stage: Stage, draws: ShotDraws, span: tuple[float, float], growth: float) -> Shot:
    """One shot from its draws. `growth` 0 is as drawn; at 1 the views are as large as the grammar lets them be."""
    grammar = stage.grammar
    move = _move(stage, draws)
    roll_start, roll_end, yaw, pitch = _angles(grammar, move, draws, growth)
    shaken = draws.shake < grammar.shake.chance
    amount = between(*grammar.shake.amount, draws.shake_amount) * (1 - growth) if shaken else 0.0
    reach = _reach(max(abs(roll_start), abs(roll_end)), yaw, pitch) + amount
    wide, close = _scales(stage, move, draws, growth, 1.0 if reach == 0.5 else 1 / (2 * reach) - _MARGIN)
    start, end = _path(stage, move, draws, growth, wide, close, reach, span[1] - span[0])
    name = move
    if move == "pan":
        name = "pan_left" if end[0] < start[0] else "pan_right"
    elif move == "tilt":
        name = "tilt_up" if end[1] < start[1] else "tilt_down"
    still = start == end and move != "orbit"
    return Shot(
        move=name,
        span=span,
        start=_view(stage, start, roll_start, -yaw, -pitch),
        end=_view(stage, end, roll_start if still else roll_end, yaw, pitch),
        ease="linear" if still else grammar.easing[int(draws.ease * len(grammar.easing))],
        shake=Shake(round(amount, _DIGITS), int(draws.shake_seed * 2**32)) if amount else None,
    )


def _move(stage: Stage, draws: ShotDraws) -> str:
    """The drawn move; on a picture so long that no single view sees enough of it, a travel along it if there is one."""
    weights = stage.grammar.moves
    along = "pan" if stage.width >= stage.height else "tilt"
    one_view_is_enough = stage.aspect * (stage.grammar.seen + _SEEN_MARGIN) <= 1
    if not one_view_is_enough and getattr(weights, along) > 0:
        return along
    return MOVES[pick(weights.listed(), draws.move)]


def _angles(grammar: Grammar, move: str, draws: ShotDraws, growth: float) -> tuple[float, float, float, float]:
    """Roll at either end, and the yaw and pitch from whose negatives an orbit starts; degrees."""
    roll_start = roll_end = yaw = pitch = 0.0
    if draws.roll < grammar.roll_chance:
        roll_start = between(-grammar.roll, grammar.roll, draws.roll_start) * (1 - growth)
        roll_end = between(-grammar.roll, grammar.roll, draws.roll_end) * (1 - growth)
    if move == "orbit":
        mostly, partly = between(*grammar.orbit, draws.yaw), between(0, grammar.orbit[0], draws.pitch)
        yaw, pitch = (mostly, partly) if draws.axis < 0.7 else (partly, mostly)
        yaw *= (1 - growth) * _sign(draws.direction_x)
        pitch *= (1 - growth) * _sign(draws.direction_y)
    return roll_start, roll_end, yaw, pitch


def _scales(stage: Stage, move: str, draws: ShotDraws, growth: float, largest: float) -> tuple[float, float]:
    """Side of the view at the wide and at the close end of the move, neither above `largest`."""
    grammar = stage.grammar
    low, high = grammar.scale
    high = min(high, largest)
    if stage.alone and move not in ("pan", "tilt", "diagonal"):
        # One view, or one that holds all others, sees scale^2 / aspect of the picture.
        low = max(low, math.sqrt((grammar.seen + _SEEN_MARGIN) * stage.aspect))
    wide = between(min(low, high), high, draws.scale)
    wide += growth * (high - wide)
    if not move.startswith("zoom") and move != "diagonal":
        return wide, wide
    wide = max(wide, min(high, grammar.scale[0] * grammar.zoom[0]))
    ratio = between(grammar.zoom[0], max(grammar.zoom[0], min(grammar.zoom[1], wide / grammar.scale[0])), draws.zoom)
    return wide, wide / ratio


def _path(
    stage: Stage, move: str, draws: ShotDraws, growth: float, wide: float, close: float, reach: float, lasts: float
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Center and scale at the start and at the end of a shot that `lasts` this part of the clip.

    Centers keep `reach` view sides from the edges. No way is longer than the camera's fastest pace allows.
    """
    sizes = (stage.width, stage.height)
    if move in ("static", "orbit"):
        x, y = (_place(size, wide, reach, unit) for size, unit in zip(sizes, (draws.x, draws.y), strict=True))
        return (x, y, wide), (x, y, wide)
    if move in ("zoom_in", "zoom_out"):
        # The close view lies within the wide one: they share the point that is zoomed at.
        x, y = (_place(size, wide, reach, unit) for size, unit in zip(sizes, (draws.x, draws.y), strict=True))
        inner = (x + (draws.across - 0.5) * (wide - close), y + (draws.along - 0.5) * (wide - close), close)
        return ((x, y, wide), inner) if move == "zoom_in" else (inner, (x, y, wide))
    share = _shares(stage, move, draws, growth)
    begin, finish = wide, wide
    if move == "diagonal" and draws.compound < 0.3:
        finish = close
    elif move == "diagonal" and draws.compound < 0.6:
        begin = close
    starts, ends = [], []
    for size, unit, crossed, direction in zip(
        sizes, (draws.x, draws.y), share, (draws.direction_x, draws.direction_y), strict=True
    ):
        free = size - 2 * wide * reach
        crossed = min(crossed, _FASTEST * lasts * close / free) if free > 0 else 0.0
        first = unit * (1 - crossed)
        path = (first, first + crossed) if direction < 0.5 else (first + crossed, first)
        starts.append(_place(size, begin, reach, path[0]))
        ends.append(_place(size, finish, reach, path[1]))
    return (starts[0], starts[1], begin), (ends[0], ends[1], finish)


def _shares(stage: Stage, move: str, draws: ShotDraws, growth: float) -> tuple[float, float]:
    """Share of the free way that is crossed to the side, and up or down."""
    low, high = stage.grammar.travel
    across, along = (between(low, high, unit) for unit in (draws.across, draws.along))
    across, along = (share + growth * (high - share) for share in (across, along))
    return (across if move != "tilt" else 0.0), (along if move != "pan" else 0.0)


def _place(size: float, scale: float, reach: float, unit: float) -> float:
    """A center on an axis of the picture, `unit` of the way between the first and the last that keep the view inside."""
    room = scale * reach + _MARGIN
    return between(room, size - room, unit) if size > 2 * room else size / 2


def _view(stage: Stage, place: tuple[float, float, float], roll: float, yaw: float, pitch: float) -> View:
    x, y, scale = place
    numbers = (x / stage.width, y / stage.height, scale, roll, yaw, pitch)
    return View(*(round(number, _DIGITS) + 0.0 for number in numbers))


def _reach(roll: float, yaw: float, pitch: float) -> float:
    """How far a view with these largest angles extends from its center along either axis, in view sides."""
    across = along = 0.5
    if yaw or pitch:
        corners = [project(abs(yaw), abs(pitch), u, v) for u, v in _FRAME]
        across, along = max(abs(x) for x, _ in corners), max(abs(y) for _, y in corners)
    cos, sin = math.cos(math.radians(roll)), math.sin(math.radians(abs(roll)))
    return max(across * cos + along * sin, across * sin + along * cos)


def _swept(shots: Sequence[Shot], width: float, height: float) -> float:
    """Area that the shots pass over: each sweeps the hull of its first and its last frame in a clip of twelve."""
    polygons: list[Polygon] = []
    for number, shot in enumerate(shots):
        begin = math.ceil(shot.span[0] * (_NOMINAL - 1))
        end = _NOMINAL - 1 if number == len(shots) - 1 else max(begin, math.ceil(shot.span[1] * (_NOMINAL - 1)) - 1)
        first = _corners(shot, begin / (_NOMINAL - 1), width, height)
        last = _corners(shot, end / (_NOMINAL - 1), width, height)
        if len(shots) == 1 and first[0][0] == first[3][0] and last[0][0] == last[3][0]:
            return boxes_hull_area(first, last)
        polygons.append(hull((*first, *last)))
    return union_area(polygons)


def _corners(shot: Shot, time: float, width: float, height: float) -> Polygon:
    """Corners of the view at a time, in short sides; of its shake nothing."""
    blend, progress = advance(shot, time)
    start, end = shot.start, shot.end
    x = (start.x + blend * (end.x - start.x)) * width
    y = (start.y + blend * (end.y - start.y)) * height
    scale = start.scale + blend * (end.scale - start.scale)
    roll, yaw, pitch = (a + progress * (b - a) for a, b in zip(start[3:], end[3:], strict=True))
    if not (roll or yaw or pitch):
        half = scale / 2
        return ((x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half))
    points = [project(yaw, pitch, u, v) for u, v in _FRAME] if yaw or pitch else _FRAME
    cos, sin = math.cos(math.radians(roll)) * scale, math.sin(math.radians(roll)) * scale
    return [(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in points]


def _draw_nested(grammar: Grammar, dice: Dice) -> tuple[Shot, ...]:
    """Center crops of growing size, cut to cut, equally long; the last is the largest that the grammar allows."""
    count = 1 + pick(grammar.shots, dice.unit("shots"))
    low, high = grammar.scale
    scales = [*sorted(between(low, high, unit) for unit in dice.units("scales", count - 1)), high]
    shots = []
    for number, scale in enumerate(scales):
        view = View(0.5, 0.5, round(scale, _DIGITS))
        shots.append(Shot("crop", (round(number / count, 4), round((number + 1) / count, 4)), view, view))
    return tuple(shots)


def _draw_jump(grammar: Grammar, dice: Dice, picture: tuple[int, int]) -> tuple[Jump, float]:
    """The first of a few drawn seeds whose crops cover what the grammar asks for, else the one that covers most."""
    best: tuple[float, Jump] | None = None
    for attempt in range(_JUMP_TRIES):
        jump = Jump(dice.seed(f"jump {attempt}"), grammar.scale)
        covered = _covered(windows(Recipe("jump", picture, jump=jump), _NOMINAL)[0][:, 0])
        if best is None or covered > best[0]:
            best = covered, jump
        if covered >= grammar.seen + _SEEN_MARGIN:
            break
    assert best is not None
    return best[1], best[0]


def _covered(crops: np.ndarray, grid: int = 32) -> float:
    """Share of the unit square that axis-aligned windows (n, 3, 3), mirrored or not, cover; on a grid."""
    centers = (np.arange(grid) + 0.5) / grid
    low_x, low_y = crops[:, 0, 2] + np.minimum(crops[:, 0, 0], 0), crops[:, 1, 2]
    in_x = (centers >= low_x[:, None]) & (centers < (low_x + np.abs(crops[:, 0, 0]))[:, None])
    in_y = (centers >= low_y[:, None]) & (centers < (low_y + crops[:, 1, 1])[:, None])
    return float((in_y[:, :, None] & in_x[:, None, :]).any(axis=0).mean())


def _draw_look(look: Look, dice: Dice) -> LookPlan:
    drifts = dice.unit("look drift") < look.drift
    return LookPlan(_draw_steps(look, dice, "first"), _draw_steps(look, dice, "last") if drifts else None)


def _draw_steps(look: Look, dice: Dice, which: str) -> tuple[LookStep, ...]:
    """The steps whose chance came up, with their values. Both ends of a drift have the same steps."""
    steps = []
    for number, step in enumerate(look.steps):
        if dice.unit(f"look {number}") < step.chance:
            names = sorted(step.ranges)
            units = dice.units(f"look {number} {which}", len(names))
            values = {
                name: round(between(*step.ranges[name], unit), 4) for name, unit in zip(names, units, strict=True)
            }
            steps.append(LookStep(step.transform, values))
    return tuple(steps)


def _sign(unit: float) -> float:
    return -1.0 if unit < 0.5 else 1.0


def pick(weights: Sequence[float], unit: float) -> int:
    """Index drawn in proportion to `weights`, of which at least one is positive."""
    left = unit * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return max(index for index, weight in enumerate(weights) if weight > 0)  # rounding at the very end
