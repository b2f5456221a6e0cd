"""Settings of `stillreel import-checkpoint`, `export`, `push` and `pull`."""

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

    towers: str = Field(
        "",
        description="a CLIP of open_clip's list: whose tensors FILE has, where they do not tell; or what FILE, an image tower "
        "alone, is put into",
    )
    pretrained: str = Field(
        "", description="weights of `towers`, or of FILE by open_clip's name: its tag (openai), or a file"
    )


class ExportSettings(Settings):
    towers: Literal["open_clip", "hf", "none"] = Field(
        "open_clip",
        description="OUT/towers: the CLIP inside, as open_clip loads it, or as HF's CLIPModel or SiglipModel",
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="data type of the tensors of OUT/towers"
    )
    pretrained: str = Field("", description="weights of a CHECKPOINT by open_clip's name: its tag (openai), or a file")


class PushSettings(Settings):
    """How a repository of the Hugging Face hub is made. Who writes is said by HF_TOKEN, or by `hf auth login`."""

    private: bool = Field(True, description="a repository that is new is seen by its owners alone; false: by everybody")
    license: str = Field(
        "", description="the hub's word for the license, as apache-2.0, for a new card; empty: a line to fill in"
    )
    revision: str = Field("main", description="branch that is written to")


class PullSettings(Settings):
    revision: str = Field("main", description="branch, tag or commit that is fetched")
