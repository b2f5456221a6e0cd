"""One sample on the page: the still with the camera's path on it, the frames, and the recipe in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from stillreel.animate.camera.draw import seen_area
from stillreel.animate.camera.recipe import Recipe
from stillreel.animate.camera.windows import windows
from stillreel.animate.camera.words import in_words
from stillreel.animate.clips.decode import SampleDecoder
from stillreel.animate.pictures.picture import stored_pixels
from stillreel.animate.preview.strip import Pixels, Strip, data_url, make_strip, shrunk
from stillreel.configs.system.claims import parse_json

_STILL_WIDTH, _STILL_HEIGHT = 320, 240
_FRAME = 120
_OUTLINES = 6  # views drawn on the still
_STEPS = 48  # points of the camera's path
_EMPTY = 236


class Outline(NamedTuple):
    """A view on the still: four corners in its pixels, and when in the clip it is seen (0 to 1)."""

    corners: tuple[tuple[float, float], ...]
    time: float


class Card(NamedTuple):
    """What the page shows of a sample. Pictures are data URLs of WebP; `paths` are lines of points, one a shot."""

    key: str
    source_key: str
    captions: tuple[str, ...]
    spoken: int
    words: str
    moves: tuple[str, ...]
    seen: float
    still: str
    still_size: tuple[int, int]
    rebuilt: bool
    outlines: tuple[Outline, ...]
    paths: tuple[tuple[tuple[float, float], ...], ...]
    strip: Strip


def make_card(key: str, sample: Mapping[str, bytes], decoder: SampleDecoder) -> Card:
    """The card of a sample, given as its members by ending."""
    clip = decoder({"__key__": key, **sample})
    described = parse_json(sample["json"])
    recipe = Recipe.from_json(described["recipe"])
    scale = min(_STILL_WIDTH / recipe.picture[0], _STILL_HEIGHT / recipe.picture[1])
    size = (max(1, round(recipe.picture[0] * scale)), max(1, round(recipe.picture[1] * scale)))
    if "jpg" in sample:
        still = shrunk(stored_pixels(sample["jpg"]), size)
        still = still[:, ::-1] if recipe.flip else still
    else:
        still = _rebuilt(recipe, clip.frames, size)
    strip = make_strip(clip.frames, _FRAME)
    return Card(
        key=key,
        source_key=described["source_key"],
        captions=tuple(described["captions"]),
        spoken=recipe.caption,
        words=in_words(recipe),
        moves=tuple(dict.fromkeys(recipe.moves)),
        seen=seen_area(recipe),
        still=data_url(still, 78),
        still_size=size,
        rebuilt="jpg" not in sample,
        outlines=_outlines(recipe, size),
        paths=_paths(recipe, size),
        strip=strip,
    )


def _upright_windows(recipe: Recipe, count: int) -> NDArray[np.float64]:
    """Windows (count, 3, 3) on the picture as it is filmed, that is after it was mirrored."""
    matrices, _ = windows(recipe, count)
    views = matrices[:, 1]
    return np.diag([-1.0, 1.0, 1.0]) @ views + np.array([[0, 0, 1.0], [0, 0, 0], [0, 0, 0]]) if recipe.flip else views


def _outlines(recipe: Recipe, size: tuple[int, int]) -> tuple[Outline, ...]:
    """A few views spread over the clip: of each shot at least its first and last."""
    count = 2 * _OUTLINES if len(recipe.shots) > 1 else _OUTLINES
    times = np.linspace(0, 1, count)
    frame = np.array([[0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1.0]])
    corners = _points(_upright_windows(recipe, count), frame, size)
    return tuple(
        Outline(tuple(map(tuple, view.round(1).tolist())), float(time))
        for view, time in zip(corners, times, strict=True)
    )


def _paths(recipe: Recipe, size: tuple[int, int]) -> tuple[tuple[tuple[float, float], ...], ...]:
    """The way of the view's center, shot by shot; none for jumps, which go nowhere."""
    if recipe.jump:
        return ()
    times = np.linspace(0, 1, _STEPS)
    centers = _points(_upright_windows(recipe, _STEPS), np.array([[0.5], [0.5], [1.0]]), size)[:, 0].round(1)
    paths = []
    for number, shot in enumerate(recipe.shots):
        end = recipe.shots[number + 1].span[0] if number + 1 < len(recipe.shots) else 1.01
        paths.append(tuple(map(tuple, centers[(times >= shot.span[0]) & (times < end)].tolist())))
    return tuple(path for path in paths if path)


def _points(matrices: NDArray[np.float64], points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Points (3, n) of the frame through windows (T, 3, 3), in pixels of a still of this size: (T, n, 2)."""
    mapped = matrices @ points
    plane: NDArray[np.float64] = (mapped[:, :2] / mapped[:, 2:]).transpose(0, 2, 1) * size
    return plane


def _rebuilt(recipe: Recipe, frames: Pixels, size: tuple[int, int]) -> Pixels:
    """The still as far as the frames show it, for stores that do not keep it: each frame put back where it was seen."""
    still: Pixels = np.full((size[1], size[0], 3), _EMPTY, np.uint8)
    side = frames.shape[1]
    to_unit = np.diag([1 / side, 1 / side, 1.0])
    to_still = np.diag([size[0], size[1], 1.0])
    for frame, window in zip(frames, _upright_windows(recipe, len(frames)), strict=True):
        cv2.warpPerspective(
            frame, to_still @ window @ to_unit, size, dst=still, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_TRANSPARENT
        )
    return still
