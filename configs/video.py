"""Settings of reading videos: which frames a clip takes, how they are brought to size, what a file may cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stillreel.configs.settings import Settings


class VideoOptions(Settings):
    """Which frames of a video are taken, and what a file may cost before it is refused."""

    sampler: Literal["fps", "segments", "clip2video"] = Field(
        "fps",
        description="how frames are sampled. fps: CLIP4Clip's, per_second frames a second, then slice; segments: STAN's (TSN's), "
        "one frame of each of T equal segments; clip2video: CLIP2Video's, every `every`th of 5 frames a second, then T of them",
    )
    per_second: int = Field(
        1, ge=1, le=120, description="sampler=fps: frames per second (CLIP4Clip's feature_framerate)"
    )
    slice: Literal["head", "tail", "uniform"] = Field(
        "uniform",
        description="sampler=fps: which T frames of more (CLIP4Clip's slice_framepos): the first, the last, or evenly spaced",
    )
    every: int = Field(
        2,
        ge=1,
        le=100,
        description="sampler=clip2video: stride in frames (CLIP2Video's feature_framerate): 2 for MSR-VTT, 1 for MSVD and VATEX",
    )
    order: Literal["kept", "shuffled"] = Field(
        "kept", description="order of a clip's frames; shuffled: an ablation, of what their order is worth"
    )
    square_pixels: bool = Field(
        True,
        description="correct the aspect ratio of videos whose pixels are not square, as players do; false: as published codes do",
    )
    resize: Literal["shortest", "squash", "longest"] = Field(
        "shortest",
        description="how a frame becomes square, as the model's towers were trained behind it if nothing is given. shortest: the "
        "short side is scaled to size, then the center cropped; squash: both sides are, whatever its shape (SigLIP); longest: "
        "the long side is, and the rest is black",
    )
    interpolation: Literal["bicubic", "bilinear"] = Field(
        "bicubic", description="filter that scales frames, the towers' own if nothing is given"
    )
    max_pixels: int = Field(4096 * 2304, ge=1, description="videos with more pixels per frame than this are refused")
    max_seconds: float = Field(
        60.0, gt=0, description="CPU seconds that decoding one clip may take, before its video counts as damaged"
    )


class ClipShape(Settings):
    """What every command that reads clips has in the same place."""

    frames: int = Field(12, ge=1, le=999, description="T, frames per clip")
    size: int = Field(
        224,
        ge=16,
        le=2048,
        description="H = W of a frame, in pixels: its short side is scaled to this, then its center cropped",
    )


class VideoSettings(VideoOptions, ClipShape):
    """Which frames of a video become a clip of which shape: what a reader of videos is told."""


class ReadsVideos(ClipShape):
    """Settings of a command that reads videos."""

    video: VideoOptions = VideoOptions()

    def video_settings(self) -> VideoSettings:
        """`video`, with the clip's shape."""
        return VideoSettings(frames=self.frames, size=self.size, **dict(self.video))
