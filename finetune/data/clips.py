"""Clips of a benchmark's videos, and where their frames come from: the video files, or frames stored by prepare=true."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillreel.configs.system.dice import Dice
from stillreel.configs.video import VideoSettings
from stillreel.pretrain.video import MIDDLE, Span, VideoClip, VideoError, VideoReader, View
from stillreel.pretrain.video.crop import draw_crop


class Clip(NamedTuple):
    """A clip to be read: the name of its video in messages, its file (None: it is missing), its part and its view of it."""

    name: str
    file: Path | None
    span: Span | None = None
    view: View = MIDDLE


class ClipSource(Protocol):
    """Reads clips, in one process."""

    def read(self, clip: Clip, epoch: int | None) -> VideoClip:
        """The clip as at test (None), or with what its sampler draws in an epoch. VideoError where it has no frame."""

    def read_crops(self, clips: Sequence[Clip]) -> list[VideoClip]:
        """Clips as at test that differ by where their square lies, and by nothing else: decoded once."""


class Draws(NamedTuple):
    """What is drawn of a video in an epoch: by `seed`; with `crops` the part of its frames, too."""

    seed: int = 0
    crops: bool = False

    def dice(self, clip: Clip, epoch: int) -> Dice:
        return dice_of(self.seed, clip.name, epoch)

    def view(self, clip: Clip, epoch: int | None) -> View:
        """The clip's own at test (None), and where nothing is drawn."""
        if epoch is None or not self.crops:
            return clip.view
        return clip.view._replace(crop=draw_crop(self.dice(clip, epoch)))


AT_TEST = Draws()  # where no epoch is read


class FileSource:
    """Decodes the video files."""

    def __init__(self, settings: VideoSettings, draws: Draws = AT_TEST) -> None:
        self._reader, self._draws = VideoReader(settings), draws

    def read(self, clip: Clip, epoch: int | None) -> VideoClip:
        dice = None if epoch is None else self._draws.dice(clip, epoch)
        return self._reader.read(_file_of(clip), clip.span, dice, self._draws.view(clip, epoch))

    def read_crops(self, clips: Sequence[Clip]) -> list[VideoClip]:
        clip = clips[0]
        return self._reader.read_views(_file_of(clip), clip.span, None, [one.view for one in clips])


def _file_of(clip: Clip) -> Path:
    if clip.file is None:
        raise VideoError(clip.name, "missing", "no file of its name was found")
    return clip.file


def dice_of(seed: int, video: str, epoch: int) -> Dice:
    """What draws the frames of a video in an epoch."""
    return Dice(seed, f"{video}\0{epoch}")


def empty_clips(count: int, settings: VideoSettings) -> tuple[Tensor, Tensor]:
    """Black frames uint8 (count, T, H, W, 3) and a mask (count, T) that lets a model look at the first of each: without any
    frame its features would not be finite."""
    frames = torch.zeros(count, settings.frames, settings.size, settings.size, 3, dtype=torch.uint8)
    return frames, (torch.arange(settings.frames) == 0).repeat(count, 1)


def fill_clip(
    source: ClipSource, clip: Clip, frames: NDArray[np.uint8], mask: NDArray[np.bool_], epoch: int | None = None
) -> list[str]:
    """Read a clip into frames (T, H, W, 3) and mask (T,). What is wrong with its file nevertheless; VideoError without any
    frame."""
    read = source.read(clip, epoch)
    frames[:], mask[:] = read.frames, read.mask
    return [f"{clip.file}: {flaw}" for flaw in read.flaws]
