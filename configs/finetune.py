"""Settings of the benchmarks' commands: `stillreel finetune BENCHMARK` and `stillreel evaluate BENCHMARK`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from stillreel.configs.benchmark import BenchmarkSettings
from stillreel.configs.build import Fraction
from stillreel.configs.model import ModelSettings, PeerOptions
from stillreel.configs.prompts import templates_of
from stillreel.configs.settings import Settings, expand_preset, named_by
from stillreel.configs.train import PrecisionSettings, TrainSettings
from stillreel.configs.video import ReadsVideos


class ViewSettings(Settings):
    """Clips of each video whose scores are averaged in a test."""

    segments: int = Field(
        1,
        ge=1,
        le=100,
        description="clips along time, per video, whose scores are averaged in a test; needs video.sampler=segments",
    )
    crops: Literal[1, 3] = Field(
        1, description="spatial crops per clip in a test; 1: the center; 3: both ends of the longer side, too"
    )

    @field_validator("crops", mode="before")
    @classmethod
    def _as_number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdecimal() else value


class ProtocolSettings(BenchmarkSettings, ReadsVideos):
    """How a benchmark is asked: what a model sees of videos and captions, and which figures are told."""

    prepared: str = Field(
        "",
        description="the OUT of a run with prepare=true, whose stored frames are read in place of the videos; empty: videos",
    )
    context_length: int = Field(
        32, ge=2, le=77, description="tokens per caption, start and end included: it is cut or padded to so many"
    )
    prompt: str = Field(
        "a video of {}.",
        description="recognition: prompt template of a class; {} is its name. Several, with | between them, or CLIP's clip28 "
        "(Kinetics) or clip48 (UCF101): an ensemble, the mean of whose vectors a test compares; training reads the first",
    )
    views: ViewSettings = ViewSettings()
    dual_softmax: bool = Field(True, description="also report dual softmax (DSL), which sees all test queries at once")
    querybank: int = Field(
        0, ge=0, description="also report QB-norm with a query bank of so many training captions; 0: not"
    )
    max_bad: Fraction = Field(
        0.01, description="stop when more than this fraction of videos cannot be read; 1: no limit"
    )
    max_bad_run: int = Field(100, ge=1, description="stop when this many videos in a row cannot be read")

    @model_validator(mode="after")
    def _protocol_fits(self) -> ProtocolSettings:
        templates_of(self.prompt)
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

    later: ClassVar[frozenset[str]] = TrainSettings.later | {"ray"}

    init: str = Field(
        "",
        description="checkpoint to start from, or the OUT of a run, with its model settings; empty: CLIP's weights alone",
    )
    batch: int = Field(128, ge=1, le=1 << 20, description="global batch size: clips per step, of all ranks together")
    epochs: float = Field(5.0, gt=0, description="passes over all pairs of a video and a caption")
    seed: int = Field(
        0, ge=0, lt=2**63, description="random seed of the order of pairs, of frames and crops, and of dropout"
    )
    together: int = Field(
        1,
        ge=1,
        description="pairs that follow each other in the list and are read so, too: of alternatives that are hard to tell apart "
        "all in one batch; 1: every pair by itself",
    )
    crop: Literal["center", "random"] = Field(
        "center",
        description="crop in training; random: a random resized crop of 8 to 100 % of the area, one for all frames of a clip",
    )
    select: Literal["auto", "last"] = Field(
        "auto",
        description="which checkpoint is tested. auto: the best on the validation split, where there is one; last: the last",
    )
    eval: FinetuneEvalSettings = FinetuneEvalSettings()
    prepare: bool = Field(False, description="only decode all videos and store their frames in `out`, for prepared=")
    ray: str = Field(
        "off",
        description="prepare=true: off: `workers` processes without Ray; local: a private Ray; auto or an ADDRESS: a cluster, "
        "where at most `workers` shards are in work, with workers=0 as many as there is room for",
    )
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
        description="checkpoint of ours, the OUT of a run, or a file of CLIP4Clip, CLIP2Video or STAN; empty: zero-shot `model`",
    )
    model: ModelSettings = Field(ModelSettings(), description="a model preset", json_schema_extra=named_by("model"))
    peer: PeerOptions = PeerOptions()
    split: Literal["train", "validation", "test"] = Field("test", description="split that is evaluated")
    rerank: int = Field(
        0,
        ge=0,
        description="also report the re-ranker on the K best candidates of each caption, and at smaller depths; 0: not",
    )
    out: str = Field("", description="folder for results.json; empty: only the table is printed")
    compare: str = Field(
        "", description="results.json of another model on the same queries, for a paired significance test"
    )
    batch: int = Field(32, ge=1, le=1 << 16, description="batch size: clips that a rank encodes at once")
    workers: int = Field(4, ge=0, le=256, description="decoding processes per rank; 0: the rank decodes itself")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is a GPU, else cpu")
    threads: int = Field(0, ge=0, description="torch's CPU threads per rank; 0: torch's choice")

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_name(cls, value: Any) -> Any:
        return expand_preset(value, "model")
