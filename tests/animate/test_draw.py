"""Recipes: what is drawn, and what every drawing keeps to."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stillreel.animate.camera.draw import draw_recipe, seen_area
from stillreel.animate.camera.recipe import Recipe
from stillreel.animate.camera.windows import windows
from stillreel.animate.camera.words import in_words, speaks_of_sides
from stillreel.configs.grammar import load_grammar
from stillreel.configs.looks import load_look
from stillreel.configs.settings import preset_names
from stillreel.configs.system.dice import Dice, pick

GRAMMARS = ("film", "film-1shot", "still", "jump", "zoom", "pan", "nested")


def sizes() -> st.SearchStrategy[tuple[int, int]]:
    """Pictures from 32 px up, with sides up to 5:1."""
    short = st.integers(32, 700)
    ratio = st.floats(1, 5)
    return st.tuples(short, ratio, st.booleans()).map(_size)


def _size(drawn: tuple[int, float, bool]) -> tuple[int, int]:
    short, ratio, tall = drawn
    long = min(int(short * ratio), 5 * short)
    return (short, long) if tall else (long, short)


def draw(
    grammar: str, key: str, picture: tuple[int, int], seed: int = 0, captions: tuple[str, ...] = ("a dog",)
) -> Recipe:
    return draw_recipe(grammar, load_grammar(grammar), None, seed, key, picture, captions).recipe


def corners(matrices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Corners of windows (..., 3, 3) on the unit square of the picture: (..., 2, 4)."""
    mapped = matrices @ np.array([[0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1.0]])
    return mapped[..., :2, :] / mapped[..., 2:, :]


def measured_area(recipe: Recipe, frames: int = 12, grid: int = 120) -> float:
    """Share of the picture in any of the frames, by looking at points of it: slow, and independent of `seen_area`."""
    centers = (np.arange(grid) + 0.5) / grid
    points = np.stack([*(axis.ravel() for axis in np.meshgrid(centers, centers)), np.ones(grid * grid)])
    seen = np.zeros(grid * grid, bool)
    for window in windows(recipe, frames)[0].reshape(-1, 3, 3):
        back = np.linalg.inv(window) @ points
        seen |= ((back[:2] / back[2] >= 0) & (back[:2] / back[2] <= 1)).all(axis=0)
    return float(seen.mean())


@pytest.mark.parametrize("grammar", GRAMMARS)
@settings(max_examples=60, deadline=None)
@given(picture=sizes(), key=st.text(max_size=20), frames=st.integers(1, 50))
def test_no_view_leaves_the_picture(grammar: str, picture: tuple[int, int], key: str, frames: int) -> None:
    found = corners(windows(draw(grammar, key, picture), frames)[0])
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("grammar", GRAMMARS)
@settings(max_examples=25, deadline=None)
@given(picture=sizes(), key=st.text(max_size=20))
@example(picture=(160, 32), key="ÜÇê\x81")
def test_clip_sees_half_of_the_picture_or_what_its_grammar_can_reach(
    grammar: str, picture: tuple[int, int], key: str
) -> None:
    recipe = draw(grammar, key, picture)
    seen = measured_area(recipe)
    one_view = min(picture) / max(picture)
    travels = grammar in ("film", "film-1shot", "pan", "jump")
    assert seen >= min(0.5, 1 if travels else one_view) - 0.015  # the grid's own error
    # Of crops that jump it looks at 32 points along each side: on a long picture few lie in a crop.
    assert seen_area(recipe) == pytest.approx(seen, abs=0.08 if grammar == "jump" else 0.06)


@settings(max_examples=30, deadline=None)
@given(short=st.integers(32, 300), ratio=st.floats(2.01, 5), tall=st.booleans(), key=st.text(max_size=10))
def test_film_travels_along_a_long_picture(short: int, ratio: float, tall: bool, key: str) -> None:
    recipe = draw("film", key, _size((short, ratio, tall)))
    expected = {"tilt_up", "tilt_down"} if tall else {"pan_left", "pan_right"}
    assert set(recipe.moves) <= expected


def test_drawing_is_a_pure_function_of_its_arguments() -> None:
    first = [draw("film", f"key {number}", (640, 480)) for number in range(50)]
    again = [draw("film", f"key {number}", (640, 480)) for number in reversed(range(50))]
    assert first == again[::-1]
    assert len(set(map(repr, first))) == 50
    assert draw("film", "key 0", (640, 480), seed=1) != first[0]
    assert draw("film", "key 0", (640, 480), seed=0) == first[0], "a seed of 0 is a seed"


def test_grammars_share_the_caption_and_the_mirroring() -> None:
    """So that the controls of a study differ from film in motion alone."""
    captions = ("a dog", "a cat", "a cow")
    for number in range(40):
        drawn = {
            (recipe.caption, recipe.flip)
            for recipe in (draw(name, f"{number}", (640, 480), captions=captions) for name in GRAMMARS)
        }
        assert len(drawn) == 1


@pytest.mark.long
def test_film_has_the_moves_in_their_shares() -> None:
    moves = Counter(draw("film-1shot", f"{number}", (400, 400)).moves[0].split("_")[0] for number in range(4000))
    expected = {"zoom": 0.40, "pan": 0.15, "diagonal": 0.15, "static": 0.10, "tilt": 0.10, "orbit": 0.10}
    for move, share in expected.items():
        assert moves[move] / 4000 == pytest.approx(share, abs=0.025)
    shots = Counter(len(draw("film", f"{number}", (400, 400)).shots) for number in range(4000))
    for count, share in {1: 0.70, 2: 0.25, 3: 0.05}.items():
        assert shots[count] / 4000 == pytest.approx(share, abs=0.025)


def test_controls_are_what_they_claim() -> None:
    for number in range(30):
        still = windows(draw("still", f"{number}", (640, 480)), 12)[0]
        assert (still == still[0]).all(), "the same frame, T times"
        nested = [shot.start for shot in draw("nested", f"{number}", (640, 480)).shots]
        assert all((view.x, view.y) == (0.5, 0.5) for view in nested)
        assert [view.scale for view in nested] == sorted(view.scale for view in nested)
        jump = windows(draw("jump", f"{number}", (640, 480)), 12)[0][:, 0]
        assert len({matrix.tobytes() for matrix in jump}) == 12
        assert not windows(draw("zoom", f"{number}", (640, 480)), 12)[1].any(), "no dissolves without cuts"


@pytest.mark.parametrize(
    ("caption", "sides"),
    [
        ("a cat left of a dog", True),
        ("on the RIGHT", True),
        ("leftmost of three", True),
        ("turning counterclockwise", True),
        ("a right-handed player", True),
        ("bright copyright of an uprights", False),
        ("a cleft rock", False),
        ("a dog", False),
    ],
)
def test_pictures_are_mirrored_only_where_no_caption_speaks_of_sides(caption: str, sides: bool) -> None:
    assert speaks_of_sides([caption]) is sides
    flipped = [draw("film", f"{number}", (640, 480), captions=("a dog", caption)).flip for number in range(60)]
    assert any(flipped) is not sides
    if not sides:
        assert 15 < sum(flipped) < 45


@pytest.mark.parametrize("grammar", GRAMMARS)
@given(picture=sizes(), key=st.text(max_size=20))
@settings(max_examples=20, deadline=None)
def test_recipe_survives_json(grammar: str, picture: tuple[int, int], key: str) -> None:
    look = load_look("drifting")
    recipe = draw_recipe(grammar, load_grammar(grammar), look, 7, key, picture, ("a dog",)).recipe
    text = json.dumps(recipe.to_json())
    again = Recipe.from_json(json.loads(text))
    assert np.array_equal(windows(again, 12)[0], windows(recipe, 12)[0])
    assert again.to_json() == recipe.to_json()
    assert in_words(again) == in_words(recipe)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "recipe version None"),
        ({"version": 99}, "recipe version 99"),
        ({"version": 1, "grammar": "film"}, "not a recipe"),
    ],
)
def test_what_is_no_recipe_is_said(value: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.from_json(value)


def test_words() -> None:
    words = {in_words(draw("film", f"{number}", (640, 480))) for number in range(300)}
    for expected in (
        "zoom in",
        "zoom out",
        "pan left",
        "tilt up",
        "then cut",
        "then dissolve",
        "handheld",
        "orbit",
        "; mirrored",
    ):
        assert any(expected in sentence for sentence in words), expected
    assert in_words(draw("jump", "a", (640, 480))).startswith("jump between random crops")


def test_dice_are_uniform_and_independent() -> None:
    draws = np.array([Dice(3, f"{number}").units("a", 12) for number in range(4000)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(draws.mean(axis=0) - 0.5).max() < 0.02
    assert np.abs(draws.var(axis=0) - 1 / 12).max() < 0.005
    correlations = np.corrcoef(np.hstack([draws, [Dice(3, f"{n}").units("b", 2) for n in range(4000)]]).T) - np.eye(14)
    assert np.abs(correlations).max() < 0.06
    assert Dice(3, "x").units("a", 5) == Dice(3, "x").units("a", 12)[:5]


def test_pick_is_proportional() -> None:
    weights = (0.0, 1.0, 3.0, 0.0)
    counts = Counter(pick(weights, number / 1000) for number in range(1000))
    assert counts == {1: 250, 2: 750}
    assert pick(weights, 1 - 2**-53) == 2


def test_every_shipped_grammar_is_tested_here() -> None:
    assert set(GRAMMARS) == set(preset_names("grammars"))
