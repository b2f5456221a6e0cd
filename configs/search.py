"""Settings of `stillreel index`, `search` and `serve`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stillreel.configs.settings import Settings
from stillreel.configs.video import ReadsVideos

Device = Literal["auto", "cpu", "cuda"]
_DEVICE = "auto: a CUDA device where there is one"


class IndexSettings(ReadsVideos):
    checkpoint: str = Field(description="a model of stillreel's, or the OUT of a run")
    batch: int = Field(32, ge=1, le=4096, description="videos that are encoded at once")
    workers: int = Field(0, ge=0, le=256, description="processes that decode; 0: this one")
    part: int = Field(256, ge=1, le=65536, description="videos between two saves: what a crash may cost")
    faiss: bool = Field(False, description="a faiss index too, for searching many millions approximately")
    device: Device = Field("auto", description=_DEVICE)


class QuerySettings(Settings):
    """What search and serve share."""

    checkpoint: str = Field("", description="where the index's model lies now, if not where it lay")
    rerank: int = Field(0, ge=0, le=1000, description="candidates that the fine stage orders; 0: none, coarse order")
    weight: float = Field(
        1.0, ge=0, le=1, description="of the fine score beside the coarse one; `evaluate rerank=K` finds the best"
    )
    faiss: bool = Field(False, description="search the faiss index, which may miss some; false: exact search")
    device: Device = Field("auto", description=_DEVICE)


class SearchSettings(QuerySettings):
    k: int = Field(10, ge=1, le=1000, description="results a query")
    image: str = Field("", description="a picture to search by, in place of text")
    video: str = Field("", description="a video to search by, in place of text")
    queries: str = Field("", description="a file of texts to search by, one a line")
    json_output: bool = Field(False, alias="json", description="JSON on standard output, a line a query")


class ServeSettings(QuerySettings):
    rerank: int = Field(50, ge=0, le=1000, description="candidates that re-ranking orders where it is switched on")
    host: str = Field(
        "127.0.0.1", description="address to listen on; other machines are let in by 0.0.0.0, and unasked"
    )
    port: int = Field(8080, ge=0, le=65535, description="0: any that is free")
    k: int = Field(24, ge=1, le=200, description="results a page")
    max_query: int = Field(500, ge=1, le=10_000, description="characters of a query")
    max_upload: int = Field(64 << 20, ge=1, description="bytes of an uploaded picture or video")
    waiting: int = Field(32, ge=1, le=1000, description="searches that may wait; more are told to come again")
