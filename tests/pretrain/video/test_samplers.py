"""The published samplers, against what their codes return, and against ffmpeg itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillreel.configs.system.dice import Dice
from stillreel.configs.video import VideoSettings
from stillreel.pretrain.video.container import OpenVideo
from stillreel.pretrain.video.samplers import every_second, extracted, sample, segments, thinned
from stillreel.pretrain.video.timeline import Span, Timeline
from tests.pretrain.video.making import write_video

counts = st.integers(1, 2000)
rates = st.sampled_from([0.5, 5.0, 12.0, 23.976, 25.0, 29.97, 30.0, 59.94])


def steady(frames: int, rate: float) -> Timeline:
    return Timeline(np.arange(frames) / rate, rate, frames / rate)


def test_clip4clip_cuts_the_rate_to_an_integer() -> None:
    """10 s at 29.97: frames 0, 29, 58, ... 290, eleven of them; run with its own code."""
    assert every_second(steady(300, 29.97), 12).tolist() == list(range(0, 300, 29))


def test_clip4clip_keeps_head_tail_or_an_even_spread() -> None:
    video = steady(20 * 30, 30.0)
    seconds = np.arange(20) * 30
    assert every_second(video, 12, slice="head").tolist() == seconds[:12].tolist()
    assert every_second(video, 12, slice="tail").tolist() == seconds[-12:].tolist()
    spread = seconds[np.linspace(0, 19, 12, dtype=int)]
    assert every_second(video, 12).tolist() == spread.tolist()


def test_clip4clip_takes_several_frames_of_each_second() -> None:
    assert every_second(steady(60, 30.0), 12, per_second=3).tolist() == [0, 10, 20, 30, 40, 50]


def test_clip4clip_counts_the_last_second_of_a_span_in() -> None:
    """DiDeMo's and ActivityNet's loaders: seconds start..end, both included."""
    assert every_second(steady(300, 30.0), 64, Span(2, 5)).tolist() == [60, 90, 120, 150]


def test_a_short_video_gives_fewer_frames_than_asked() -> None:
    assert every_second(steady(70, 25.0), 12).tolist() == [0, 25, 50]


def test_a_video_slower_than_a_frame_a_second_is_no_division_by_zero() -> None:
    assert len(every_second(steady(5, 0.5), 12)) == 5


def test_stan_takes_the_middle_of_each_part() -> None:
    assert segments(300, 12).tolist()[:3] == [12, 37, 62]
    assert segments(300, 12)[-1] == 286
    assert segments(5, 12).tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4]


@given(counts, st.integers(1, 64), st.integers(0, 99))
def test_stan_draws_within_each_part_and_the_same_again(count: int, frames: int, seed: int) -> None:
    drawn = segments(count, frames, Dice(seed, "video epoch 3"))
    edges = np.round((count - 1) / frames * np.arange(frames + 1))
    assert np.all((edges[:-1] <= drawn) & (drawn <= edges[1:]))
    assert np.array_equal(drawn, segments(count, frames, Dice(seed, "video epoch 3")))


def test_stan_draws_every_frame_of_a_part() -> None:
    drawn = {int(segments(25, 2, Dice(seed, "v"))[0]) for seed in range(400)}
    assert drawn == set(range(13))


def test_clip2video_thins_then_spreads() -> None:
    video = steady(300, 30.0)
    raw = extracted(video, None, 5)
    kept = raw[np.linspace(0, len(raw) - 1, len(raw) // 2, dtype=int)]
    assert thinned(video, 12, every=2).tolist() == kept[np.linspace(0, len(kept) - 1, 12, dtype=int)].tolist()


def test_clip2video_moves_only_the_inner_frames_and_only_of_long_videos() -> None:
    long, short = steady(3000, 30.0), steady(600, 30.0)
    still, moved = thinned(long, 12), thinned(long, 12, dice=Dice(0, "v"))
    assert (still[0], still[-1]) == (moved[0], moved[-1])
    assert not np.array_equal(still, moved)
    assert np.all(np.diff(moved) > 0)
    assert np.array_equal(thinned(short, 12), thinned(short, 12, dice=Dice(0, "v")))


@pytest.mark.parametrize("sampler", ["fps", "segments", "clip2video"])
def test_a_video_of_one_frame_gives_that_frame(sampler: str) -> None:
    settings = VideoSettings.resolve({"sampler": sampler, "frames": 12, "every": 100})
    for rate in (0.5, 25.0):
        assert set(sample(settings, steady(1, rate))) == {0}
        assert set(sample(settings, steady(1, rate), dice=Dice(0, "v"))) == {0}


@given(counts, rates, st.sampled_from(["fps", "segments", "clip2video"]), st.sampled_from([None, Span(1, 4)]))
def test_numbers_are_of_frames_that_exist_ascend_and_are_at_most_t(
    count: int, rate: float, sampler: str, span: Span | None
) -> None:
    settings = VideoSettings.resolve({"sampler": sampler, "frames": 8})
    for dice in (None, Dice(7, "v")):
        numbers = sample(settings, steady(count, rate), span, dice)
        assert len(numbers) <= 8
        assert np.all(np.diff(numbers) >= 0)
        assert all(0 <= number < count for number in numbers)


def test_frames_that_come_unevenly_are_taken_by_when_they_are_shown() -> None:
    times = np.array([0, 0.1, 0.2, 2.0, 2.1, 4.9])
    assert every_second(Timeline(times, 10.0, 5.0), 12).tolist() == [0, 2, 3, 4, 4]
    assert segments(6, 3).tolist() == [0, 2, 3]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")
@pytest.mark.parametrize("fps", [4, 5, 12, 25, 30])
def test_five_a_second_are_those_that_ffmpeg_extracts(tmp_path: Path, fps: int) -> None:
    file = write_video(tmp_path / "v.mp4", 61, fps=fps)
    timeline = OpenVideo(file, 1 << 20).timeline
    assert timeline is not None
    every = _digests(file, "passthrough")
    assert [every[number] for number in extracted(timeline, None, 5)] == _digests(file, "cfr", "-r", "5")


def _digests(file: Path, sync: str, *options: str) -> list[str]:
    command = ["ffmpeg", "-v", "error", "-i", str(file), *options, "-vsync", sync, "-f", "framemd5", "-"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.rsplit(",", 1)[1].strip() for line in lines if not line.startswith("#")]
