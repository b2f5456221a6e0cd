"""Settings of what training reads: the stream's order, what its samples become, what it forgives; and of its commands."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stillreel.configs.build import Fraction
from stillreel.configs.settings import Settings


class Change(Settings):
    """What the curriculum changes at a step; what is not given stays as it was."""

    grammar: str | None = None
    frames: Annotated[int, Field(ge=1, le=999)] | None = None
    size: Annotated[int, Field(ge=16, le=2048)] | None = None


class OrderSettings(Settings):
    """What decides which sample comes when. Changing one of these is another order: a state of the old one is refused."""

    seed: int = Field(0, ge=0, lt=2**63, description="of the order, and of recipes that are drawn here; 0 is a seed")
    lanes: int = Field(64, ge=1, le=4096, description="sequences of shards that are read side by side")
    window: int = Field(4096, ge=1, le=1 << 20, description="samples of a lane that are shuffled together")


class DataSettings(OrderSettings):
    """OrderSettings, what a sample becomes, and how it is read."""

    frames: int = Field(12, ge=1, le=999, description="T, frames a clip")
    size: int = Field(224, ge=16, le=2048, description="H = W of a frame, pixels")
    context_length: int = Field(
        32, ge=0, le=77, description="tokens a caption is cut or padded to, start and end included; 0: text only"
    )
    grammar: str = Field("", description="how recipes are drawn (a preset or a YAML file); empty: those of the shards")
    fresh: bool = Field(False, description="draw a new recipe every epoch from (seed, source key, epoch)")
    curriculum: dict[int, Change] = Field(
        {}, description="from which step on grammar, frames and size change: curriculum.5000.frames=16"
    )
    render: Literal["loader", "device"] = Field(
        "loader", description="loader: frames are rendered here; device: pictures and windows are sent (store=recipe)"
    )
    max_bad: Fraction = Field(0.01, description="stop when more than this fraction is damaged; 1: no limit")
    max_bad_run: int = Field(100, ge=1, description="stop when this many in a row are damaged")
    cache: str = Field("", description="folder for shards of a bucket; empty: read samples from there one by one")
    cache_gb: float = Field(50.0, gt=0, description="size limit of the cache, GB")
    attempts: int = Field(4, ge=1, le=20, description="tries of a read that storage does not answer")

    def order(self) -> OrderSettings:
        """The part that decides which sample comes when."""
        return OrderSettings(**{key: getattr(self, key) for key in OrderSettings.model_fields})


class StreamSettings(DataSettings):
    """DataSettings, and what `stillreel stream` is to show."""

    context_length: int = Field(0, ge=0, le=77, description="tokens a caption, made while reading; 0: none")
    keys: bool = Field(False, description="print the keys of each global batch")
    simulate: bool = Field(False, description="print what a run would read instead: downloads, cache, shuffle, rate")
    steps: int = Field(0, ge=0, description="steps to read; 0: one epoch")
    batch: int = Field(64, ge=1, le=1 << 20, description="clips of a step, all ranks together")
    ranks: int = Field(1, ge=1, le=4096, description="processes that train")
    nodes: int = Field(1, ge=1, le=4096, description="machines that the ranks are spread over (simulate)")
    workers: int = Field(2, ge=0, le=256, description="loader workers a rank; 0: load in the rank itself")
    start: int = Field(0, ge=0, description="steps that were read before")

    @model_validator(mode="after")
    def _ranks_share_evenly(self) -> StreamSettings:
        if self.batch % self.ranks:
            raise ValueError(f"batch={self.batch} cannot be shared evenly by ranks={self.ranks}")
        if self.ranks % self.nodes:
            raise ValueError(f"ranks={self.ranks} cannot be spread evenly over nodes={self.nodes}")
        return self


class CatalogSettings(Settings):
    workers: int = Field(0, ge=0, description="tars read at once; 0: one a CPU")
    progress: Literal["auto", "bar", "lines", "off"] = Field("auto", description="as in animate")
