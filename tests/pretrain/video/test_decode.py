"""Frames: the right ones, the same as if all had been decoded, whatever the container and however few are wanted."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stillreel.configs.video import VideoSettings
from stillreel.pretrain.video import Span, VideoReader
from stillreel.pretrain.video.container import OpenVideo
from stillreel.pretrain.video.decode import FrameDecoder
from stillreel.pretrain.video.pixels import Fit, fitted, turned
from stillreel.pretrain.video.samplers import segments
from tests.making import SHARED, needs_shared, picture
from tests.pretrain.video.making import frame_of, number_of, write_video

Pixels = NDArray[np.uint8]

_CODECS = {
    "mp4": {"codec": "libx264", "options": {"crf": "12", "bf": "3", "g": "20"}},
    "mkv": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=20:open-gop=1"}},
    "webm": {"codec": "libvpx-vp9", "options": {"crf": "20", "b": "0", "cpu-used": "8", "deadline": "realtime"}},
    "avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "12", "qscale": "2"}},
    "mpg": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12", "qscale": "2"}},
}


def all_frames(file: Path) -> list[Pixels]:
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.best("video"))]


def some_frames(file: Path, numbers: Sequence[int]) -> dict[int, Pixels]:
    decoder = FrameDecoder(OpenVideo(file, 1 << 25), 60)
    return {number: frame.to_ndarray(format="rgb24") for number, frame in decoder.frames(numbers)}


@pytest.mark.parametrize("container", _CODECS)
def test_few_frames_are_the_same_as_of_all(container: str, tmp_path: Path) -> None:
    file = write_video(tmp_path / f"v.{container}", 61, fps=25, **_CODECS[container])  # type: ignore[arg-type]
    every = all_frames(file)
    assert len(every) == FrameDecoder(OpenVideo(file, 1 << 25), 60).timeline.frames
    for numbers in ([0], [60], [59, 60], [17, 3, 41], list(range(0, 61, 7)), list(range(61))):
        found = some_frames(file, numbers)
        assert sorted(found) == sorted(numbers)
        assert all(np.array_equal(pixels, every[number]) for number, pixels in found.items())


def test_only_what_is_needed_is_decoded(tmp_path: Path) -> None:
    """Frame 55 of key frames every 20: from 40 on, and without the frames that no other refers to."""
    file = write_video(tmp_path / "v.mp4", 61, **_CODECS["mp4"])  # type: ignore[arg-type]
    video = OpenVideo(file, 1 << 20)
    sent: list[int] = []
    real = video.decoder()

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def decode(self, packet: object) -> list[object]:
            sent.append(1 if packet is not None else 0)
            return list(real.decode(packet))

    decoder = FrameDecoder(video, 60)
    decoder._decoder = Counting()
    assert [number for number, _ in decoder.frames([55])] == [55]
    assert sum(sent) <= 20


def test_a_stream_too_large_to_keep_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_video(tmp_path / "v.mp4", 61, **_CODECS["mp4"])  # type: ignore[arg-type]
    kept = some_frames(file, [5, 33, 60])
    monkeypatch.setattr("stillreel.pretrain.video.container._KEPT_BYTES", 1000)
    again = some_frames(file, [5, 33, 60])
    assert all(np.array_equal(kept[number], again[number]) for number in (5, 33, 60))


def test_clips_hold_the_frames_that_their_numbers_say(tmp_path: Path) -> None:
    file = write_video(tmp_path / "v.mp4", 90)
    clip = VideoReader(VideoSettings(frames=12, size=64)).read(file)
    assert clip.numbers.tolist() == [0, 30, 60]
    assert np.allclose(clip.times, [0, 1, 2], atol=1e-3)
    assert clip.mask.tolist() == [True] * 3 + [False] * 9
    assert clip.frames.shape == (12, 64, 64, 3) and not clip.frames[3:].any()
    assert clip.flaws == ()
    whole = VideoReader(VideoSettings(sampler="segments", frames=6, size=64)).read(file)
    assert whole.numbers.tolist() == segments(90, 6).tolist()


def test_a_span_holds_only_its_own_frames(tmp_path: Path) -> None:
    file = write_video(tmp_path / "v.mp4", 90)
    clip = VideoReader(VideoSettings(sampler="segments", frames=5, size=32)).read(file, Span(1.0, 2.0))
    assert clip.numbers.min() >= 30 and clip.numbers.max() < 60


def test_times_of_a_variable_rate_are_exact(tmp_path: Path) -> None:
    ticks = [0, 40, 80, 1000, 1040, 2500, 2540, 2580, 4000, 4001]
    file = write_video(tmp_path / "v.mkv", 10, ticks=ticks)
    video = OpenVideo(file, 1 << 20)
    assert video.timeline is not None
    assert (video.timeline.times * 1000).round().tolist() == ticks
    found = some_frames(file, range(10))
    assert [number_of(found[number]) for number in range(10)] == list(range(10))
    clip = VideoReader(VideoSettings(size=64)).read(file)
    assert {round(1000 * time) for time in clip.times} <= set(ticks)


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_rotated_videos_come_out_upright(angle: int, tmp_path: Path) -> None:
    """A frame is stored turned, and the container says how a player turns it back."""
    stored = [np.ascontiguousarray(np.rot90(frame_of(number, 96, 96), -angle // 90)) for number in range(4)]
    file = write_video(tmp_path / "v.mp4", stored, rotation=angle)
    clip = VideoReader(VideoSettings(sampler="segments", frames=4, size=96)).read(file)
    upright = [frame_of(number, 96, 96) for number in clip.numbers]
    for seen, expected in zip(clip.frames, upright, strict=True):
        assert np.abs(seen.astype(int) - expected).mean() < 6


def test_mirrored_frames_are_mirrored_back() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for matrix, expected in (
        ([[1, 0], [0, 1]], pixels),
        ([[-1, 0], [0, 1]], pixels[:, ::-1]),
        ([[1, 0], [0, -1]], pixels[::-1]),
        ([[0, 1], [1, 0]], pixels.transpose(1, 0, 2)),
        ([[0, 1], [-1, 0]], np.rot90(pixels, -1)),
    ):
        assert np.array_equal(turned(pixels, 1.0, np.array(matrix))[0], expected)


def test_pixels_that_are_not_square_are_stretched_unless_told_otherwise(tmp_path: Path) -> None:
    """A disc of 96 x 64 pixels at 2:3 is a disc again."""
    y, x = np.mgrid[:64, :96]
    disc = ((x - 47.5) / 36) ** 2 + ((y - 31.5) / 24) ** 2 < 1
    picture = np.where(disc, 235, 20).astype(np.uint8)[..., None].repeat(3, 2)
    file = write_video(tmp_path / "v.mp4", [picture] * 3, sample_aspect=Fraction(2, 3))
    shown = VideoReader(VideoSettings(frames=1, size=64)).read(file).frames[0, ..., 0] > 128
    stored = VideoReader(VideoSettings(frames=1, size=64, square_pixels=False)).read(file).frames[0, ..., 0] > 128
    assert abs(int(shown.any(0).sum()) - int(shown.any(1).sum())) <= 1
    assert stored.any(0).all() and not stored.any(1).all()


@pytest.mark.parametrize("size", [(97, 65), (33, 33), (640, 34), (34, 640)])
def test_odd_sizes_come_out_whole(size: tuple[int, int], tmp_path: Path) -> None:
    file = write_video(tmp_path / "v.mp4", 5, pixel_format="yuv444p", size=size)
    assert VideoReader(VideoSettings(frames=2, size=48)).read(file).frames[0].any()


def test_resizing_is_pillow_s_bicubic_of_the_whole_frame_then_the_middle() -> None:
    """As torchvision's Resize and CenterCrop of CLIP's own preprocessing compute it."""
    for width, height in ((320, 240), (641, 359), (240, 427), (100, 100)):
        pixels = picture(3, width, height)
        full = [max(112, int(112 * side / min(width, height))) for side in (width, height)]
        left, top = (round((side - 112) / 2) for side in full)
        resized = Image.fromarray(pixels).resize((full[0], full[1]), Image.Resampling.BICUBIC)
        published = np.asarray(resized)[top : top + 112, left : left + 112]
        away = np.abs(fitted(pixels, 112, Fit()).astype(int) - published)
        assert away.max() <= 4 and away.mean() < 0.3


@pytest.mark.parametrize("form", ["yuv420p10le", "yuvj420p", "yuv422p"])
def test_ten_bits_full_range_and_other_samplings_are_read(form: str, tmp_path: Path) -> None:
    file = write_video(tmp_path / "v.mp4", 4, pixel_format=form)
    clip = VideoReader(VideoSettings(sampler="segments", frames=4, size=64)).read(file)
    assert np.abs(clip.frames[0].astype(int) - frame_of(0)[:, 16:80]).mean() < 8


def test_grey_stays_grey(tmp_path: Path) -> None:
    clip = VideoReader(VideoSettings(frames=1, size=64)).read(write_video(tmp_path / "v.mp4", 2, pixel_format="gray"))
    assert np.ptp(clip.frames[0], axis=-1).max() == 0
    assert np.ptp(clip.frames[0]) > 150


@needs_shared
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")
@pytest.mark.parametrize(
    "name",
    [
        "msrvtt/video7010.mp4",
        "msvd/j2Dhf-xFUxU_13_20.avi",
        "asl_gestures/again.mkv",
        "ssv2_like/human2bot_task5_0.webm",
        "dgs_signs/*.mp4",
        "panda70m/*.mp4",
        "assorted/mmaction2__test.avi",
        "assorted/torchcodec__nasa_13013.mp4",
    ],
)
def test_real_clips_give_ffmpeg_s_frames(name: str) -> None:
    assert_ffmpeg_s_frames(sorted((SHARED / "data/videos").glob(name))[0])


@needs_shared
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")
def test_every_real_clip_gives_ffmpeg_s_frames() -> None:
    files = sorted(
        path for path in (SHARED / "data/videos").rglob("*") if path.suffix in (".mp4", ".avi", ".mkv", ".webm")
    )
    assert len(files) == 591
    for file in files:
        assert_ffmpeg_s_frames(file)


def assert_ffmpeg_s_frames(file: Path) -> None:
    """Six frames of a video against those that the ffmpeg command decodes, to 2 levels in the mean."""
    video = OpenVideo(file, 1 << 25)
    decoder = FrameDecoder(video, 60)
    numbers = np.unique(segments(decoder.timeline.frames, 6)).tolist()
    shown = "+".join(f"eq(n\\,{number})" for number in numbers)
    command = ["ffmpeg", "-v", "error", "-i", str(file), "-vf", f"select={shown}", "-vsync", "passthrough"]
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True).stdout
    found = {number: frame.to_ndarray(format="rgb24") for number, frame in decoder.frames(numbers)}
    expected = np.frombuffer(raw, np.uint8).reshape(len(numbers), *found[numbers[0]].shape)
    for number, right in zip(numbers, expected, strict=True):
        assert np.abs(found[number].astype(int) - right).mean() <= 2, (file, number)
