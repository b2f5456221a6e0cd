"""The world of the study: parts that share no content, groups whose videos differ in one thing, pairs that share their frames."""

from __future__ import annotations

from collections import Counter
from itertools import groupby, product
from typing import get_args

import numpy as np
import pytest

from stillreel.finetune.study.draw import draw_still, draw_video
from stillreel.finetune.study.world import (
    GROUP,
    KINDS,
    PORTION,
    TEMPORAL,
    Part,
    Plan,
    Video,
    contents,
    plan_still,
    plan_videos,
)

FRAMES, SIZE = 4, 48


def groups(count: int = 2 * PORTION, part: Part = "test", seed: int = 0) -> list[list[Video]]:
    return [list(some) for _, some in groupby(plan_videos(seed, part, count), lambda video: video.group)]


def test_parts_share_no_content() -> None:
    seen = {
        part: {(*one, block.ground) for block in contents(0, part) for one in product(block.colors, block.shapes)}
        for part in get_args(Part)
    }
    assert sum(map(len, seen.values())) == len(set.union(*seen.values())) == 800
    for part, own in seen.items():
        plans = [video.plan for video in plan_videos(0, part, PORTION)] if part != "stills" else []
        plans += [plan_still(0, number)[0] for number in range(50)] if part == "stills" else []
        drawn = {(actor.color, actor.shape, plan.ground) for plan in plans for actor in plan.actors}
        assert drawn and drawn <= own


def test_a_portion_has_of_each_kind_as_many() -> None:
    for start in range(0, 3 * PORTION, PORTION):
        videos = list(plan_videos(3, "train", start + PORTION))[start:]
        assert Counter(video.kind for video in videos) == dict.fromkeys(KINDS, PORTION // len(KINDS))


def test_a_longer_split_begins_with_the_shorter_one_and_another_seed_is_another_world() -> None:
    short, long = (list(plan_videos(0, "train", count)) for count in (PORTION, 2 * PORTION))
    assert long[:PORTION] == short
    assert [video.caption for video in plan_videos(1, "train", PORTION)] != [video.caption for video in short]


def test_the_four_of_a_group_have_captions_and_frames_of_their_own() -> None:
    for group in groups():
        assert len(group) == GROUP == len({video.caption for video in group})
        drawn = [draw_video(video.plan, 0, FRAMES, SIZE).tobytes() for video in group]
        assert len(set(drawn)) == GROUP, group[0]


def test_a_pair_is_a_video_and_its_reverse() -> None:
    """So no mean of frames tells them apart."""
    pairs = 0
    for group in groups():
        for pair in {video.pair for video in group if video.kind in TEMPORAL}:
            one, other = (draw_video(video.plan, 0, FRAMES, SIZE) for video in group if video.pair == pair)
            assert np.array_equal(one, other[::-1])
            assert not np.array_equal(one, other)
            pairs += 1
    assert pairs == 2 * 12


def test_groups_differ_in_nothing_but_what_their_captions_tell() -> None:
    """Content: things; place: where they stand; what moves: acts and camera, forwards and backwards."""
    free = {
        "content": {"actors"},
        "place": {"place"},
        "order": {"acts", "backwards"},
        "object": {"act", "camera", "against", "backwards"},
    }
    for group in groups():
        kinds = {video.kind for video in group}
        allowed = free["object"] if "camera" in kinds else free[kinds.pop()]
        for name in Plan._fields:
            if name not in allowed:
                assert len({getattr(video.plan, name) for video in group}) == 1, (name, group[0])


@pytest.mark.parametrize("number", range(3))
def test_drawing_is_a_function_of_the_plan(number: int) -> None:
    video = list(plan_videos(0, "validation", PORTION))[number * 11]
    assert np.array_equal(draw_video(video.plan, 0, FRAMES, SIZE), draw_video(video.plan, 0, FRAMES, SIZE))
    plan, caption = plan_still(0, number)
    picture = draw_still(plan, 0, SIZE)
    assert min(picture.shape[:2]) == 2 * SIZE
    assert all(actor.color in caption for actor in plan.actors)
