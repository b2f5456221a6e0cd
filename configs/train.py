"""Settings of training: what is asked of the model, and how its weights follow."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from stillreel.configs.build import Fraction
from stillreel.configs.model import ModelSettings
from stillreel.configs.run import RunSettings
from stillreel.configs.settings import Settings, expand_preset

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class ObjectiveSettings(Settings):
    """Weights of the objectives, the temperature that they share, and what of a clip they are asked on."""

    infonce: NonNegative = Field(1.0, description="weight of the symmetric InfoNCE over the global batch")
    sigmoid: NonNegative = Field(0.0, description="weight of SigLIP's sigmoid loss")
    classes: NonNegative = Field(
        0.0, description="weight of cross entropy over the texts of all classes; finetuning on recognition only"
    )
    matching: NonNegative = Field(0.0, description="weight of the re-ranker's matching loss with hard negatives")
    distil: NonNegative = Field(0.0, description="weight of the coarse model's lesson in the re-ranker's order")
    candidates: int = Field(8, ge=3, description="of each caption and clip, whose order distil teaches")
    sigmoid_bias: float = Field(-10.0, description="of the sigmoid loss, at the start; it is learned")
    scale: Literal["learned", "fixed"] = Field("learned", description="CLIP's logit_scale")
    max_scale: Positive = Field(100.0, description="what the learned scale is held at or below; at or above 1 always")
    patch_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of patches left out in training, at the same places in all frames of a clip"
    )

    @model_validator(mode="after")
    def _similarity_is_trained(self) -> ObjectiveSettings:
        if not self.infonce + self.sigmoid + self.classes:
            raise ValueError(
                "infonce, sigmoid and classes are all 0; give one a weight: matching and distil go by what they train"
            )
        if self.max_scale < 1:
            raise ValueError(f"max_scale={self.max_scale} is below 1, the smallest scale")
        return self


class OptimiserSettings(Settings):
    """AdamW, its rates by group, and their way over the steps. The defaults are STAN's post-pretraining on WebVid."""

    rate: NonNegative = Field(4e-6, description="peak rate of CLIP's towers; 0 keeps them as they are")
    new_rate: NonNegative = Field(4e-5, description="peak rate of all that CLIP does not have")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="a tower's block has this times the rate of the next one; 1: all the same"
    )
    weight_decay: NonNegative = Field(0.05, description="not of norms, biases, embeddings and logit_scale")
    beta1: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of the mean of gradients")
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(0.98, description="of the mean of their squares")
    eps: Positive = Field(1e-6, description="of AdamW's quotient")
    warmup: int = Field(1000, ge=0, description="steps in which rates rise, evenly, to their peak")
    final: Fraction = Field(0.0, description="what the cosine ends at, as a share of the peak")
    max_norm: NonNegative = Field(5.0, description="length that the gradient is cut to; 0: it is left as it is")


class EngineSettings(Settings):
    """How a step is computed: its numbers are the same, up to the rounding of `precision` and of fused kernels."""

    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="of the towers' arithmetic; auto: bf16 where the device has it in hardware, else fp32"
    )
    compile: Literal["auto", "on", "off"] = Field("auto", description="torch.compile of each block; auto: on CUDA")
    checkpointing: bool = Field(
        False, description="compute each block again in the backward pass instead of keeping its activations"
    )
    shard: Literal["none", "fsdp"] = Field(
        "none", description="fsdp: weights, gradients and AdamW's state are split over the ranks (FSDP2)"
    )


class AverageSettings(Settings):
    """Averages of weights, to be evaluated or saved beside the trained ones."""

    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="of the moving average of weights, a step; 0: none is kept"
    )
    warmup: bool = Field(
        True, description="step k decays by (1 + k) / (10 + k) at most, so that the start is forgotten"
    )
    trained: Fraction = Field(
        1.0, description="share of the trained weights in their mean with the start's (WiSE-FT); 1: only they"
    )


class TrainSettings(Settings):
    """What every run has, whatever it is trained on."""

    out: str = Field(description="folder of the run: checkpoints, metrics.jsonl")
    init: str = Field(
        "",
        description="a checkpoint of ours to start from, with new parts for those it lacks; empty: its towers' weights",
    )
    batch: int = Field(256, ge=1, le=1 << 20, description="clips of a step, all ranks together")
    chunk: int = Field(0, ge=0, description="clips of a rank that are held at once, of a larger batch; 0: all")
    epochs: Positive = Field(1.0, description="times that everything is seen")
    steps: int = Field(0, ge=0, description="steps of the run; 0: by epochs")
    workers: int = Field(4, ge=0, le=256, description="loader workers a rank; 0: load in the rank itself")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a CUDA device where there is one")
    threads: int = Field(0, ge=0, description="of torch's arithmetic on a CPU, a rank; 0: torch's choice")
    model: ModelSettings = ModelSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    engine: EngineSettings = EngineSettings()
    average: AverageSettings = AverageSettings()
    run: RunSettings = RunSettings()

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_name(cls, value: Any) -> Any:
        return expand_preset(value, "model")

    def steps_of(self, samples: int) -> int:
        """Steps of the whole run, of a data set of so many."""
        return self.steps or math.ceil(self.epochs * samples / self.batch)
