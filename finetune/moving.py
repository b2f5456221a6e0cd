"""A small benchmark drawn by code: one thing on a background, and what it does. For the demo and for tests, without a download.

Of each content (finish, color, shape, background) there are six videos, one a motion, all in one split. So a model that sees
what is there but not what happens finds the right video of its content once in six.

    OUT/captions.tsv     video, caption, split: the form of a user's own benchmark
    OUT/videos/*.mp4     two seconds each
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stillreel.animate.clips.encode import encode_video
from stillreel.animate.scenes import COLOURS, FINISHES, GROUNDS, SHAPES, Pixels, Scene, Thing, draw_scene
from stillreel.configs.system.dice import Dice, between
from stillreel.configs.system.pool import in_order, process_pool
from stillreel.configs.system.storage import Folder

MOTIONS = {
    "left": "moves to the left",
    "right": "moves to the right",
    "up": "moves up",
    "down": "moves down",
    "grow": "grows",
    "shrink": "shrinks",
}
CONTENTS = {"test": 16, "validation": 8, "train": 160}  # of each split

_SIDE, _FRAMES, _FPS = 128, 16, 8
_TABLE = "captions.tsv"


class Content(NamedTuple):
    """What is seen, whatever it does."""

    finish: str
    color: str
    shape: str
    ground: str

    def caption(self, motion: str) -> str:
        """
        >>> Content("plain", "red", "star", "grass").caption("left")
        'a red star moves to the left on green grass'
        """
        words = (*((self.finish,) if self.finish != "plain" else ()), self.color, self.shape)
        return f"a {' '.join(words)} {MOTIONS[motion]} {GROUNDS[self.ground].words}"


class Moving(NamedTuple):
    """A video of the benchmark: its file, split and caption, and all that decides its frames."""

    file: str
    split: str
    content: Content
    motion: str
    seed: int


def draw_benchmark(folder: Path, *, seed: int = 0, contents: Mapping[str, int] = CONTENTS, workers: int = 0) -> None:
    """Draw the benchmark into a folder, or nothing if it is there: of each split so many contents, six videos each.

    `workers` processes draw (0: one a CPU).
    """
    videos = list(plan_videos(seed, contents))
    lines = (
        "video\tcaption\tsplit",
        *(f"videos/{one.file}\t{one.content.caption(one.motion)}\t{one.split}" for one in videos),
    )
    table = "\n".join((*lines, ""))
    if (folder / _TABLE).is_file() and (folder / _TABLE).read_text() == table:
        return
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    with process_pool(workers) as pool:
        list(in_order(pool, partial(_write_video, folder / "videos"), videos))
    Folder(str(folder)).publish(_TABLE, table.encode())  # last: it says that the videos are all there


def plan_videos(seed: int, contents: Mapping[str, int] = CONTENTS) -> Iterator[Moving]:
    """The benchmark's videos: of each split its contents, which no other has, with each motion."""
    drawn = _contents(seed)
    for split, count_of_split in contents.items():
        for number in range(count_of_split):
            content = next(drawn)
            for motion in MOTIONS:
                yield Moving(f"{split}-{number:03d}-{motion}.mp4", split, content, motion, seed)


def _contents(seed: int) -> Iterator[Content]:
    """Different ones, drawn."""
    seen: set[Content] = set()
    for number in count():
        units = Dice(seed, f"content {number}").units("content", 4)
        names = (FINISHES, tuple(COLOURS), SHAPES, tuple(GROUNDS))
        content = Content(*(some[int(unit * len(some))] for unit, some in zip(units, names, strict=True)))
        if content not in seen:
            seen.add(content)
            yield content


def draw_video(video: Moving) -> Pixels:
    """Frames uint8 (T, H, W, 3) of a video. Where and how fast is drawn; the background stays."""
    dice = Dice(video.seed, video.file)
    x, y, size, turn, far = dice.units("thing", 5)
    at = {"x": between(0.4, 0.6, x), "y": between(0.4, 0.6, y), "radius": between(0.14, 0.2, size)}
    reach = between(0.18, 0.26, far)
    start, end = dict(at), dict(at)
    if video.motion in ("left", "right"):
        start["x"], end["x"] = at["x"] - reach, at["x"] + reach
    elif video.motion in ("up", "down"):
        start["y"], end["y"] = at["y"] - reach, at["y"] + reach
    else:
        start["radius"], end["radius"] = at["radius"] * 0.6, at["radius"] * 1.5
    if video.motion in ("left", "up", "shrink"):
        start, end = end, start
    frames = []
    finish, color, shape, ground = video.content
    for share in np.linspace(0, 1, _FRAMES):
        place = {name: between(start[name], end[name], float(share)) for name in at}
        thing = Thing(shape, color, finish, False, turn=between(-20, 20, turn), **place)
        frames.append(draw_scene(Scene(_SIDE, _SIDE, ground, (thing,), dice)))
    return np.stack(frames)


def _write_video(folder: Path, video: Moving) -> None:
    (folder / video.file).write_bytes(encode_video(draw_video(video), fps=_FPS))
