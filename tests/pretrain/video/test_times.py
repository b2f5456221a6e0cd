"""Videos whose clock jumps: joined recordings, clocks that were set. A clip is of all of their frames, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillreel.configs.video import VideoSettings
from stillreel.pretrain.video import VideoClip, VideoReader
from tests.pretrain.video.making import frame_of, write_video

HOUR = 3_600_000
EVEN = [number * 40 for number in range(60)]
SAMPLERS = ("fps", "segments", "clip2video")


def read(file: Path, sampler: str) -> VideoClip:
    return VideoReader(VideoSettings.resolve({"sampler": sampler, "frames": 6, "size": 64})).read(file)


def jumping(at: int, by: int) -> list[int]:
    return [tick + by * (number >= at) for number, tick in enumerate(EVEN)]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("ending", "at", "hours"),
    [("mp4", 30, 3), ("mkv", 30, 3), ("ts", 30, 13), ("mkv", 1, 26), ("mp4", 59, 1)],
)
def test_a_jump_of_hours_is_one_step_and_is_told(
    sampler: str, ending: str, at: int, hours: int, tmp_path: Path
) -> None:
    even = read(write_video(tmp_path / f"even.{ending}", 60, ticks=EVEN, fps=25), sampler)
    found = read(write_video(tmp_path / f"v.{ending}", 60, ticks=jumping(at, hours * HOUR), fps=25), sampler)
    assert found.numbers.tolist() == even.numbers.tolist()
    assert found.times == pytest.approx(even.times, abs=0.05) and found.end == pytest.approx(even.end, abs=0.05)
    assert [flaw.reason for flaw in found.flaws] == ["times"] and not even.flaws
    assert f"jump by +{hours}.0 h after frame {at} of 60" in found.flaws[0].detail


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_clock_that_was_set_back_keeps_the_order_of_what_was_filmed(sampler: str, tmp_path: Path) -> None:
    parts = []
    for first, start in ((0, 10 * HOUR), (30, 0)):
        pictures, ticks = [*map(frame_of, range(first, first + 30))], [*range(start, start + 1200, 40)]
        parts.append(write_video(tmp_path / f"{first}.ts", pictures, ticks=ticks, fps=25))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    even = read(write_video(tmp_path / "even.ts", 60, ticks=EVEN, fps=25), sampler)
    found = read(joined, sampler)
    assert found.numbers.tolist() == even.numbers.tolist()
    assert abs(found.frames.astype(int) - even.frames).mean() < 4, "the same frames in the same order"
    assert [flaw.reason for flaw in found.flaws] == ["times"]


def test_frames_that_are_shown_for_long_are_no_jump(tmp_path: Path) -> None:
    """A slide every twenty minutes, and one an hour: that is how they are shown."""
    for minutes in (20, 60):
        file = write_video(tmp_path / f"{minutes}.mkv", 6, ticks=[n * minutes * 60_000 for n in range(6)])
        clip = read(file, "segments")
        assert not clip.flaws
        assert clip.end >= 5 * minutes * 60
