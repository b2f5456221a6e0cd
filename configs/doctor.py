"""Settings of `stillreel doctor`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stillreel.configs.settings import Settings


class DoctorSettings(Settings):
    model: str = Field("clip2video-b32", description="whose cost is told: a preset, a YAML file, or all")
    frames: int = Field(12, ge=1, le=999, description="T, frames a clip")
    words: int = Field(32, ge=3, le=999, description="W, tokens a caption")
    measure: bool = Field(True, description="also time decoding, rendering and the model on this machine, in seconds")
    format: Literal["text", "json"] = Field("text", description="a page to read, or JSON")
