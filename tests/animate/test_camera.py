"""Windows: the mathematics of the camera, against independent statements of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillreel.animate.camera.recipe import Jump, Recipe, Shake, Shot, View
from stillreel.animate.camera.windows import FOCAL, perspective, project, windows

PICTURE = (600, 400)


def film(*shots: Shot, flip: bool = False) -> Recipe:
    return Recipe("test", PICTURE, shots=shots, flip=flip)


def zoom(ease: str = "linear") -> Shot:
    return Shot("zoom_in", (0.0, 1.0), View(0.5, 0.5, 1.0), View(0.4, 0.6, 0.5), ease)


def view_of(window: np.ndarray) -> tuple[float, float, float]:
    """Center (as fractions) and scale of an upright window."""
    middle = window @ (0.5, 0.5, 1)
    return middle[0] / middle[2], middle[1] / middle[2], window[1, 1] * PICTURE[1] / min(PICTURE)


def test_first_and_last_frame_are_the_drawn_views() -> None:
    for frames in (2, 12, 33):
        matrices, weights = windows(film(zoom()), frames)
        assert matrices.shape == (frames, 2, 3, 3)
        assert matrices.dtype == weights.dtype == np.float64
        assert view_of(matrices[0, 0]) == pytest.approx((0.5, 0.5, 1.0))
        assert view_of(matrices[-1, 0]) == pytest.approx((0.4, 0.6, 0.5))
        assert not weights.any()


def test_a_new_frame_count_samples_the_same_path() -> None:
    """Every other frame of 2T - 1 is a frame of T: time is continuous."""
    shake = Shot("static", (0.0, 1.0), View(0.5, 0.5, 0.8), View(0.5, 0.5, 0.8), shake=Shake(0.01, 5))
    for recipe in (
        film(zoom("smoothstep")),
        film(shake),
        film(
            Shot("static", (0.0, 0.5), View(0.5, 0.5, 1), View(0.5, 0.5, 1)),
            Shot("pan", (0.5, 1.0), View(0.4, 0.5, 0.9), View(0.6, 0.5, 0.9)),
        ),
    ):
        assert np.allclose(windows(recipe, 23)[0][::2], windows(recipe, 12)[0], atol=1e-12)


def test_a_linear_zoom_is_geometric_about_a_fixed_point() -> None:
    matrices = windows(film(zoom()), 9)[0][:, 0]
    scales = np.array([view_of(matrix)[2] for matrix in matrices])
    assert np.allclose(scales[1:] / scales[:-1], scales[1] / scales[0])
    # Where do the first two windows agree? There all others agree with them.
    first, second = matrices[0], matrices[1]
    fixed = np.linalg.solve(first[:2, :2] - second[:2, :2], second[:2, 2] - first[:2, 2])
    places = matrices[:, :2, :2] @ fixed + matrices[:, :2, 2]
    assert np.allclose(places, places[0], atol=1e-9)


@pytest.mark.parametrize(
    ("ease", "quarter"), [("linear", 0.25), ("smoothstep", 0.15625), ("accelerate", 0.0625), ("decelerate", 0.4375)]
)
def test_easing(ease: str, quarter: float) -> None:
    pan = Shot("pan", (0.0, 1.0), View(0.4, 0.5, 0.8), View(0.6, 0.5, 0.8), ease)
    assert view_of(windows(film(pan), 5)[0][1, 0])[0] == pytest.approx(0.4 + 0.2 * quarter)


def test_a_cut_is_sharp_and_a_dissolve_blends_two_moving_shots() -> None:
    first = Shot("static", (0.0, 0.5), View(0.4, 0.5, 0.7), View(0.4, 0.5, 0.7))
    second = Shot("static", (0.5, 1.0), View(0.6, 0.5, 0.5), View(0.6, 0.5, 0.5))
    matrices, weights = windows(film(first, second), 11)
    assert [round(view_of(matrix)[2], 6) for matrix in matrices[:, 0]] == [0.7] * 5 + [0.5] * 6
    assert not weights.any()
    assert (matrices[:, 0] == matrices[:, 1]).all()
    matrices, weights = windows(film(first._replace(span=(0.0, 0.6)), second._replace(span=(0.4, 1.0))), 21)
    assert np.allclose(weights[8:12], [0.0, 0.25, 0.5, 0.75])
    assert not np.delete(weights, range(8, 12)).any()
    assert [round(view_of(matrices[10, which])[2], 6) for which in (0, 1)] == [0.7, 0.5]
    outside = np.delete(np.arange(21), range(8, 12))
    assert (matrices[outside, 0] == matrices[outside, 1]).all(), "two views only during a dissolve"


def test_flip_mirrors_the_picture() -> None:
    plain, mirrored = (windows(film(zoom(), flip=flip), 5)[0][:, 0] for flip in (False, True))
    frame = np.array([[0.1, 0.9], [0.3, 0.8], [1, 1]])
    a, b = plain @ frame, mirrored @ frame
    assert np.allclose(a[:, 0], 1 - b[:, 0])
    assert np.allclose(a[:, 1], b[:, 1])


def test_roll_turns_a_square_that_stays_square() -> None:
    rolled = windows(film(Shot("static", (0.0, 1.0), View(0.5, 0.5, 0.6, 5.0), View(0.5, 0.5, 0.6, 5.0))), 1)[0][0, 0]
    corners = (rolled @ np.array([[0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1]]))[:2] * np.array([[600], [400]])
    sides = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=0)
    assert np.allclose(sides, 0.6 * 400)
    assert np.degrees(np.arctan2(*(corners[:, 1] - corners[:, 0])[::-1])) == pytest.approx(5.0)


@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_perspective_is_a_pinhole_camera(yaw: float, pitch: float, u: float, v: float) -> None:
    """By ray and plane, step by step, as a drawing would do it."""
    ry, rx = np.radians(yaw), np.radians(pitch)
    turn = np.array([[np.cos(ry), 0, np.sin(ry)], [0, 1, 0], [-np.sin(ry), 0, np.cos(ry)]]) @ np.array(
        [[1, 0, 0], [0, np.cos(rx), -np.sin(rx)], [0, np.sin(rx), np.cos(rx)]]
    )
    eye = turn @ (0, 0, -FOCAL)
    ray = turn @ (u, v, FOCAL)
    expected = (eye - eye[2] / ray[2] * ray)[:2]
    assert project(yaw, pitch, u, v) == pytest.approx(tuple(expected), abs=1e-12)
    mapped = perspective(np.array([yaw]), np.array([pitch]))[0] @ (u, v, 1)
    assert tuple(mapped[:2] / mapped[2]) == pytest.approx(tuple(expected), abs=1e-12)
    assert project(yaw, pitch, 0, 0) == pytest.approx((0, 0), abs=1e-12)


def test_shake_is_bounded_smooth_and_moves() -> None:
    shaken = Shot("static", (0.0, 1.0), View(0.5, 0.5, 0.8), View(0.5, 0.5, 0.8), shake=Shake(0.01, 42))
    centers = np.array([view_of(matrix)[:2] for matrix in windows(film(shaken), 400)[0][:, 0]])
    sides = (centers - 0.5) * np.array(PICTURE) / min(PICTURE) / 0.8
    assert np.abs(sides).max() <= 0.01
    assert np.ptp(sides, axis=0).min() > 0.002
    assert np.abs(np.diff(sides, axis=0)).max() < 0.01 * 2 * np.pi * 3 / 399 * 1.01  # the fastest sine has 3 cycles


def test_jump_keeps_a_frame_whatever_the_count() -> None:
    recipe = Recipe("jump", PICTURE, jump=Jump(7, (0.5, 1.0)))
    assert np.array_equal(windows(recipe, 20)[0][:5], windows(recipe, 5)[0])
