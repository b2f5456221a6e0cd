"""What pictures are about, and that views prefer it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.framing import points_of, share_seen
from stillreel.animate.camera.draw import draw_recipe
from stillreel.animate.camera.recipe import Recipe
from stillreel.animate.camera.windows import windows
from stillreel.animate.clips.decode import salient_point_of
from stillreel.animate.pictures.saliency import salient_point
from stillreel.animate.scenes import draw_scene, mask_of, plan_scene
from stillreel.configs.grammar import load_grammar
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.plan import read_plans
from tests.animate.test_draw import GRAMMARS, corners, draw, measured_area, sizes
from tests.making import animate, data_digests, members_of_tars, picture_folder, stillreel

PATTERN = (81, 81)
SCENES = [(154, 266), (238, 322), (231, 121), (165, 253)]


def spotted(width: int, height: int, x: int, y: int) -> NDArray[np.uint8]:
    pixels = np.full((height, width, 3), (60, 90, 60), np.uint8)
    cv2.circle(pixels, (x, y), min(width, height) // 8, (210, 60, 50), -1)
    return pixels


@settings(max_examples=60, deadline=None)
@given(picture=sizes(), across=st.floats(0.15, 0.85), down=st.floats(0.15, 0.85))
def test_the_point_is_on_the_only_thing_there_is(picture: tuple[int, int], across: float, down: float) -> None:
    width, height = picture
    x, y = int(across * width), int(down * height)
    found = salient_point(spotted(width, height, x, y))
    assert np.hypot(found[0] - x, found[1] - y) <= 0.2 * min(picture) + max(picture) / 24


@settings(max_examples=40, deadline=None)
@given(picture=sizes() | st.tuples(st.integers(1, 5), st.integers(1, 5)), seed=st.integers(0, 99))
def test_the_point_lies_in_the_picture(picture: tuple[int, int], seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (picture[1], picture[0], 3), np.uint8)
    x, y = salient_point(noise)
    assert 0 <= x < picture[0]
    assert 0 <= y < picture[1]


def test_a_plain_picture_is_about_its_middle() -> None:
    assert salient_point(np.full((40, 64, 3), 17, np.uint8)) == (32, 20)


def test_the_point_is_the_same_on_every_machine() -> None:
    """Pinned, like the golden bytes: recipes of aim=salient are drawn from it. And neither threads nor vectors matter."""
    pixels = [draw_scene(plan_scene(4, number)) for number in range(4)]
    y, x = np.mgrid[:300, :400]
    pattern = np.stack([(x * 7 + y * 3) % 256, (x * y // 37) % 256, ((x // 9 + y // 13) % 2) * 200 + 20], axis=-1)
    try:
        for optimized in (True, False):
            cv2.setUseOptimized(optimized)
            assert salient_point(pattern.astype(np.uint8)) == PATTERN
            assert [salient_point(one) for one in pixels] == SCENES
    finally:
        cv2.setUseOptimized(True)


def aimed(grammar: str, key: str, picture: tuple[int, int], at: tuple[float, float]) -> Recipe:
    point = (int(at[0] * picture[0]), int(at[1] * picture[1]))
    return draw_recipe(grammar, load_grammar(grammar), None, 0, key, picture, ("a dog",), point).recipe


def places() -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(st.floats(0, 0.999), st.floats(0, 0.999))


@pytest.mark.parametrize("grammar", GRAMMARS)
@settings(max_examples=60, deadline=None)
@given(picture=sizes(), key=st.text(max_size=20), frames=st.integers(1, 50), at=places())
def test_no_aimed_view_leaves_the_picture(
    grammar: str, picture: tuple[int, int], key: str, frames: int, at: tuple[float, float]
) -> None:
    found = corners(windows(aimed(grammar, key, picture, at), frames)[0])
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("grammar", GRAMMARS)
@settings(max_examples=25, deadline=None)
@given(picture=sizes(), key=st.text(max_size=20), at=places())
def test_an_aimed_clip_sees_half_of_the_picture_too(
    grammar: str, picture: tuple[int, int], key: str, at: tuple[float, float]
) -> None:
    seen = measured_area(aimed(grammar, key, picture, at))
    travels = grammar in ("film", "film-1shot", "pan", "jump")
    assert seen >= min(0.5, 1 if travels else min(picture) / max(picture)) - 0.015


@pytest.mark.parametrize("grammar", GRAMMARS)
@settings(max_examples=25, deadline=None)
@given(picture=sizes(), key=st.text(max_size=20), at=places())
def test_aiming_changes_where_and_nothing_else(
    grammar: str, picture: tuple[int, int], key: str, at: tuple[float, float]
) -> None:
    """A study of aim= differs in framing alone: caption, mirroring, moves (but left and right) and easing are as drawn."""
    plain, found = draw(grammar, key, picture), aimed(grammar, key, picture, at)
    assert (found.caption, found.flip) == (plain.caption, plain.flip)
    if len(found.shots) == len(plain.shots):
        assert [shot.move for shot in found.shots] == [shot.move for shot in plain.shots]
        assert [(shot.span, shot.ease) for shot in found.shots] == [(shot.span, shot.ease) for shot in plain.shots]
    if grammar in ("jump", "nested"):
        assert found == plain


@settings(max_examples=60, deadline=None)
@given(picture=sizes(), key=st.text(max_size=20), at=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)))
def test_a_still_view_holds_the_point_near_its_middle_where_it_can(
    picture: tuple[int, int], key: str, at: tuple[float, float]
) -> None:
    recipe = aimed("still", key, picture, at)
    view, short = recipe.shots[0].start, min(picture)
    for center, side, place in zip((view.x, view.y), picture, at, strict=True):
        place = 1 - place if recipe.flip and side == picture[0] and center == view.x else place
        apart, room = abs(center - int(place * side) / side) * side / short, view.scale / 2
        at_the_edge = min(center * side / short, (1 - center) * side / short) <= room + 0.01
        assert apart <= 0.2 * view.scale + 0.02 or at_the_edge


@pytest.mark.parametrize("grammar", ["film", "zoom"])
def test_clips_see_more_of_what_the_picture_is_about(grammar: str) -> None:
    """Drawn scenes of which the thing is known: see benchmarks/framing.py for the figures."""
    none: list[float] = []
    salient: list[float] = []
    for number in range(60):
        scene = plan_scene(3, number)
        thing = max(scene.things, key=lambda one: mask_of(one, scene).sum())
        points = points_of(mask_of(thing, scene))
        size = (scene.width, scene.height)
        for shares, point in ((none, None), (salient, salient_point(draw_scene(scene)))):
            recipe = draw_recipe(grammar, load_grammar(grammar), None, 0, str(number), size, ("a",), point).recipe
            shares.append(share_seen(recipe, points))
    assert np.mean(salient) > np.mean(none) + 0.02


def test_the_point_is_stored_and_the_same_for_any_worker_and_store(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "stills", 12)
    assert animate(source, tmp_path / "one", aim="salient", shard_size=5, frames=3, size=32) == 0
    said = stillreel(
        "animate",
        source,
        tmp_path / "two",
        "ray=off",
        "workers=2",
        "aim=salient",
        "shard_size=5",
        "frames=3",
        "size=32",
    )
    assert said.returncode == 0, said.stderr
    assert data_digests(tmp_path / "one") == data_digests(tmp_path / "two")
    assert animate(source, tmp_path / "frames", aim="salient", shard_size=5, frames=3, size=32, store="frames") == 0
    told = [
        {name: json.loads(data) for name, data in members_of_tars(tmp_path / out).items() if name.endswith(".json")}
        for out in ("one", "frames")
    ]
    assert told[0] == told[1]
    assert len({tuple(one["salient_point"]) for one in told[0].values()}) > 6
    for one in told[0].values():
        point = salient_point_of(one, tuple(one["size"]))
        drawn = draw_recipe(
            "film", load_grammar("film"), None, 0, one["source_key"], tuple(one["size"]), one["captions"], point
        )
        assert drawn.recipe.to_json() == one["recipe"]


def test_a_build_that_does_not_aim_is_as_it_was(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "stills", 3)
    assert animate(source, tmp_path / "out", aim="none") == 0
    assert "aim" not in read_plans(Folder(str(tmp_path / "out")))[0].header.settings
    for name, data in members_of_tars(tmp_path / "out").items():
        assert not name.endswith(".json") or set(json.loads(data)) == {"recipe", "captions", "size", "source_key"}


@pytest.mark.parametrize("point", ["middle", [1], [64, 0], [0, -1], [1.5, 2], None, {"x": 1}])
def test_a_point_that_is_none_is_refused(point: object) -> None:
    with pytest.raises(ValueError, match="expected a pixel of 64 x 48"):
        salient_point_of({"salient_point": point}, (64, 48))
