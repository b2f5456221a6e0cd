"""Settings of `stillreel index`, `search` and `serve`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from stillreel.configs.build import TaskSettings
from stillreel.configs.settings import Settings
from stillreel.configs.video import ReadsVideos

Device = Literal["auto", "cpu", "cuda"]
_DEVICE = "auto: CUDA where there is a GPU, else cpu"


class EncoderSettings(TaskSettings):
    """What Ray keeps for each process that encodes, beside the tasks that decode: on every host as many as have room there."""

    cpus: float = Field(
        0, ge=0, description="CPUs that Ray keeps for each; it encodes in as many threads, at least one"
    )
    gpus: float = Field(
        1,
        ge=0,
        le=1,
        description="part of a GPU that Ray keeps for each, where a host has some; 0: tasks encode themselves",
    )
    resources: str = Field(
        "",
        description="other resources that Ray keeps for each: NAME=AMOUNT, by commas; encoder=1 has hosts that were started with "
        "--resources='{\"encoder\": 1}' encode, also without a GPU",
    )

    def options(self) -> dict[str, Any]:
        return super().options() | ({"num_gpus": self.gpus} if self.gpus else {})


class IndexSettings(ReadsVideos):
    checkpoint: str = Field(
        "ViT-B-32-quickgelu",
        description="what encodes videos: a checkpoint, the OUT of a run, a peer's file, or open_clip's name of a CLIP",
    )
    pretrained: str = Field(
        "openai", description="weights of a checkpoint by open_clip's name: its tag, or a file; else not asked for"
    )
    batch: int = Field(32, ge=1, le=4096, description="batch size: videos that are encoded at once")
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="decoding processes; 0: this one decodes; on Ray: parts in work at once, 0: as many as there is room for",
    )
    ray: str = Field("off", description="off: without Ray; local: a private Ray; auto or an ADDRESS: a cluster")
    task: TaskSettings = TaskSettings()
    encoder: EncoderSettings = EncoderSettings()
    part: int = Field(256, ge=1, le=65536, description="videos per saved part: what a crash costs at most")
    faiss: bool = Field(False, description="also build a faiss index, for approximate search in many millions")
    device: Device = Field("auto", description=_DEVICE)

    def encoder_needs(self, *, has_gpus: bool) -> dict[str, Any]:
        """As Ray takes them, of a process that encodes, on hosts of which some have GPUs or none; empty where tasks encode."""
        on_gpu = has_gpus and self.device != "cpu"
        needs = (self.encoder if on_gpu else self.encoder.model_copy(update={"gpus": 0})).options()
        return needs if "num_gpus" in needs or needs["resources"] else {}


class QuerySettings(Settings):
    """What search and serve share."""

    checkpoint: str = Field("", description="checkpoint of the index's model, if it has been moved")
    rerank: int = Field(0, ge=0, le=1000, description="candidates that the re-ranker orders; 0: no re-ranking")
    weight: float = Field(
        1.0,
        ge=0,
        le=1,
        description="weight of the re-ranker's score beside the dual encoder's, 0 to 1; `evaluate rerank=K` finds the best",
    )
    faiss: bool = Field(False, description="search the faiss index, approximately; false: exact search")
    device: Device = Field("auto", description=_DEVICE)


class SearchSettings(QuerySettings):
    k: int = Field(10, ge=1, le=1000, description="results per query")
    image: str = Field("", description="picture to search by, in place of TEXT")
    video: str = Field("", description="video to search by, in place of TEXT")
    queries: str = Field("", description="file of texts to search by, one per line")
    json_output: bool = Field(False, alias="json", description="JSON on standard output, one line per query")


class ServeSettings(QuerySettings):
    rerank: int = Field(
        50, ge=0, le=1000, description="candidates that the re-ranker orders when the page asks for it; 0: never"
    )
    host: str = Field(
        "127.0.0.1", description="address to listen on; 0.0.0.0 lets other machines in, without a password"
    )
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0: any that is free")
    k: int = Field(24, ge=1, le=200, description="results per page")
    max_query: int = Field(500, ge=1, le=10_000, description="longest query, in characters")
    max_upload: int = Field(64 << 20, ge=1, description="largest upload of a picture or video, in bytes")
    waiting: int = Field(32, ge=1, le=1000, description="searches that may queue; further ones are refused (503)")
