"""Settings of what training reads: the stream's order, what its samples become, what it forgives; and of its commands."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from stillreel.configs.build import Fraction, TaskSettings
from stillreel.configs.settings import Settings, named_by
from stillreel.configs.video import VideoOptions, VideoSettings


class Change(Settings):
    """What the curriculum changes at a step; what is not given stays as it was."""

    grammar: str | None = None
    frames: Annotated[int, Field(ge=1, le=999)] | None = None
    size: Annotated[int, Field(ge=16, le=2048)] | None = None


class OrderSettings(Settings):
    """What decides which sample comes when. Changing one of these is another order: a state of the old one is refused."""

    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="random seed of the order of samples, of camera paths drawn here, and of training; 0 is a seed",
    )
    lanes: int = Field(
        64,
        ge=1,
        le=4096,
        description="sequences of shards that are read side by side, over all ranks; samples come from them in turn",
    )
    window: int = Field(4096, ge=1, le=1 << 20, description="shuffle buffer of a lane, in samples")


class ForeignSettings(Settings):
    """How to read tars that we did not write, where their shape does not say it all."""

    caption: str = Field(
        "",
        description="foreign tars: the field of their JSON, or a member's ending, that has the caption; empty: the usual ones",
    )


class DataSettings(OrderSettings):
    """OrderSettings, what a sample becomes, and how it is read."""

    later: ClassVar[frozenset[str]] = frozenset({"source", "video"})

    frames: int = Field(12, ge=1, le=999, description="T, frames per clip")
    size: int = Field(224, ge=16, le=2048, description="H = W of a frame, in pixels")
    context_length: int = Field(
        32,
        ge=0,
        le=77,
        description="tokens per caption, start and end included: it is cut or padded to so many; 0: not tokenized",
    )
    grammar: str = Field(
        "",
        description="draw camera paths anew by this grammar (a preset or a YAML file); empty: those in the shards",
        json_schema_extra=named_by("grammars"),
    )
    fresh: bool = Field(False, description="draw new camera paths in every epoch, as augmentation (store=recipe)")
    curriculum: dict[int, Change] = Field(
        {}, description="changes of grammar, frames or size at a step, as curriculum.5000.frames=16"
    )
    render: Literal["loader", "device"] = Field(
        "loader",
        description="where frames are rendered. loader: in its workers; device: on the GPU, from whole pictures (store=recipe)",
    )
    max_bad: Fraction = Field(0.01, description="stop when more than this fraction of samples is damaged; 1: no limit")
    max_bad_run: int = Field(100, ge=1, description="stop when this many samples in a row are damaged")
    cache: str = Field(
        "",
        description="local folder that caches shards of a bucket; empty: samples are read from the bucket one by one",
    )
    cache_gb: float = Field(50.0, gt=0, description="size limit of the cache, in GB")
    attempts: int = Field(
        4, ge=1, le=20, description="attempts of a read that storage does not answer; none begins after two minutes"
    )
    source: ForeignSettings = ForeignSettings()
    video: VideoOptions = VideoOptions()

    def video_settings(self, frames: int, size: int) -> VideoSettings:
        """`video`, for clips of this shape."""
        return VideoSettings(frames=frames, size=size, **dict(self.video))

    def order(self) -> OrderSettings:
        """The part that decides which sample comes when."""
        return OrderSettings(**{key: getattr(self, key) for key in OrderSettings.model_fields})


class StreamSettings(DataSettings):
    """DataSettings, and what `stillreel stream` is to show."""

    context_length: int = Field(0, ge=0, le=77, description="tokens per caption, made while reading; 0: not tokenized")
    keys: bool = Field(False, description="print the sample keys of each global batch")
    simulate: bool = Field(
        False, description="read nothing, and print what a run would read: downloads, cache, shuffling, throughput"
    )
    steps: int = Field(0, ge=0, description="steps (global batches) to read; 0: one epoch")
    batch: int = Field(64, ge=1, le=1 << 20, description="global batch size: clips per step, of all ranks together")
    ranks: int = Field(1, ge=1, le=4096, description="data-parallel ranks to play: processes that would train")
    nodes: int = Field(1, ge=1, le=4096, description="simulate: machines that the ranks are spread over")
    workers: int = Field(2, ge=0, le=256, description="loader workers per rank; 0: the rank loads itself")
    start: int = Field(0, ge=0, description="step to start at, as a resumed run would")

    @model_validator(mode="after")
    def _ranks_share_evenly(self) -> StreamSettings:
        if self.batch % self.ranks:
            raise ValueError(f"batch={self.batch} cannot be shared evenly by ranks={self.ranks}")
        if self.ranks % self.nodes:
            raise ValueError(f"ranks={self.ranks} cannot be spread evenly over nodes={self.nodes}")
        return self


class CatalogSettings(Settings):
    workers: int = Field(0, ge=0, description="tars that are read at once; 0: one per CPU")
    ray: str = Field(
        "off", description="off: threads of this process; local: a private Ray; auto or an ADDRESS: a cluster"
    )
    task: TaskSettings = TaskSettings()
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        "auto", description="auto: a bar on a terminal, lines in a log"
    )
