"""Settings of training: what is asked of the model, and how its weights follow."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from stillreel.configs.build import Fraction
from stillreel.configs.model import ModelSettings
from stillreel.configs.run import RunSettings
from stillreel.configs.settings import Settings, expand_preset, named_by

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]

_WARMUP_RATIO = 0.1  # where neither steps nor a ratio is given


class ObjectiveSettings(Settings):
    """Weights of the objectives, the temperature that they share, and what of a clip they are asked on."""

    infonce: NonNegative = Field(1.0, description="weight of the symmetric InfoNCE loss (CLIP's) over the global batch")
    sigmoid: NonNegative = Field(0.0, description="weight of SigLIP's sigmoid loss over the global batch")
    classes: NonNegative = Field(
        0.0, description="weight of the cross entropy over the prompts of all classes; for finetuning on recognition"
    )
    matching: NonNegative = Field(
        0.0, description="weight of the re-ranker's video-text matching loss (VTM), with hard negatives"
    )
    distill: NonNegative = Field(
        0.0, description="weight of distilling the re-ranker's scores of its candidates into the dual encoder"
    )
    candidates: int = Field(
        8, ge=3, description="candidates per caption and per clip that the re-ranker scores for distill"
    )
    sigmoid_bias: float = Field(-10.0, description="initial value of the sigmoid loss's learned logit bias")
    logit_scale: Literal["learned", "fixed"] = Field(
        "learned", description="CLIP's logit scale (1 / temperature): learned, or fixed where it starts"
    )
    max_logit_scale: Positive = Field(
        100.0, description="upper clamp of the learned logit scale, as 1 / temperature; the lower one is 1"
    )
    patch_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of patch tokens that training drops (FLIP), the same in all frames of a clip"
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
    lr_new: NonNegative = Field(4e-5, description="peak learning rate of new modules, which CLIP does not have")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="layer-wise lr decay of the towers: each block has this times the lr of the block above; 1: none",
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
        "auto", description="autocast of the towers: bf16 or fp32; auto: bf16 where the device has it in hardware"
    )


class EngineSettings(PrecisionSettings):
    """How a step is computed: its numbers are the same, up to the rounding of `precision` and of fused kernels."""

    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="torch.compile each block; auto: on where device is CUDA"
    )
    activation_checkpointing: bool = Field(
        False, description="recompute each block in the backward pass, to save memory"
    )
    parallel: Literal["ddp", "fsdp", "hsdp"] = Field(
        "ddp",
        description="ddp: every rank has all weights; fsdp: weights, gradients and AdamW's state are sharded (FSDP2); hsdp: so "
        "within each machine, and alike on all machines",
    )


class EmaSettings(Settings):
    """An exponential moving average of the weights, which is evaluated and saved in place of the trained ones."""

    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="decay per step of an exponential moving average of the weights, as 0.999; 0: no EMA"
    )
    warmup: bool = Field(
        True, description="limit the EMA's decay to (1 + k) / (10 + k) at step k, so that it forgets the start"
    )


class TrainSettings(EngineSettings, RunSettings):
    """What every run has, whatever it is trained on."""

    out: str = Field(description="output folder of the run: checkpoints, metrics.jsonl")
    init: str = Field(
        "",
        description="checkpoint to start from; modules that it lacks are new; empty: CLIP's weights, model.towers.pretrained",
    )
    batch: int = Field(256, ge=1, le=1 << 20, description="global batch size: clips per step, of all ranks together")
    micro_batch: int = Field(
        0,
        ge=0,
        description="clips of a rank in memory at once (GradCache: the gradient is that of the whole batch); 0: all",
    )
    epochs: Positive = Field(1.0, description="passes over the data")
    steps: int = Field(0, ge=0, description="optimizer steps of the whole run; 0: by epochs")
    workers: int = Field(4, ge=0, le=256, description="loader workers per rank; 0: the rank loads itself")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is a GPU, else cpu")
    threads: int = Field(0, ge=0, description="torch's CPU threads per rank; 0: torch's choice")
    model: ModelSettings = Field(ModelSettings(), description="a model preset", json_schema_extra=named_by("model"))
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
