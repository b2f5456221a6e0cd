"""Settings of `stillreel import-checkpoint` and `export`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stillreel.configs.model import PeerOptions
from stillreel.configs.settings import Settings


class ImportSettings(Settings):
    """What a file cannot say of itself."""

    peer: PeerOptions = PeerOptions()
    quick_gelu: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="activation of a CLIP's towers; auto: yes for OpenAI's, and where the config beside FILE says so",
    )


class ExportSettings(Settings):
    towers: Literal["open_clip", "hf", "none"] = Field(
        "open_clip", description="OUT/towers: the CLIP inside, as open_clip loads it, or as HF's CLIPModel"
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="data type of the tensors of OUT/towers"
    )
