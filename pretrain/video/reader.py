"""From a video file to a clip: what the benchmarks and the loaders of this room call."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stillreel.configs.system.dice import Dice
from stillreel.configs.video import VideoSettings
from stillreel.pretrain.video.container import OpenVideo
from stillreel.pretrain.video.crop import DrawnCrop
from stillreel.pretrain.video.decode import FrameDecoder
from stillreel.pretrain.video.errors import Flaw, VideoError, reading
from stillreel.pretrain.video.pixels import Fit, FrameShaper
from stillreel.pretrain.video.samplers import sample
from stillreel.pretrain.video.timeline import Span

Pixels = NDArray[np.uint8]


class View(NamedTuple):
    """How a clip looks at its video, where several do: which instant of each part (`segments`; None: near its middle), and
    where along the longer side its square lies, from 0 to 1; or the part of its frames that is drawn in training."""

    instant: float | None = None
    place: float = 0.5
    crop: DrawnCrop | None = None


MIDDLE = View()


class VideoClip(NamedTuple):
    """T frames of a video. Where the sampler gives fewer, the others are black and masked out, as in the published codes.

    frames: uint8 (T, H, W, 3), RGB, H = W = size; mask: bool (T,), False where there is no frame; numbers: int64 (K,), of the
    frames in their video, and times: float64 (K,), seconds on a player's clock, K = mask.sum(); flaws: what is wrong with the
    file although it gave these frames. A frame that could not be decoded is the one shown before it, and a flaw says so.
    """

    frames: Pixels
    mask: NDArray[np.bool_]
    numbers: NDArray[np.int64]
    times: NDArray[np.float64]
    flaws: tuple[Flaw, ...]
    end: float  # when the last frame of the video goes, in seconds
    total: int = 0  # frames of the whole video; 0: nobody says


class VideoReader:
    """Reads clips as `settings` say."""

    def __init__(self, settings: VideoSettings) -> None:
        self._settings = settings

    def read(
        self,
        file: str | Path,
        span: Span | None = None,
        dice: Dice | None = None,
        view: View = MIDDLE,
        name: str = "",
    ) -> VideoClip:
        """The clip of a video, or of a span of it; with dice a sampler that draws in training draws, without as at test.
        `name` is the video's, where the file's is not.

        Raises VideoError, and nothing else, when the file gives no frame at all.
        """
        return self.read_views(file, span, dice, (view,), name)[0]

    def read_views(
        self, file: str | Path, span: Span | None, dice: Dice | None, views: Sequence[View], name: str = ""
    ) -> list[VideoClip]:
        """A clip for each of several views of the same instant, whose frames are decoded once."""
        with reading(file):
            return self._read(file, span, dice, views, name or Path(file).name)

    def _read(
        self, file: str | Path, span: Span | None, dice: Dice | None, views: Sequence[View], name: str
    ) -> list[VideoClip]:
        settings = self._settings
        (instant,) = {view.instant for view in views}
        video = OpenVideo(Path(file), settings.max_pixels)
        decoder = FrameDecoder(video, settings.max_seconds)
        numbers = sample(settings, decoder.timeline, span, dice, instant)
        if settings.order == "shuffled":
            numbers = shuffled(numbers, dice, name)
        if not len(numbers):
            raise VideoError(
                str(file), "outside", f"no frame to take in {span or 'it'}; it has {decoder.timeline.frames}"
            )
        aspect = video.sample_aspect if settings.square_pixels else None
        fit = Fit.asked(settings)
        shapers = [FrameShaper(settings.size, aspect, view.place, view.crop, fit) for view in views]
        shaped = {number: [shaper(frame) for shaper in shapers] for number, frame in decoder.frames(numbers.tolist())}
        if not shaped:
            why = "; ".join(map(str, decoder.flaws)) or "the decoder gave none"
            raise VideoError(str(file), "no_frames", why)
        shown = [shaped[shown_instead(number, shaped)] for number in numbers.tolist()]
        times, end, flaws = decoder.timeline.times[numbers], decoder.timeline.end, tuple(decoder.flaws)
        total = decoder.timeline.frames
        return [
            VideoClip(*filled(settings, pictures), numbers, times, flaws, end, total)
            for pictures in zip(*shown, strict=True)
        ]


def filled(settings: VideoSettings, pictures: Sequence[Pixels]) -> tuple[Pixels, NDArray[np.bool_]]:
    """Frames (T, size, size, 3) and mask (T,) of at most T pictures."""
    frames = np.zeros((settings.frames, settings.size, settings.size, 3), np.uint8)
    for place, picture in enumerate(pictures):
        frames[place] = picture
    return frames, np.arange(settings.frames) < len(pictures)


def shuffled(numbers: NDArray[np.int64], dice: Dice | None, name: str) -> NDArray[np.int64]:
    """The same numbers in an order that dice draw; without dice always the same, of the file of this name."""
    dice = dice or Dice(0, name)
    return np.asarray(numbers[np.argsort(dice.units("order of frames", len(numbers)), kind="stable")])


def shown_instead(number: int, found: Collection[int]) -> int:
    """The frame itself, or the last before it that came out, or the first that did."""
    if number in found:
        return number
    return max((other for other in found if other < number), default=min(found))
