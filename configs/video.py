"""Settings of reading videos: which frames a clip takes, how they are brought to size, what a file may cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stillreel.configs.settings import Settings


class VideoOptions(Settings):
    """Which frames of a video are taken, and what a file may cost before it is refused."""

    sampler: Literal["fps", "segments", "clip2video"] = Field(
        "fps",
        description="fps: CLIP4Clip's, `per_second` frames a second, then `slice`; segments: STAN's, one frame of each of T "
        "equal parts; clip2video: CLIP2Video's, 5 frames a second, every `every`th, then T of them",
    )
    per_second: int = Field(1, ge=1, le=120, description="of sampler=fps: frames of each second")
    slice: Literal["head", "tail", "uniform"] = Field("uniform", description="of sampler=fps: which T of more than T")
    every: int = Field(
        2, ge=1, le=100, description="of sampler=clip2video: its feature_framerate, 2 for MSR-VTT, 1 for MSVD and VATEX"
    )
    order: Literal["kept", "shuffled"] = Field(
        "kept", description="of a clip's frames; shuffled, to see what their order is worth"
    )
    square_pixels: bool = Field(
        True,
        description="stretch frames whose pixels are not square, as players do; false: as the published codes do not",
    )
    max_pixels: int = Field(4096 * 2304, ge=1, description="a video of larger frames is refused")
    max_seconds: float = Field(60.0, gt=0, description="CPU time that one clip may take before its file is given up")


class ClipShape(Settings):
    """What every command that reads clips has in the same place."""

    frames: int = Field(12, ge=1, le=999, description="T, frames a clip")
    size: int = Field(224, ge=16, le=2048, description="H = W of a frame, pixels: the short side, then the middle")


class VideoSettings(VideoOptions, ClipShape):
    """Which frames of a video become a clip of which shape: what a reader of videos is told."""


class ReadsVideos(ClipShape):
    """Settings of a command that reads videos."""

    video: VideoOptions = VideoOptions()

    def video_settings(self) -> VideoSettings:
        """`video`, with the clip's shape."""
        return VideoSettings(frames=self.frames, size=self.size, **dict(self.video))
