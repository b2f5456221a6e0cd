"""Draw docs/film.webp, the picture that opens the README: a still, the camera's path on it, and the frames it sees.

python docs/draw_film.py [scene=N] [out=docs/film.webp]
"""

from __future__ import annotations

import sys

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stillreel.animate import Recipe, Renderer, draw_recipe, windows
from stillreel.animate.camera.windows import instants
from stillreel.animate.scenes import caption_of, draw_scene, plan_scene
from stillreel.configs.grammar import load_grammar

Pixels = NDArray[np.uint8]

_SHOWN = 60  # frames of the animation
_STRIP = 12  # of the clip
_MILLISECONDS = 100
_HEIGHT, _GAP, _MARGIN = 270, 8, 10
_PAPER, _INK, _PATH = (250, 250, 248), (255, 255, 255), (255, 214, 10)
_SUB = 4  # OpenCV draws at sixteenths of a pixel: 2 ** 4


def main(words: list[str]) -> None:
    options = dict(word.split("=", 1) for word in words)
    key = options.get("scene", "28")
    scene = plan_scene(0, int(key))
    picture = draw_scene(scene)
    size = (picture.shape[1], picture.shape[0])
    recipe = draw_recipe("film", load_grammar("film"), None, 0, key, size, [caption_of(scene)]).recipe
    assert not recipe.flip, "the path is drawn on the picture as it is; choose another scene"
    sheets = [Image.fromarray(sheet) for sheet in compose(recipe, picture)]
    out = options.get("out", "docs/film.webp")
    sheets[0].save(out, save_all=True, append_images=sheets[1:], duration=_MILLISECONDS, loop=0, quality=62, method=6)
    print(f"{out}: {caption_of(scene)}; {', '.join(recipe.moves)}")


def compose(recipe: Recipe, picture: Pixels) -> list[Pixels]:
    """The sheets of the animation: still and path, the frame of the moment, and all frames with that one marked."""
    renderer = Renderer()
    frames = renderer.render(recipe, picture, _SHOWN, _HEIGHT)
    width = round(_HEIGHT * picture.shape[1] / picture.shape[0])
    still = np.asarray(cv2.resize(picture, (width, _HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)
    views = windows(recipe, _SHOWN)[0][:, 1]
    shots = np.searchsorted([shot.span[0] for shot in recipe.shots], instants(_SHOWN), "right")
    across = width + _GAP + _HEIGHT
    thumb = (across - (_STRIP - 1) * 3) // _STRIP
    strip = renderer.render(recipe, picture, _STRIP, thumb)
    sheets = []
    for t in range(_SHOWN):
        height = _HEIGHT + _GAP + thumb
        sheet: Pixels = np.full((height + 2 * _MARGIN, across + 2 * _MARGIN, 3), _PAPER, np.uint8)
        inner = sheet[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        inner[:_HEIGHT, :width] = with_path(still, views, t, shots)
        inner[:_HEIGHT, width + _GAP :] = frames[t]
        for number, frame in enumerate(strip):
            left = number * (thumb + 3)
            place = inner[_HEIGHT + _GAP :, left : left + thumb]
            # The frame of the moment in its colors, the others paler.
            now = number == min(_STRIP - 1, t * _STRIP // _SHOWN)
            place[:] = frame if now else (frame.astype(np.uint16) + np.array(_PAPER, np.uint16)) // 2
        sheets.append(sheet)
    return sheets


def with_path(still: Pixels, views: NDArray[np.float64], t: int, shots: NDArray[np.intp]) -> Pixels:
    """The still with the way of the view's center so far, a line a shot, and the view's outline at frame t."""
    drawn = still.copy()
    inside = np.zeros(still.shape[:2], np.uint8)
    outline = points(views[t : t + 1], [(0, 0), (1, 0), (1, 1), (0, 1)], still)[0]
    cv2.fillPoly(inside, [outline], 255, cv2.LINE_AA, _SUB)
    shade = (inside[..., None].astype(np.uint16) + 2 * 255) // 3  # what the camera does not see is darker
    drawn = (drawn * shade // 255).astype(np.uint8)
    centers = points(views[: t + 1], [(0.5, 0.5)], still)[:, 0]
    for path in np.split(centers, np.flatnonzero(np.diff(shots[: t + 1])) + 1):
        cv2.polylines(drawn, [path], False, _PATH, 2, cv2.LINE_AA, _SUB)
    cv2.polylines(drawn, [outline], True, _INK, 2, cv2.LINE_AA, _SUB)
    return drawn


def points(views: NDArray[np.float64], places: list[tuple[float, float]], still: Pixels) -> NDArray[np.int32]:
    """Places of the frame through windows (n, 3, 3): (n, places, 2), in OpenCV's fixed-point pixels of the still."""
    through = views @ np.array([(*place, 1.0) for place in places]).T
    plane = (through[:, :2] / through[:, 2:]).transpose(0, 2, 1) * (still.shape[1], still.shape[0]) - 0.5
    return np.round(plane * 2**_SUB).astype(np.int32)


if __name__ == "__main__":
    main(sys.argv[1:])
