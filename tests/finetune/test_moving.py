"""The benchmark that is drawn by code: the same again, what its captions say, and contents that no two splits share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stillreel.configs.benchmark import BenchmarkSettings
from stillreel.finetune.benchmarks import open_benchmark
from stillreel.finetune.moving import CONTENTS, MOTIONS, draw_benchmark, draw_video, plan_videos


def test_it_is_drawn_the_same_again_and_not_at_all_where_it_is(moving: Path, tmp_path: Path) -> None:
    contents = {"test": 2, "validation": 1, "train": 3}
    draw_benchmark(tmp_path, contents=contents, workers=2)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) == 37
    assert all((tmp_path / one).read_bytes() == (moving / one).read_bytes() for one in files)
    before = {one: (tmp_path / one).stat().st_mtime_ns for one in files}
    draw_benchmark(tmp_path, contents=contents)
    assert before == {one: (tmp_path / one).stat().st_mtime_ns for one in files}


def test_it_is_a_benchmark_of_one_s_own_with_a_validation_split(moving: Path) -> None:
    opened = open_benchmark("folder", BenchmarkSettings(data=str(moving)), needs=("train", "test"))
    assert {name: len(split.videos) for name, split in opened.benchmark.splits.items()} == {
        "train": 18, "validation": 6, "test": 12,
    }  # fmt: skip
    assert opened.benchmark.selection == "validation"


def test_each_content_has_each_motion_once_and_lies_in_one_split() -> None:
    videos = list(plan_videos(0))
    assert len(videos) == 6 * sum(CONTENTS.values())
    splits = {one.content: one.split for one in videos}
    assert len(splits) == sum(CONTENTS.values())
    assert all(splits[one.content] == one.split for one in videos)
    assert len({one.content.caption(one.motion) for one in videos}) == len(videos)


def test_what_moves_moves_as_the_caption_says() -> None:
    """By the center and the size of what differs from the background, whose median over the frames it is."""
    for one in plan_videos(3, {"test": 4}):
        frames = draw_video(one).astype(int)
        moved = np.abs(frames[[0, -1]] - np.median(frames, axis=0)).sum(axis=-1) > 60
        if one.motion in ("grow", "shrink"):
            continue  # there the median is the thing itself
        (y0, x0), (y1, x1) = (np.argwhere(mask).mean(axis=0) for mask in moved)
        across, down = x1 - x0, y1 - y0
        expected = {"left": -across, "right": across, "up": -down, "down": down}[one.motion]
        assert expected > 20, (one.file, across, down)
    assert set(MOTIONS) == {one.motion for one in plan_videos(3, {"test": 1})}


def test_what_grows_is_what_shrinks_backwards() -> None:
    videos = {one.motion: one for one in plan_videos(3, {"test": 1})}
    for motion, sign in (("grow", 1), ("shrink", -1)):
        frames = draw_video(videos[motion]).astype(int)
        change = [np.abs(frames[at] - frames[8]).sum() for at in (0, -1)]
        assert change[0] and change[1]
        ring = np.abs(np.diff(frames, axis=0)).sum(
            axis=(1, 2, 3)
        )  # what is covered or freed: a ring, as wide as the thing
        assert sign * (ring[-3:].sum() - ring[:3].sum()) > 0
