"""Drawing a recipe: a pure function of (seed, source key, grammar, picture size, captions, and the point to aim at, if any).

Lengths here are in short sides of the picture, so the picture is `width` x `height` with the smaller one 1, and a view's
side is its scale. Ranges stand in the grammar; this module sees to it that no view leaves the picture and that the clip
sees as much of it as the grammar asks for. A point that is aimed at moves views as far as that leaves them free, and changes
no draw: every move keeps its kind, and its size unless the clip would then see too little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from stillreel.animate.camera.crops import DIGITS, NOMINAL, SEEN_MARGIN, area_covered, draw_jump, draw_nested
from stillreel.animate.camera.geometry import Polygon, boxes_hull_area, hull, union_area
from stillreel.animate.camera.recipe import Jump, LookPlan, LookStep, Recipe, Shake, Shot, View
from stillreel.animate.camera.windows import advance, project, windows
from stillreel.animate.camera.words import speaks_of_sides
from stillreel.configs.grammar import MOVES, Grammar
from stillreel.configs.looks import Look
from stillreel.configs.system.dice import Dice, between, pick

MAX_ASPECT = 5.0  # longer pictures are not filmed

_FRAME = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
_MARGIN = 1e-5  # keeps a view inside after its numbers are rounded
_FASTEST = 5.0  # view sides a clip: at twelve frames and the hardest easing, each still overlaps the one before
_GROWTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SHORTEST_SHOT = 0.2
_HELD = 0.2  # a point that is aimed at comes this near a view's center, in view sides


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
    """What shots are drawn for: the picture in short sides, the point (x, y) to aim at, and whether a single shot must see
    it all by itself."""

    width: float
    height: float
    grammar: Grammar
    point: tuple[float, float] | None
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
    point: tuple[int, int] | None = None,
) -> Drawing:
    """How the still `source_key` is filmed. `name` is the grammar's, `picture` (width, height) with sides within 5:1.

    `point` is what the picture is about, in its pixels: views of shots come as near to it as the grammar leaves them free.
    Crops that are independent (jump) or nested about the middle are what they are.
    """
    short = min(picture)
    assert max(picture) <= MAX_ASPECT * short, picture
    width, height = picture[0] / short, picture[1] / short
    dice = Dice(seed, source_key)
    caption, flip = dice.units("clip", 2)
    flipped = flip < grammar.flip and not speaks_of_sides(captions)
    shots: tuple[Shot, ...] = ()
    jump: Jump | None = None
    if grammar.kind == "jump":
        jump, seen = draw_jump(grammar, dice, picture)
    elif grammar.kind == "nested":
        shots = draw_nested(grammar, dice)
        seen = shots[-1].start.scale ** 2 / (width * height)
    else:
        aim = (point[0] / short, point[1] / short) if point else None
        if aim and flipped:  # views are of the mirrored picture
            aim = (width - aim[0], aim[1])
        shots, seen = _draw_shots(grammar, dice, width, height, aim)
    recipe = Recipe(
        grammar=name,
        picture=picture,
        caption=int(caption * len(captions)),
        flip=flipped,
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
        return area_covered(windows(recipe, NOMINAL)[0][:, 0])
    return _swept(recipe.shots, width, height) / (width * height)


def _draw_shots(
    grammar: Grammar, dice: Dice, width: float, height: float, point: tuple[float, float] | None
) -> tuple[tuple[Shot, ...], float]:
    """Shots, and the share of the picture that they see."""
    count = 1 + pick(grammar.shots, dice.unit("shots"))
    draws = [ShotDraws(*dice.units(f"shot {number}", len(ShotDraws._fields))) for number in range(count)]
    shots: tuple[Shot, ...] = ()
    seen = 0.0
    # The drawn moves stay; their views grow, and lose what keeps them small, until the clip sees enough. If several
    # shots never do, on a very long picture, the first of them gets the whole clip.
    for kept in {count: draws, 1: draws[:1]}.values():
        stage = Stage(width, height, grammar, point, alone=len(kept) == 1)
        spans = _draw_spans(grammar, dice, len(kept))
        for growth in _GROWTHS:
            shots = tuple(_compose(stage, one, span, growth) for one, span in zip(kept, spans, strict=True))
            seen = _swept(shots, width, height) / (width * height)
            if seen >= grammar.seen + SEEN_MARGIN:
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
        shake=Shake(round(amount, DIGITS), int(draws.shake_seed * 2**32)) if amount else None,
    )


def _move(stage: Stage, draws: ShotDraws) -> str:
    """The drawn move; on a picture so long that no single view sees enough of it, a travel along it if there is one."""
    weights = stage.grammar.moves
    along = "pan" if stage.width >= stage.height else "tilt"
    one_view_is_enough = stage.aspect * (stage.grammar.seen + SEEN_MARGIN) <= 1
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
        low = max(low, math.sqrt((grammar.seen + SEEN_MARGIN) * stage.aspect))
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
    points = stage.point or (None, None)
    if move not in ("pan", "tilt", "diagonal"):
        x, y = (
            _place(size, wide, reach, _aimed(unit, 0.0, _way(size, wide, reach), point, wide))
            for size, unit, point in zip(sizes, (draws.x, draws.y), points, strict=True)
        )
        if move in ("static", "orbit"):
            return (x, y, wide), (x, y, wide)
        # The close view lies within the wide one: they share the point that is zoomed at.
        slack = (wide - close) / 2
        across, along = (
            _aimed(unit, 0.0, (middle - slack, middle + slack), point, close)
            for middle, unit, point in zip((x, y), (draws.across, draws.along), points, strict=True)
        )
        inner = (x + (across - 0.5) * (wide - close), y + (along - 0.5) * (wide - close), close)
        return ((x, y, wide), inner) if move == "zoom_in" else (inner, (x, y, wide))
    share = _shares(stage, move, draws, growth)
    begin, finish = wide, wide
    if move == "diagonal" and draws.compound < 0.3:
        finish = close
    elif move == "diagonal" and draws.compound < 0.6:
        begin = close
    starts, ends = [], []
    for size, unit, crossed, direction, point in zip(
        sizes, (draws.x, draws.y), share, (draws.direction_x, draws.direction_y), points, strict=True
    ):
        free = size - 2 * wide * reach
        crossed = min(crossed, _FASTEST * lasts * close / free) if free > 0 else 0.0
        first = _aimed(unit * (1 - crossed), crossed, _way(size, wide, reach), point, close)
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
    return between(*_way(size, scale, reach), unit)


def _way(size: float, scale: float, reach: float) -> tuple[float, float]:
    """The first and the last center on an axis of the picture that keep the view inside."""
    room = scale * reach + _MARGIN
    return (room, size - room) if size > 2 * room else (size / 2, size / 2)


def _aimed(first: float, crossed: float, way: tuple[float, float], point: float | None, scale: float) -> float:
    """Where on a way, 0 to 1, a path that crosses this share of it starts: moved as little as brings it to the point.

    It is there when all of the path is near the point, or the path leads past all that is near. A path that does not move
    is a view's center.
    """
    length = way[1] - way[0]
    if point is None or length <= 0:
        return first
    goal, near = (point - way[0]) / length, _HELD * scale / length
    low, high = sorted((goal - near, goal + near - crossed))
    spare = 1 - crossed
    edge = min(_MARGIN / length, spare / 2)  # unlike draws, points are at edges often
    return max(edge, min(max(low, min(first, high)), spare - edge))


def _view(stage: Stage, place: tuple[float, float, float], roll: float, yaw: float, pitch: float) -> View:
    x, y, scale = place
    numbers = (x / stage.width, y / stage.height, scale, roll, yaw, pitch)
    return View(*(round(number, DIGITS) + 0.0 for number in numbers))


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
        begin = math.ceil(shot.span[0] * (NOMINAL - 1))
        end = NOMINAL - 1 if number == len(shots) - 1 else max(begin, math.ceil(shot.span[1] * (NOMINAL - 1)) - 1)
        first = _corners(shot, begin / (NOMINAL - 1), width, height)
        last = _corners(shot, end / (NOMINAL - 1), width, height)
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
