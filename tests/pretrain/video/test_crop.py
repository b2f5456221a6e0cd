"""Crops that training draws: where they lie, and what a frame becomes by them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stillreel.configs.system.dice import Dice
from stillreel.pretrain.video.crop import DrawnCrop, draw_crop
from stillreel.pretrain.video.pixels import cropped

SIDES = st.integers(16, 4000)


@given(SIDES, SIDES, st.integers(0, 1 << 62))
def test_a_crop_lies_in_its_frame_and_within_the_limits(width: int, height: int, seed: int) -> None:
    crop = draw_crop(Dice(seed, "video"))
    left, top, right, bottom = crop.part(width, height).box(width, height)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    wide, high = right - left, bottom - top
    if math.isclose(wide, high) and math.isclose(wide, min(width, height)):
        return  # nothing that was drawn fits: it is the middle square
    assert 0.08 * (1 - 1e-9) <= wide * high / (width * height) <= 1 + 1e-9
    assert 3 / 4 * (1 - 1e-9) <= wide / high <= 4 / 3 * (1 + 1e-9)


@given(SIDES, SIDES)
def test_where_no_attempt_fits_it_is_the_middle_square(width: int, height: int) -> None:
    """A square of all of a frame's area, which lies only in a frame that is one."""
    crop = DrawnCrop((1.0, 0.5, 0.2, 0.9) * 10)
    left, top, right, bottom = crop.part(width, height).box(width, height)
    side = min(width, height)
    if width == height:
        return
    assert math.isclose(right - left, side) and math.isclose(bottom - top, side)
    assert math.isclose(left, width - right, abs_tol=1e-6) and math.isclose(top, height - bottom, abs_tol=1e-6)


def test_areas_and_shapes_are_even_over_the_limits() -> None:
    parts = [draw_crop(Dice(seed, "video")).part(400, 400) for seed in range(4000)]
    wide, high = (np.array([part[end] - part[end - 2] for part in parts]) for end in (2, 3))
    assert np.log(wide / high).mean() == pytest.approx(0, abs=0.03) and np.abs(np.log(wide / high)).max() > 0.27
    small = wide * high < 0.54  # of those that always fit
    assert np.histogram((wide * high)[small], 4, (0.08, 0.54))[0] / small.sum() == pytest.approx([0.25] * 4, abs=0.03)
    middles = np.array([(part[0] + part[2]) / 2 for part in parts])
    assert middles.mean() == pytest.approx(0.5, abs=0.03)


def test_a_crop_is_stretched_to_the_square_as_pillow_resizes_it() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    crop = draw_crop(Dice(3, "video"))
    box = tuple(side * share for side, share in zip((160, 90, 160, 90), crop.part(160, 90), strict=True))
    expected = np.asarray(Image.fromarray(noise).resize((64, 64), Image.Resampling.BICUBIC, box))
    assert np.array_equal(cropped(noise, 64, crop), expected)


def test_pixels_that_are_not_square_change_the_shape_that_is_cut() -> None:
    """A frame of 80 x 90 pixels, twice as wide as high each, is the same picture as one of 160 x 90 square ones."""
    picture = np.random.default_rng(1).integers(0, 256, (9, 16, 3), np.uint8)
    square = np.asarray(Image.fromarray(picture).resize((160, 90), Image.Resampling.BICUBIC))
    narrow = np.asarray(Image.fromarray(square).resize((80, 90), Image.Resampling.BICUBIC))
    for seed in range(5):
        crop = draw_crop(Dice(seed, "video"))
        away = np.abs(cropped(square, 64, crop).astype(int) - cropped(narrow, 64, crop, 2.0))
        assert away.mean() < 2
