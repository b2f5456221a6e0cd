"""Looks: drawn by us, applied by albumentations, one for the whole clip."""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
import pytest

from stillreel.animate.camera.draw import draw_recipe
from stillreel.animate.camera.recipe import LookPlan, LookStep
from stillreel.animate.render.looks import apply_look
from stillreel.configs import RequestError
from stillreel.configs.grammar import load_grammar
from stillreel.configs.looks import TRANSFORMS, Look, load_look
from stillreel.configs.looks import LookStep as LookSetting
from tests.making import picture


def clip(frames: int = 4) -> np.ndarray[Any, Any]:
    return np.repeat(picture(0, 64, 64)[None], frames, axis=0)


def middle(name: str) -> LookPlan:
    return LookPlan(
        (LookStep(name, {value: low + 0.7 * (high - low) for value, (low, high) in TRANSFORMS[name].items()}),)
    )


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_changes_the_whole_clip_alike(name: str) -> None:
    changed = apply_look(middle(name), clip())
    assert changed.shape == (4, 64, 64, 3)
    assert changed.dtype == np.uint8
    assert (changed != clip()).any()
    assert (changed == changed[0]).all(), "never per frame"


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("end", [0, 1])
def test_every_transform_takes_the_ends_of_its_range(name: str, end: int) -> None:
    apply_look(LookPlan((LookStep(name, {value: limits[end] for value, limits in TRANSFORMS[name].items()}),)), clip(2))


def test_drift_is_smooth() -> None:
    dark, bright = (LookStep("RandomBrightnessContrast", {"brightness": b, "contrast": 0.0}) for b in (-0.3, 0.3))
    means = apply_look(LookPlan((dark,), (bright,)), clip(9)).mean(axis=(1, 2, 3))
    steps = np.diff(means)
    assert (steps > 0).all()
    assert np.ptp(steps) < 1.5


def _in_worker(number: int) -> tuple[list[Any], bytes]:
    look = load_look("graded")
    recipe = draw_recipe("film", load_grammar("film"), look, 0, f"{number}", (64, 64), ("a",)).recipe
    assert recipe.look is not None
    return recipe.to_json()["look"]["steps"], apply_look(recipe.look, clip(2)).tobytes()


def test_forked_workers_do_not_repeat_each_other() -> None:
    """albumentations' own generator gives every forked worker the same draws; ours are the sample's own."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        forked = pool.map(_in_worker, range(8), chunksize=1)
    assert forked == [_in_worker(number) for number in range(8)], "the same in any process"
    assert len({repr(steps) for steps, _ in forked}) > 5, "and different for each sample"


@pytest.mark.long
def test_shares_and_ranges_are_kept() -> None:
    look = Look(steps=(LookSetting(transform="RandomGamma", chance=0.3, ranges={"gamma": (90, 110)}),), drift=0.5)
    plans = [
        draw_recipe("film", load_grammar("film"), look, 0, f"{n}", (64, 64), ("a",)).recipe.look for n in range(600)
    ]
    drawn = [plan for plan in plans if plan and plan.steps]
    assert len(drawn) / 600 == pytest.approx(0.3, abs=0.06)
    assert sum(plan.until is not None for plan in plans if plan) / 600 == pytest.approx(0.5, abs=0.06)
    assert all(90 <= plan.steps[0].values["gamma"] <= 110 for plan in drawn)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"transform": "GaussNoise"}], "is not one of"),
        ([{"transform": "RandomGamma", "ranges": {}}], "expected ranges for"),
        ([{"transform": "RandomGamma", "ranges": {"gamma": [120, 90]}}], "low <= high"),
        ([{"transform": "RandomGamma", "ranges": {"gamma": [0, 90]}}], "40 <= low"),
    ],
)
def test_wrong_looks_are_refused(steps: list[object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Look.resolve({"steps": steps})


def test_unknown_transform_in_a_recipe_is_refused() -> None:
    with pytest.raises(ValueError, match="transform 'Fog' that this stillreel lacks"):
        apply_look(LookPlan((LookStep("Fog", {}),)), clip(1))
