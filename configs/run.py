"""Settings of a run of training: what it saves, what it tells, and where it goes on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from stillreel.configs.settings import Settings

TRACKERS = ("tensorboard", "wandb")


class RunSettings(Settings):
    """None of these changes what is learned: a run may go on with others."""

    resume: str = Field(
        "auto",
        description="auto: go on from the last checkpoint in `out`; never: `out` must be new; else a checkpoint or a run",
    )
    save_every: int = Field(1000, ge=1, description="steps between checkpoints")
    keep_last: int = Field(3, ge=1, description="how many of the latest checkpoints are kept")
    keep_every: int = Field(0, ge=0, description="checkpoints at multiples of this step are kept too; 0: none")
    best_metric: str = Field(
        "",
        description="keep the checkpoint with the highest value of this metric, too, as t2v_r1; empty: none",
    )
    log_every: int = Field(10, ge=1, description="steps from one line of metrics.jsonl and the log to the next")
    tracker: str = Field(
        "",
        description="where metrics go beside metrics.jsonl: tensorboard, wandb, or tensorboard,wandb; empty: nowhere",
    )
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        "auto", description="auto: a bar on a terminal, lines in a log"
    )

    @field_validator("tracker")
    @classmethod
    def _is_known(cls, value: str) -> str:
        names = value.split(",") if value else []
        if not set(names) <= set(TRACKERS) or len(set(names)) < len(names):
            raise ValueError(f"expected {', '.join(TRACKERS)}, or both with a comma between; given {value!r}")
        return value

    @property
    def trackers(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.tracker.split(",")) if self.tracker else ()

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint is due after so many steps."""
        return step % self.save_every == 0 or (self.keep_every > 0 and step % self.keep_every == 0)
