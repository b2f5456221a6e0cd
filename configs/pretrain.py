"""Settings of a pretraining run: `stillreel pretrain PRESET key=value ...`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from configs.model import ModelSettings
from configs.run import RunSettings
from configs.settings import Settings, expand_preset
from configs.stream import DataSettings
from configs.train import AverageSettings, EngineSettings, ObjectiveSettings, OptimiserSettings


class EvaluationSettings(Settings):
    """What is measured on a held-out data set while training."""

    data: str = Field("", description="clip shards that are not trained on; empty: no evaluation")
    every: int = Field(1000, ge=1, description="steps between evaluations; there is one at the end, too")
    clips: int = Field(1000, ge=0, description="clips that are compared, the same ones each time; 0: all")


class PretrainSettings(Settings):
    """A run: what is read, what is trained, how, and what is kept."""

    data: str = Field(description="clip shards: DATA, or a mixture DATA*WEIGHT,DATA*WEIGHT")
    out: str = Field(description="folder of the run: checkpoints, metrics.jsonl")
    init: str = Field(
        "",
        description="a checkpoint of ours to start from, given a re-ranker if it lacks one; empty: the towers' weights",
    )
    batch: int = Field(256, ge=1, le=1 << 20, description="clips of a step, all ranks together")
    chunk: int = Field(0, ge=0, description="clips of a rank that are held at once, of a larger batch; 0: all")
    epochs: Annotated[float, Field(gt=0)] = Field(1.0, description="times that every clip is seen")
    steps: int = Field(0, ge=0, description="steps of the run; 0: by epochs")
    workers: int = Field(4, ge=0, le=256, description="loader workers a rank; 0: load in the rank itself")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a CUDA device where there is one")
    threads: int = Field(0, ge=0, description="of torch's arithmetic on a CPU, a rank; 0: torch's choice")
    model: ModelSettings = ModelSettings()
    stream: DataSettings = DataSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    engine: EngineSettings = EngineSettings()
    average: AverageSettings = AverageSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    run: RunSettings = RunSettings()

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_name(cls, value: Any) -> Any:
        return expand_preset(value, "model")

    @model_validator(mode="after")
    def _parts_fit(self) -> PretrainSettings:
        if not self.stream.words:
            raise ValueError("stream.words=0: training needs captions; 32 is usual, 77 the most")
        if self.evaluation.data and self.evaluation.data == self.data:
            raise ValueError(f"evaluation.data={self.evaluation.data} is what is trained on; give clips that are not")
        return self
