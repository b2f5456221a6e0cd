"""Settings of `stillreel study PRESET`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from stillreel.configs.benchmark import BenchmarkName
from stillreel.configs.build import Fraction
from stillreel.configs.model import TowerSettings
from stillreel.configs.settings import Settings
from stillreel.configs.train import NonNegative, Positive

NONE = "none"  # straight to finetuning, without pretraining on clips
ModelName = Literal["mean", "seq", "clip2video", "stan", "rerank"]
Names = tuple[str, ...]


class WorldSettings(Settings):
    """What is drawn: pictures to pretrain on, videos to finetune and to test on."""

    seed: int = Field(0, ge=0, lt=2**63, description="random seed of all that is drawn")
    size: int = Field(64, ge=48, le=512, description="H = W of a frame, in pixels")
    frames: int = Field(6, ge=4, le=64, multiple_of=2, description="T, frames per clip and per video, an even number")
    images: int = Field(4000, ge=50, description="pictures that the image model is trained on")
    clips: int = Field(4000, ge=50, description="other pictures, which pretraining films")
    tested: int = Field(1000, ge=8, multiple_of=8, description="test pairs of each kind of query")
    validated: int = Field(40, ge=8, multiple_of=8, description="validation pairs of each kind of query")
    leaked: int = Field(80, ge=40, multiple_of=40, description="test pairs that a sanity check trains on")


class StageSettings(Settings):
    """A stage of training: the same for every cell of the grid, so that nothing differs but what the grid varies."""

    steps: int = Field(150, ge=0, description="optimizer steps")
    batch: int = Field(64, ge=2, description="clips per step")
    lr: NonNegative = Field(5e-4, description="peak learning rate of the towers")
    lr_new: NonNegative = Field(1e-3, description="peak learning rate of what the image model does not have")
    weight_decay: NonNegative = Field(0.1, description="AdamW's weight decay")
    warmup_ratio: Fraction = Field(0.1, description="linear warm-up as a share of all steps")
    grad_clip_norm: NonNegative = Field(1.0, description="gradients are clipped to this global norm; 0: no clipping")


class GridSettings(Settings):
    """Cells: every pretraining data with every model, number of finetuning pairs and seed."""

    data: Names = Field(
        (NONE, "still", "jump", "film"),
        description="pretraining data: none, or grammars that clips are filmed by, joined by commas",
    )
    models: tuple[ModelName, ...] = Field(("clip2video", "rerank"), description="models, joined by commas")
    pairs: tuple[Annotated[int, Field(ge=40, multiple_of=40)], ...] = Field(
        (2000,), description="numbers of finetuning pairs, joined by commas"
    )
    seeds: int = Field(5, ge=0, le=1000, description="seeds, from 0: of all that is drawn in training; 0: no cells")

    @field_validator("data", "models", "pairs", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return (
            tuple(one.strip() for one in value.strip("()[] ").split(",") if one.strip())
            if isinstance(value, str)
            else value
        )


class RealSettings(Settings):
    """Real data in place of what is drawn; what is empty is drawn."""

    images: str = Field("", description="clip shards that the image model is trained on")
    clips: str = Field("", description="clip shards that pretraining films")
    benchmark: BenchmarkName | Literal[""] = Field("", description="benchmark that is finetuned and tested on")
    data: str = Field("", description="folder of the benchmark's annotation files and videos")
    videos: str = Field("", description="folder of the benchmark's videos, where it is not in real.data")
    prepared: str = Field("", description="stored frames of the benchmark, in place of its videos")


class StudySettings(Settings):
    """A grid of runs that differ only in what they were pretrained on, and its report."""

    out: str = Field("study", description="folder that everything is made in")
    world: WorldSettings = WorldSettings()
    real: RealSettings = RealSettings()
    towers: TowerSettings = Field(TowerSettings(name="tiny"), description="CLIP towers of the image model")
    layers: int = Field(2, ge=1, description="blocks of what each model adds to the towers")
    context_length: int = Field(24, ge=8, le=77, description="tokens per caption")
    image: StageSettings = Field(
        StageSettings(steps=1200, batch=128, lr=1e-3), description="training of the image model"
    )
    pretrain: StageSettings = Field(StageSettings(), description="pretraining on clips")
    finetune: StageSettings = Field(StageSettings(), description="finetuning on the benchmark")
    main: GridSettings = Field(GridSettings(), description="the comparisons that the study is for")
    wide: GridSettings = Field(GridSettings(seeds=0), description="more cells, run after them")
    sanity: bool = Field(
        True, description="also run the checks: shuffled captions, training on test pairs, a cell twice"
    )
    candidates: int = Field(
        20, ge=2, description="K, candidates of a caption that the re-ranker orders among all of a kind"
    )
    points: Positive = Field(3.0, description="width of a 95 % interval, in points of R@1, that decides a question")
    keep_models: bool = Field(False, description="keep the finetuned models; else only what they answered is kept")
    workers: int = Field(1, ge=1, le=256, description="processes that run cells, one after another each")
    threads: int = Field(1, ge=0, description="torch's CPU threads of each of them; 0: torch's choice")
    loaders: int = Field(0, ge=0, le=256, description="loader workers of each run; 0: the run loads itself")
    render: Literal["loader", "device"] = Field(
        "loader", description="where pretraining renders its frames: in the loader, or on the GPU"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "off", description="torch.compile each block; a short run is over before that pays"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is a GPU, else cpu")
    dry_run: bool = Field(False, description="print the cells, what they cost and the time left, and do nothing")
    most: int = Field(0, ge=0, description="stop after so many minutes; the same command goes on; 0: no limit")
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        "auto", description="auto: a bar on a terminal, lines in a log"
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> StudySettings:
        if not self.main.seeds:
            raise ValueError("main.seeds=0: nothing to compare; give one seed or more")
        if self.real.benchmark and not self.real.data:
            raise ValueError(f"real.benchmark={self.real.benchmark} needs real.data, the folder of its files")
        models = {*self.main.models, *(self.wide.models if self.wide.seeds else ())}
        if not self.finetune.steps and models != {"mean"}:
            raise ValueError(
                f"finetune.steps=0 tests what was pretrained, and of {', '.join(sorted(models))} more than the mean of frames "
                "begins untrained, where there is no pretraining: give main.models=mean"
            )
        if not self.pretrain.steps or (not self.image.steps and not self.towers.pretrained):
            raise ValueError(
                "pretrain.steps=0, or image.steps=0 without towers.pretrained, leaves nothing to compare: give steps"
            )
        return self

    @property
    def pairs(self) -> tuple[int, ...]:
        """All numbers of finetuning pairs that are asked for, rising."""
        return tuple(sorted({*self.main.pairs, *(self.wide.pairs if self.wide.seeds else ())}))
