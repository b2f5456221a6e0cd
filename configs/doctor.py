"""Settings of `stillreel doctor`."""

from __future__ import annotations

from pydantic import Field

from stillreel.configs.settings import Settings, named_by


class DoctorSettings(Settings):
    model: str = Field(
        "clip2video-b32",
        description="model whose FLOPs and memory are told: a preset, a YAML file, a checkpoint, the OUT of a run, or all",
        json_schema_extra=named_by("model"),
    )
    frames: int = Field(12, ge=1, le=999, description="T, frames per clip")
    context_length: int = Field(32, ge=3, le=999, description="tokens per caption, start and end included")
    measure: bool = Field(True, description="also time decoding, rendering and the model here; takes some seconds")
    json_output: bool = Field(False, alias="json", description="JSON on standard output, not a page")
