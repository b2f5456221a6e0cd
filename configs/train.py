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
Beta = Annotated[float, Field(ge=0, lt=1)]

_WARMUP_RATIO = 0.1  # where neither steps nor a ratio is given


class ObjectiveSettings(Settings):
    """Weights of the objectives, the temperature that they share, and what of a clip they are asked on."""

    infonce: NonNegative = Field(1.0, description="weight of the symmetric InfoNCE over the global batch")
    sigmoid: NonNegative = Field(0.0, description="weight of SigLIP's sigmoid loss")
    classes: NonNegative = Field(
        0.0, description="weight of cross entropy over the texts of all classes; finetuning on recognition only"
    )
    matching: NonNegative = Field(0.0, description="weight of the re-ranker's matching loss with hard negatives")
    distill: NonNegative = Field(
        0.0, description="weight of distillation: the dual encoder learns the re-ranker's order of its candidates"
    )
    candidates: int = Field(8, ge=3, description="candidates of each caption and clip, whose order distill teaches")
    sigmoid_bias: float = Field(-10.0, description="of the sigmoid loss, at the start; it is learned")
    logit_scale: Literal["learned", "fixed"] = Field(
        "learned", description="CLIP's inverse temperature: trained or kept"
    )
    max_logit_scale: Positive = Field(100.0, description="upper clamp of the learned logit scale; the lower one is 1")
    patch_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of patches left out in training, at the same places in all frames of a clip"
    )

    @model_validator(mode="after")
    def _similarity_is_trained(self) -> ObjectiveSettings:
        if not self.infonce + self.sigmoid + self.classes:
            raise ValueError(
                "infonce, sigmoid and classes are all 0; give one a weight: matching and distill go by what they train"
            )
        if self.max_logit_scale < 1:
            raise ValueError(f"max_logit_scale={self.max_logit_scale} is below 1, the smallest scale")
        return self


class OptimizerSettings(Settings):
    """AdamW, its learning rates by group, and their schedule. The defaults are STAN's post-pretraining on WebVid."""

    lr: NonNegative = Field(4e-6, description="peak learning rate of CLIP's towers; 0 freezes them")
    lr_new: NonNegative = Field(4e-5, description="peak learning rate of all new modules, which CLIP does not have")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="layer-wise lr decay: a tower's block has this times the lr of the next one; 1: none"
    )
    weight_decay: NonNegative = Field(
        0.05, description="AdamW's weight decay; none for norms, biases, embeddings and logit_scale"
    )
    betas: tuple[Beta, Beta] = Field((0.9, 0.98), description="AdamW's betas, as 0.9,0.98")
    eps: Positive = Field(1e-6, description="AdamW's epsilon, added to the denominator")
    warmup_steps: Annotated[int, Field(ge=0)] | None = Field(
        None, description="steps of linear warm-up to the peak; empty: by warmup_ratio"
    )
    warmup_ratio: Fraction | None = Field(
        None, description="linear warm-up as a share of all steps; empty: 0.1, unless warmup_steps is given"
    )
    min_lr_ratio: Fraction = Field(0.0, description="where the cosine schedule ends, as a share of the peak lr")
    grad_clip_norm: NonNegative = Field(5.0, description="gradients are clipped to this global norm; 0: no clipping")

    @field_validator("betas", mode="before")
    @classmethod
    def _as_pair(cls, value: Any) -> Any:
        return value.strip("()[] ").split(",") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_warmup(self) -> OptimizerSettings:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} and warmup_ratio={self.warmup_ratio:g} are both given; leave one out"
            )
        return self

    def warmup(self, steps: int) -> int:
        """Steps of warm-up in a run of so many."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return round((_WARMUP_RATIO if self.warmup_ratio is None else self.warmup_ratio) * steps)


class PrecisionSettings(Settings):
    """The arithmetic of the towers."""

    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="autocast of the towers; auto: bf16 where the device has it in hardware, else fp32"
    )


class EngineSettings(PrecisionSettings):
    """How a step is computed: its numbers are the same, up to the rounding of `precision` and of fused kernels."""

    compile: Literal["auto", "on", "off"] = Field("auto", description="torch.compile of each block; auto: on CUDA")
    activation_checkpointing: bool = Field(
        False, description="recompute each block in the backward pass instead of keeping its activations"
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="fsdp: weights, gradients and AdamW's state are sharded over the ranks (FSDP2)"
    )


class EmaSettings(Settings):
    """An exponential moving average of the weights, which is evaluated and saved in place of the trained ones."""

    decay: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="EMA decay a step; 0: no EMA")
    warmup: bool = Field(
        True, description="step k decays by (1 + k) / (10 + k) at most, so that the start is forgotten"
    )


class TrainSettings(EngineSettings, RunSettings):
    """What every run has, whatever it is trained on."""

    out: str = Field(description="folder of the run: checkpoints, metrics.jsonl")
    init: str = Field(
        "",
        description="a checkpoint of ours to start from, with new parts for those it lacks; empty: its towers' weights",
    )
    batch: int = Field(256, ge=1, le=1 << 20, description="clips of a step, all ranks together")
    micro_batch: int = Field(
        0, ge=0, description="clips of a rank in memory at once (GradCache: same gradient as the whole batch); 0: all"
    )
    epochs: Positive = Field(1.0, description="times that everything is seen")
    steps: int = Field(0, ge=0, description="steps of the run; 0: by epochs")
    workers: int = Field(4, ge=0, le=256, description="loader workers a rank; 0: load in the rank itself")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a CUDA device where there is one")
    threads: int = Field(0, ge=0, description="of torch's arithmetic on a CPU, a rank; 0: torch's choice")
    model: ModelSettings = ModelSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    ema: EmaSettings = EmaSettings()
    wise_ft_alpha: Fraction = Field(
        1.0, description="WiSE-FT: final weights = alpha * trained + (1 - alpha) * start; 1: the trained ones"
    )

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_name(cls, value: Any) -> Any:
        return expand_preset(value, "model")

    def steps_of(self, samples: int) -> int:
        """Steps of the whole run, of a data set of so many."""
        return self.steps or math.ceil(self.epochs * samples / self.batch)
