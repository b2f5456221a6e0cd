"""The world of the study: videos drawn by code in groups of four, which differ in one thing alone, with captions that tell it.

    content        four things: two colors times two shapes            a striped red star on green grass
    place          four places of two things to each other              a red shape left of a blue one
    object         a thing moves, and the camera stands                 a red shape grows
    camera         the camera moves, and the thing stands, or moves too the camera pans left over a red shape
    order          two things act, one after the other                  first a red shape jumps, then a blue one blinks

What moves is half of a *pair*: a video and its reverse, which have the same frames. So the mean of frames cannot tell a pair
apart, and finds one of its two videos by chance. Beside it in a group is a pair that looks much the same: of a thing that moves,
the camera that moves over it; of two acts, those that the two things have in exchange.

A video is a pure function of its plan, and the plan of (seed, split, number). No content (color, shape, background) of one
part is in another: `stills` are those that pretraining sees, the others are the splits of the benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Literal, NamedTuple, get_args

from stillreel.animate.scenes import COLOURS, FINISHES, GROUNDS, SHAPES
from stillreel.configs.system.dice import Dice

Kind = Literal["content", "place", "object", "camera", "order"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TEMPORAL: tuple[Kind, ...] = ("object", "camera", "order")  # of these a video and its reverse are a pair
Part = Literal["stills", "train", "validation", "test"]

GROUP = 4  # videos
PORTION = 40  # pairs of a video and a caption, of each kind as many
_BLOCKS: dict[Part, int] = {"stills": 9, "train": 8, "validation": 2, "test": 6}  # of 25 a background

# What a thing does by itself, forwards and backwards.
MOTIONS = {
    "across": ("moves to the right", "moves to the left"),
    "along": ("moves down", "moves up"),
    "size": ("grows", "shrinks"),
    "turn": ("turns clockwise", "turns counterclockwise"),
    "presence": ("appears", "disappears"),
    "behind": ("passes behind {other} to the right", "passes behind {other} to the left"),
}
# What the camera does, and which motions of a thing it looks like.
CAMERA = {
    "pan": ("the camera pans right", "the camera pans left"),
    "tilt": ("the camera tilts down", "the camera tilts up"),
    "zoom": ("the camera zooms in", "the camera zooms out"),
}
_LIKE = {"across": "pan", "along": "tilt", "size": "zoom", "turn": "pan", "presence": "zoom", "behind": "pan"}
_BESIDE = {"pan": "along", "tilt": "across", "zoom": "across"}  # what a thing does while the camera moves
ACTS = {"jump": "jumps", "blink": "blinks", "swell": "swells"}
_PLACES = ("left of", "right of", "above", "below")
# Where a thing is by itself, in pictures that are seen whole.
_SIDES = ("at the left", "at the right", "at the top", "at the bottom", "in the middle")


class Actor(NamedTuple):
    """A thing, whatever it does."""

    finish: str
    color: str
    shape: str

    @property
    def name(self) -> str:
        """
        >>> Actor("plain", "orange", "star").name
        'an orange star'
        """
        words = " ".join((*((self.finish,) if self.finish != "plain" else ()), self.color, self.shape))
        return _with_article(words)


class Content(NamedTuple):
    """Colors and shapes of a block, and its background: all four pairs of a color and a shape are in one part of the world."""

    colors: tuple[str, ...]
    shapes: tuple[str, ...]
    ground: str


class Plan(NamedTuple):
    """All that decides a video's frames. Of `act` and `camera` empty is none; `acts` are those of the two things, in turn."""

    actors: tuple[Actor, ...]
    ground: str
    dice: str  # of what is drawn: equal in a group, whose videos so differ in nothing else
    place: str = ""
    act: str = ""
    camera: str = ""
    against: bool = False  # the thing goes the other way than the camera
    acts: tuple[str, ...] = ()
    backwards: bool = False


class Video(NamedTuple):
    """A video of the benchmark. `pair` numbers those of a group that are each other's reverse; equal for no others."""

    id: str
    kind: Kind
    group: int
    pair: int
    caption: str
    plan: Plan


def plan_videos(seed: int, part: Part, count: int) -> Iterator[Video]:
    """The first `count` videos of a split, a multiple of PORTION: of each kind as many."""
    assert count % PORTION == 0
    for portion in range(count // PORTION):
        for place, make in enumerate(_PORTION):
            group = portion * len(_PORTION) + place
            dice = Dice(seed, f"{part} {group}")
            for member, (kind, pair, caption, plan) in enumerate(make(seed, part, dice)):
                name = f"{part}-{group:05d}-{member}"
                yield Video(name, kind, group, pair, caption, plan._replace(dice=f"{part} {group}"))


def plan_still(seed: int, number: int, *, whole: bool = False) -> tuple[Plan, str]:
    """A picture of the part that is pretrained on, of one or two things, and its caption.

    Of one that is seen `whole` the caption may tell on which side a thing is, which no camera may change. An image model that
    never had to know where things are has class tokens without it, and nothing that joins frames can then see what moves.
    """
    dice = Dice(seed, f"still {number}")
    actors, ground = _two(seed, "stills", dice)
    if whole and dice.unit("side") < 0.4:
        side = _SIDES[int(dice.unit("which side") * len(_SIDES))]
        return Plan(actors[:1], ground, f"still {number}", side), f"{_shape(actors[0])} {side}"
    if dice.unit("alone") < 0.4:
        return Plan(actors[:1], ground, f"still {number}"), f"{actors[0].name} {GROUNDS[ground].words}"
    place = _PLACES[int(dice.unit("place") * len(_PLACES))]
    told = f"{actors[0].name} {place} {actors[1].name} {GROUNDS[ground].words}"
    if (
        dice.unit("brief") < 0.5
    ):  # so that pictures of a batch are told apart by their places, which names alone would not need
        told = f"{_shape(actors[0])} {place} {_one(actors[1])}"
    return Plan(actors, ground, f"still {number}", place), told


@cache
def contents(seed: int, part: Part) -> tuple[Content, ...]:
    """The blocks of a part: of each background its share of the 25 pairs of colors and shapes, drawn."""
    colors, shapes = _paired(tuple(COLOURS), seed), _paired(SHAPES, seed)
    first = sum(list(_BLOCKS.values())[: list(_BLOCKS).index(part)])
    found = []
    for ground in GROUNDS:
        blocks = list(product(colors, shapes))
        order = Dice(seed, f"blocks {ground}").units("order", len(blocks))
        shuffled = [block for _, block in sorted(zip(order, blocks, strict=True))]
        found += [Content(*block, ground) for block in shuffled[first : first + _BLOCKS[part]]]
    return tuple(found)


def _paired(names: Sequence[str], seed: int) -> list[tuple[str, ...]]:
    order = Dice(seed, "pairs of names").units(names[0], len(names))
    shuffled = [name for _, name in sorted(zip(order, names, strict=True))]
    return [tuple(shuffled[at : at + 2]) for at in range(0, len(shuffled), 2)]


def _block(seed: int, part: Part, dice: Dice) -> Content:
    blocks = contents(seed, part)
    return blocks[int(dice.unit("block") * len(blocks))]


def _two(seed: int, part: Part, dice: Dice) -> tuple[tuple[Actor, Actor], str]:
    """Two things of different shapes on one background."""
    block = _block(seed, part, dice)
    first = _actor(block, dice, "first")
    others = [
        actor
        for other in contents(seed, part)
        if other.ground == block.ground
        for actor in map(Actor._make, product(FINISHES, other.colors, other.shapes))
        if actor.shape != first.shape and actor.color != first.color
    ]
    return (first, others[int(dice.unit("second") * len(others))]), block.ground


def _actor(block: Content, dice: Dice, label: str) -> Actor:
    finish, color, shape = dice.units(label, 3)
    return Actor(
        FINISHES[int(finish * len(FINISHES))],
        block.colors[int(color * len(block.colors))],
        block.shapes[int(shape * len(block.shapes))],
    )


Member = tuple[Kind, int, str, Plan]


def _content_group(seed: int, part: Part, dice: Dice) -> Iterator[Member]:
    """Two colors times two shapes, in one motion."""
    block = _block(seed, part, dice)
    finish = FINISHES[int(dice.unit("finish") * len(FINISHES))]
    act, camera = _any_motion(dice)
    for number, (color, shape) in enumerate(product(block.colors, block.shapes)):
        actor = Actor(finish, color, shape)
        plan = Plan((actor,), block.ground, "", act=act, camera=camera, backwards=dice.unit("way") < 0.5)
        yield "content", number, f"{actor.name} {GROUNDS[block.ground].words}", plan


def _place_group(seed: int, part: Part, dice: Dice) -> Iterator[Member]:
    """Four places of the same two things, under one camera."""
    actors, ground = _two(seed, part, dice)
    _, camera = _any_motion(dice)
    for number, place in enumerate(_PLACES):
        plan = Plan(actors, ground, "", place=place, camera=camera, backwards=dice.unit("way") < 0.5)
        yield "place", number, f"{_shape(actors[0])} {place} {_one(actors[1])}", plan


def _motion_group(seed: int, part: Part, dice: Dice) -> Iterator[Member]:
    """A thing that moves and its reverse, and beside them the camera that moves over it."""
    actors, ground = _two(seed, part, dice)
    act = tuple(MOTIONS)[int(dice.unit("motion") * len(MOTIONS))]
    if act == "turn" and actors[0].shape in ("circle", "ring"):
        act = "across"  # nobody sees these turn
    shown = actors if act == "behind" else actors[:1]
    place = "same" if act == "behind" else ""
    one = _shape(actors[0])
    for way, words in enumerate(MOTIONS[act]):
        told = words.format(other=_one(shown[-1]))
        plan = Plan(shown, ground, "", place=place, act=act, backwards=way == 1)
        yield "object", 0, f"{one} {told}", plan
    for way, words in enumerate(CAMERA[_LIKE[act]]):
        plan = Plan(shown, ground, "", place=place, camera=_LIKE[act], backwards=way == 1)
        yield "camera", 1, f"{words} over {_shape(shown[-1])}", plan


def _both_group(seed: int, part: Part, dice: Dice) -> Iterator[Member]:
    """A thing and the camera move at once: each both ways."""
    actors, ground = _two(seed, part, dice)
    camera = tuple(CAMERA)[int(dice.unit("camera") * len(CAMERA))]
    act, one = _BESIDE[camera], _shape(actors[0])
    for against, way in product((False, True), (0, 1)):
        plan = Plan(actors[:1], ground, "", act=act, camera=camera, against=against, backwards=way == 1)
        moves, films = MOTIONS[act][way != against], CAMERA[camera][way]
        if against:
            yield "camera", 1, f"{films} while {one} {moves}", plan
        else:
            yield "object", 0, f"{one} {moves} while {films}", plan


def _order_group(seed: int, part: Part, dice: Dice) -> Iterator[Member]:
    """Two things act one after the other; and with each other's acts."""
    actors, ground = _two(seed, part, dice)
    names = list(ACTS)
    first = names.pop(int(dice.unit("first act") * len(names)))
    second = names.pop(int(dice.unit("second act") * len(names)))
    for pair, acts in enumerate(((first, second), (second, first))):
        for way in (0, 1):
            (one, does), (other, follows) = list(zip(actors, acts, strict=True))[:: 1 - 2 * way]
            before, after = f"{_shape(one)} {ACTS[does]}", f"{_one(other)} {ACTS[follows]}"
            plan = Plan(actors, ground, "", place="left of", acts=acts, backwards=way == 1)
            yield "order", pair, f"first {before}, then {after}", plan


_PORTION = (
    *(_content_group, _place_group, _order_group, _motion_group, _motion_group),
    *(_content_group, _place_group, _order_group, _motion_group, _both_group),
)


def _any_motion(dice: Dice) -> tuple[str, str]:
    """An act and a move of the camera, of which one is none."""
    moves = (("", ""), ("across", ""), ("along", ""), ("size", ""), ("", "pan"), ("", "tilt"), ("", "zoom"))
    return moves[int(dice.unit("any motion") * len(moves))]


def _shape(actor: Actor) -> str:
    """By its color, which is the first that a small image model learns: a query of motion is not to fail at what moves."""
    return _with_article(f"{actor.color} shape")


def _one(actor: Actor) -> str:
    """The second one that is spoken of."""
    return _with_article(f"{actor.color} one")


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
