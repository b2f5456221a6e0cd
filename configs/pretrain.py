"""Settings of a pretraining run: `stillreel pretrain PRESET key=value ...`."""

from __future__ import annotations

from pydantic import Field, model_validator

from stillreel.configs.settings import Settings
from stillreel.configs.stream import DataSettings
from stillreel.configs.train import TrainSettings


class EvalSettings(Settings):
    """What is measured on a held-out data set while training."""

    data: str = Field("", description="held-out clip shards, which are not trained on; empty: no evaluation")
    every: int = Field(1000, ge=1, description="steps between evaluations (R@1, ...); there is one at the end, too")
    clips: int = Field(1000, ge=0, description="held-out clips per evaluation, the same ones each time; 0: all")


class PretrainSettings(TrainSettings, DataSettings):
    """A run: what is read, what is trained, how, and what is kept."""

    data: str = Field(description="clip shards to train on: DATA, or a mixture DATA*WEIGHT,DATA*WEIGHT")
    eval: EvalSettings = EvalSettings()

    @model_validator(mode="after")
    def _parts_fit(self) -> PretrainSettings:
        if not self.context_length:
            raise ValueError("context_length=0: training needs captions; 32 is usual, 77 the most")
        if self.objective.classes:
            raise ValueError(
                f"objective.classes={self.objective.classes}: captions are no classes; it is for stillreel finetune on "
                "recognition, set it to 0"
            )
        if self.eval.data and self.eval.data == self.data:
            raise ValueError(f"eval.data={self.eval.data} is what is trained on; give clips that are not")
        return self
