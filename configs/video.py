"""Settings of reading videos: which frames a clip takes, how they are brought to size, what a file may cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stillreel.configs.settings import Settings


class VideoSettings(Settings):
    """Which frames of a video become a clip, and what a file may cost before it is refused."""

    sampler: Literal["fps", "segments", "clip2video"] = Field(
        "fps",
        description="fps: CLIP4Clip's, `per_second` frames a second, then `slice`; segments: STAN's, one frame of each of T "
        "equal parts; clip2video: CLIP2Video's, 5 frames a second, every `every`th, then T of them",
    )
    frames: int = Field(12, ge=1, le=999, description="T, frames a clip")
    size: int = Field(224, ge=16, le=2048, description="H = W of a frame, pixels: the short side, then the middle")
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
