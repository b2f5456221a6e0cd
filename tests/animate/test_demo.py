"""The demo's corpus, small; and the pictures it is drawn of."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from stillreel.animate.demo import make_clips
from stillreel.animate.scenes import GROUNDS, SHAPES, caption_of, draw_scene, plan_scene
from stillreel.configs.build import DemoSettings
from tests.making import check, data_digests, rows_of, stillreel


def demo(out: Path, **values: object) -> int:
    return make_clips(out, DemoSettings.resolve({"ray": "off", "progress": "off", **values}))


def test_clips_are_made_verified_shown_and_not_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "stillreel")
    assert demo(tmp_path, stills=60, heldout=10) == 0
    assert (tmp_path / "clips" / "preview.html").read_text().count("<article") == 48
    for name, count in (("clips", 50), ("clips-heldout", 10)):
        verdict = check(tmp_path / name)
        assert (verdict.written, verdict.problems) == (count, [])
    keys = [{row["key"] for row in rows_of(tmp_path / name)} for name in ("clips", "clips-heldout")]
    assert not keys[0] & keys[1], "a run may mix them"
    before = data_digests(tmp_path / "clips")
    assert "== draw 50 pictures" in caplog.text
    caplog.clear()
    assert demo(tmp_path, stills=60, heldout=10) == 0
    assert "draw" not in caplog.text and "== animate" in caplog.text
    assert data_digests(tmp_path / "clips") == before


def test_heldout_captions_are_their_own(tmp_path: Path) -> None:
    assert demo(tmp_path, stills=200, heldout=60) == 0
    captions = {}
    for name in ("stills", "heldout"):
        with open(tmp_path / name / "captions.tsv") as file:
            captions[name] = [row["caption"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    assert len(captions["heldout"]) == len(set(captions["heldout"])) == 60
    assert not set(captions["heldout"]) & set(captions["stills"])


def test_scenes_are_a_pure_function_of_seed_and_number() -> None:
    assert (draw_scene(plan_scene(0, 5)) == draw_scene(plan_scene(0, 5))).all()
    assert caption_of(plan_scene(0, 5)) != caption_of(plan_scene(1, 5))
    scenes = [plan_scene(0, number) for number in range(400)]
    assert {scene.ground for scene in scenes} == set(GROUNDS)
    assert {thing.shape for scene in scenes for thing in scene.things} == set(SHAPES)


def test_captions_are_true_of_where_things_are() -> None:
    for number in range(400):
        scene = plan_scene(0, number)
        caption = caption_of(scene)
        for before, after in zip(scene.things, scene.things[1:], strict=False):
            relation = caption.split(before.name, 1)[1].split(after.name)[0]
            if "left of" in relation:
                assert before.x < after.x
            elif "right of" in relation:
                assert before.x > after.x
            elif "above" in relation:
                assert before.y < after.y
            else:
                assert "below" in relation
                assert before.y > after.y


@pytest.mark.parametrize("color", ["red", "green", "blue", "yellow"])
def test_colors_are_as_the_caption_says(color: str) -> None:
    """The middle of a plain, filled thing has the color that is spoken of, more than any other."""
    from stillreel.animate.scenes import COLOURS

    checked = 0
    for number in range(2000):
        scene = plan_scene(0, number)
        thing = scene.things[0]
        filled = thing.shape in ("circle", "square", "hexagon", "diamond", "heart")
        if len(scene.things) == 1 and filled and (thing.color, thing.finish) == (color, "plain"):
            drawn = draw_scene(scene)
            x, y = int(thing.x * scene.width), int(thing.y * scene.height)
            middle = drawn[y - 5 : y + 5, x - 5 : x + 5].mean(axis=(0, 1))
            distances = {name: float(np.abs(middle - value).sum()) for name, value in COLOURS.items()}
            assert min(distances, key=lambda name: distances[name]) == color
            checked += 1
    assert checked


def test_unlikely_numbers_are_refused(tmp_path: Path) -> None:
    said = stillreel("demo", f"out={tmp_path}", "stills=20", "heldout=15")
    assert said.returncode == 2
    assert "heldout=15 is more than half of stills=20" in said.stderr
