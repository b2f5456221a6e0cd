"""Settings of the benchmarks' commands: `stillreel finetune BENCHMARK` and `stillreel evaluate BENCHMARK`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from stillreel.configs.benchmark import BenchmarkSettings
from stillreel.configs.build import Fraction
from stillreel.configs.model import ModelSettings, PeerOptions
from stillreel.configs.settings import Settings, expand_preset
from stillreel.configs.train import PrecisionSettings, TrainSettings
from stillreel.configs.video import ReadsVideos


class ViewSettings(Settings):
    """Clips of each video whose scores are averaged in a test."""

    segments: int = Field(1, ge=1, le=100, description="clips along time, of video.sampler=segments")
    crops: Literal[1, 3] = Field(1, description="squares of each: the middle; or both ends of the longer side, too")

    @field_validator("crops", mode="before")
    @classmethod
    def _as_number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdecimal() else value


class ProtocolSettings(BenchmarkSettings, ReadsVideos):
    """How a benchmark is asked: what a model sees of videos and captions, and which figures are told."""

    prepared: str = Field(
        "", description="an OUT of prepare=true: its frames are read, and the videos need not be there; empty: videos"
    )
    context_length: int = Field(
        32, ge=2, le=77, description="tokens a caption is cut or padded to, start and end included"
    )
    prompt: str = Field("a video of {}.", description="caption of a class (recognition); {} is its name")
    views: ViewSettings = ViewSettings()
    dual_softmax: bool = Field(True, description="a row of dual softmax, too, which sees all queries at once")
    querybank: int = Field(0, ge=0, description="training captions of a row of QB-norm; 0: no such row")
    max_bad: Fraction = Field(0.01, description="stop when more than this fraction of videos is damaged; 1: no limit")
    max_bad_run: int = Field(100, ge=1, description="stop when this many in a row are damaged")

    @model_validator(mode="after")
    def _protocol_fits(self) -> ProtocolSettings:
        if "{}" not in self.prompt:
            raise ValueError(f"prompt={self.prompt!r} has no {{}} for the name of the class")
        if self.views.segments > 1 and self.video.sampler != "segments":
            raise ValueError(
                f"views.segments={self.views.segments} needs video.sampler=segments, given {self.video.sampler}"
            )
        return self


class FinetuneEvalSettings(Settings):
    """When a checkpoint is measured on the validation split, to choose the best one."""

    every: int = Field(
        0, ge=0, description="steps between validations; each saves a checkpoint; 0: at every save_every"
    )


class FinetuneSettings(TrainSettings, ProtocolSettings):
    """A run on a benchmark: TrainSettings, the protocol that it ends with, and how its last model is chosen."""

    init: str = Field(
        "", description="a checkpoint of ours, or the OUT of a run; its model is taken, too; empty: towers alone"
    )
    batch: int = Field(128, ge=1, le=1 << 20, description="clips of a step, all ranks together")
    epochs: float = Field(5.0, gt=0, description="times that every pair of a video and a caption is seen")
    seed: int = Field(
        0, ge=0, lt=2**63, description="of the pairs' order, of frames and crops that are drawn, of dropout"
    )
    crop: Literal["center", "random"] = Field(
        "center",
        description="in training; random: a random resized crop of 8 to 100 % of the frame, the same for a clip's frames",
    )
    select: Literal["auto", "last"] = Field(
        "auto",
        description="auto: the best checkpoint on the validation split, where there is one; last: the last step. Never on test",
    )
    eval: FinetuneEvalSettings = FinetuneEvalSettings()
    prepare: bool = Field(False, description="only decode the videos, once, and store in OUT what `prepared` reads")
    dry_run: bool = Field(False, description="print the plan, its cost and what was found, and do nothing")

    @model_validator(mode="after")
    def _prepares_from_videos(self) -> FinetuneSettings:
        if self.prepare and self.prepared:
            raise ValueError(
                f"prepare=true decodes videos, prepared={self.prepared} reads what was stored: give one of them"
            )
        return self


class EvaluateSettings(ProtocolSettings, PrecisionSettings):
    """A model on a benchmark, as it is."""

    checkpoint: str = Field(
        "",
        description="of ours, the OUT of a run, or a peer's file; empty: the model on its towers' weights (zero-shot)",
    )
    model: ModelSettings = ModelSettings()
    peer: PeerOptions = PeerOptions()
    split: Literal["train", "validation", "test"] = Field("test", description="which one is asked")
    rerank: int = Field(
        0,
        ge=0,
        description="K: what the fine stage gains on the K best of each caption, and at other depths; 0: not asked",
    )
    out: str = Field("", description="folder for results.json; empty: the table only")
    compare: str = Field("", description="results.json of another model on the same queries: a paired test against it")
    batch: int = Field(32, ge=1, le=1 << 16, description="clips that a rank encodes at once")
    workers: int = Field(4, ge=0, le=256, description="decoding processes a rank; 0: decode in the rank itself")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a CUDA device where there is one")
    threads: int = Field(0, ge=0, description="of torch's arithmetic on a CPU, a rank; 0: torch's choice")

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_name(cls, value: Any) -> Any:
        return expand_preset(value, "model")
