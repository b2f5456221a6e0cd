"""The camera: from a recipe to the windows that its frames look through. Pure mathematics, no pixels.

A window is a 3 x 3 homography from the frame to the picture, both as unit squares with x to the right and y down:
`picture_point ~ window @ (u, v, 1)`. It knows no resolution, so one recipe serves any frame size and any decoded size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillreel.animate.camera.recipe import Jump, Recipe, Shake, Shot
from stillreel.configs.system.dice import Dice, between

Array = NDArray[np.float64]

FOCAL = 1.2  # distance from the camera to the picture, in view sides; decides how much a yaw or pitch converges
_SHAKE_CYCLES = (1.0, 3.0)  # of the slowest and the fastest of the sines of a shake, a clip
_SHAKE_SINES = 3


def windows(recipe: Recipe, frames: int) -> tuple[Array, Array]:
    """Windows of `frames` frames: matrices (T, 2, 3, 3) and weights (T,), both float64.

    Frame t is `(1 - weights[t]) * picture through matrices[t, 0] + weights[t] * picture through matrices[t, 1]`; the
    two differ only during a dissolve, elsewhere the weight is 0. The first frame is at time 0, the last at time 1, a
    single one at 1/2. No window leaves the picture.
    """
    times = instants(frames)
    weights = np.zeros(frames)
    if recipe.jump:
        views = _jump_views(recipe.jump, recipe.picture, frames)
        matrices = np.repeat(_matrices(views, recipe.picture)[:, None], 2, axis=1)
    else:
        matrices = np.empty((frames, 2, 3, 3))
        for number, shot in enumerate(recipe.shots):
            _film_shot(recipe, number, shot, times, matrices, weights)
    if recipe.flip:
        mirror = np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        matrices = mirror @ matrices
    return matrices, weights


def instants(frames: int) -> Array:
    """Times of the frames of a clip, (T,)."""
    assert frames >= 1, frames
    return np.linspace(0.0, 1.0, frames) if frames > 1 else np.array([0.5])


def _film_shot(recipe: Recipe, number: int, shot: Shot, times: Array, matrices: Array, weights: Array) -> None:
    """Fill in the frames of a shot: as the first view where it is alone, as the second while it fades in."""
    begin, end = shot.span
    before = recipe.shots[number - 1].span[1] if number else begin  # the shot before lasts until here
    last = number == len(recipe.shots) - 1
    inside = (times >= begin) & ((times < end) | last)
    alone = inside & (times >= before)
    fading = inside & ~alone
    mine = _matrices(_shot_views(shot, times[inside], recipe.picture), recipe.picture)
    matrices[inside, 1] = mine
    matrices[alone, 0] = mine[alone[inside]]
    weights[fading] = (times[fading] - begin) / (before - begin)


def advance(shot: Shot, time: Any) -> tuple[Any, Any]:
    """How far a shot has come at a time (a number or an array), 0 to 1: of its path and scale, and of its angles.

    A zoom at constant speed is geometric in scale. Letting the center move in proportion to the scale keeps the point
    that it zooms at in place, and makes every view a blend of the two end views: inside the picture if they are.
    """
    begin, end = shot.span
    progress = _eased(shot.ease, (time - begin) / (end - begin))
    if shot.end.scale == shot.start.scale:
        return progress, progress
    ratio = math.log(shot.end.scale / shot.start.scale)
    expm1: Any = math.expm1 if isinstance(time, float) else np.expm1
    return expm1(progress * ratio) / math.expm1(ratio), progress


def _shot_views(shot: Shot, times: Array, picture: tuple[int, int]) -> Array:
    """Views of one shot at `times`, (n, 6): x, y, scale, roll, yaw, pitch."""
    first, last = np.array(shot.start), np.array(shot.end)
    blend, progress = advance(shot, times)
    views: Array = np.empty((len(times), 6))
    views[:, :3] = first[:3] + blend[:, None] * (last[:3] - first[:3])
    views[:, 3:] = first[3:] + progress[:, None] * (last[3:] - first[3:])
    if shot.shake:
        short = min(picture)
        views[:, :2] += _shake(shot.shake, times) * views[:, 2:3] * (short / picture[0], short / picture[1])
    return views


def _shake(shake: Shake, times: Array) -> Array:
    """Excursions (n, 2) in view sides, each coordinate within +-amount: a few slow sines of drawn pace and phase."""
    draws = np.array(Dice(shake.seed, "shake").units("sines", 4 * _SHAKE_SINES)).reshape(2, _SHAKE_SINES, 2)
    cycles = _SHAKE_CYCLES[0] + (_SHAKE_CYCLES[1] - _SHAKE_CYCLES[0]) * draws[..., 0]
    angles = 2 * np.pi * (cycles[..., None] * times + draws[..., 1, None])
    excursions: Array = shake.amount / _SHAKE_SINES * np.sin(angles).sum(axis=1).T
    return excursions


def _jump_views(jump: Jump, picture: tuple[int, int], frames: int) -> Array:
    """Random crops, (T, 6). Frame t's crop is the same for every T that has it."""
    short = min(picture)
    views = np.zeros((frames, 6))
    dice = Dice(jump.seed, "jump")
    for frame in range(frames):
        side, right, down = dice.units(f"crop {frame}", 3)
        scale = between(*jump.scale, side)
        room = scale * short / 2 / np.array(picture)
        views[frame, :3] = (*(room + (1 - 2 * room) * (right, down)), scale)
    return views


def _eased(ease: str, progress: Any) -> Any:
    if ease == "smoothstep":
        return progress * progress * (3 - 2 * progress)
    if ease == "accelerate":
        return progress * progress
    if ease == "decelerate":
        return progress * (2 - progress)
    assert ease == "linear", ease
    return progress


def _matrices(views: Array, picture: tuple[int, int]) -> Array:
    """Windows (n, 3, 3) of views (n, 6)."""
    short = min(picture)
    width, height = picture[0] / short, picture[1] / short
    x, y, scale, roll, yaw, pitch = views.T
    cos, sin = scale * np.cos(np.radians(roll)), scale * np.sin(np.radians(roll))
    matrices = np.zeros((len(views), 3, 3))
    matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 0, 2] = cos / width, -sin / width, x
    matrices[:, 1, 0], matrices[:, 1, 1], matrices[:, 1, 2] = sin / height, cos / height, y
    matrices[:, 2, 2] = 1.0
    if yaw.any() or pitch.any():
        matrices = matrices @ perspective(yaw, pitch)
    matrices[:, :, 2] -= matrices[:, :, :2].sum(axis=2) / 2  # from frame coordinates 0..1 to -1/2..1/2
    return matrices


def perspective(yaw: Array, pitch: Array) -> Array:
    """Homographies (n, 3, 3) from a centerd frame, in view sides, to the centerd picture, likewise.

    The camera keeps its distance FOCAL from the view's center and looks at it, turned about it by yaw and pitch
    (degrees): an orbit. The middle of the frame stays where it is, at its scale.
    """
    zero = np.zeros_like(yaw)
    cos_y, sin_y = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    cos_p, sin_p = np.cos(np.radians(pitch)), np.sin(np.radians(pitch))
    # Columns of the rotation Ry(yaw) Rx(pitch); the last one is where the camera looks.
    rotation = np.array(
        [[cos_y, sin_y * sin_p, sin_y * cos_p], [zero, cos_p, -sin_p], [-sin_y, cos_y * sin_p, cos_y * cos_p]]
    ).transpose(2, 0, 1)
    rays = rotation * (1.0, 1.0, FOCAL)
    camera = -FOCAL * rotation[:, :, 2]
    # A ray meets the picture plane z = 0 at camera - camera_z / ray_z * ray.
    matrices = np.empty_like(rays)
    matrices[:, 0] = camera[:, 0, None] * rays[:, 2] - camera[:, 2, None] * rays[:, 0]
    matrices[:, 1] = camera[:, 1, None] * rays[:, 2] - camera[:, 2, None] * rays[:, 1]
    matrices[:, 2] = rays[:, 2]
    normal: Array = matrices / matrices[:, 2:, 2:]
    return normal


def project(yaw: float, pitch: float, u: float, v: float) -> tuple[float, float]:
    """One point through `perspective(yaw, pitch)`, in plain floats."""
    sin_y, cos_y = math.sin(math.radians(yaw)), math.cos(math.radians(yaw))
    sin_p, cos_p = math.sin(math.radians(pitch)), math.cos(math.radians(pitch))
    ray_x = cos_y * u + sin_y * sin_p * v + sin_y * cos_p * FOCAL
    ray_y = cos_p * v - sin_p * FOCAL
    ray_z = -sin_y * u + cos_y * sin_p * v + cos_y * cos_p * FOCAL
    far = FOCAL * cos_y * cos_p / ray_z
    return far * ray_x - FOCAL * sin_y * cos_p, far * ray_y + FOCAL * sin_p
