"""Settings of `stillreel doctor`."""

from __future__ import annotations

from pydantic import Field

from stillreel.configs.settings import Settings


class DoctorSettings(Settings):
    model: str = Field("clip2video-b32", description="whose cost is told: a preset, a YAML file, or all")
    frames: int = Field(12, ge=1, le=999, description="T, frames a clip")
    context_length: int = Field(32, ge=3, le=999, description="tokens a caption")
    measure: bool = Field(True, description="also time decoding, rendering and the model on this machine, in seconds")
    json_output: bool = Field(False, alias="json", description="JSON on standard output, not a page")
