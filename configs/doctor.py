"""Settings of `stillreel doctor`."""

from __future__ import annotations

from typing import Literal

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
    device: Literal["auto", "cpu", "h100", "h200", "a100"] = Field(
        "auto",
        description="what a training step is reckoned for, by part; auto: this machine's GPU, if it is one of these",
    )
    batch: int = Field(0, ge=0, le=1 << 20, description="clips of that step on each device; 0: 256, on cpu 2")
    ranks: int = Field(
        1, ge=1, le=1 << 20, description="devices that share that step: what one holds of it, and is sent"
    )
    measure: bool = Field(True, description="also time decoding, rendering and the model here; takes some seconds")
    json_output: bool = Field(False, alias="json", description="JSON on standard output, not a page")
