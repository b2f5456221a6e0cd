"""Settings of a run of training: what it saves, what it tells, and where it goes on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stillreel.configs.settings import Settings


class RunSettings(Settings):
    """None of these changes what is learned: a run may go on with others."""

    resume: str = Field(
        "auto",
        description="auto: go on where OUT was left; never: OUT must be new; else a checkpoint, or a run's folder",
    )
    save_every: int = Field(1000, ge=1, description="steps from one checkpoint to the next")
    keep: int = Field(3, ge=1, description="checkpoints that stay: the latest so many")
    milestones: int = Field(0, ge=0, description="a checkpoint of every step that this divides stays too; 0: none")
    best: str = Field("", description="a metric; the checkpoint with the highest value of it stays too; empty: of none")
    log_every: int = Field(10, ge=1, description="steps from one line of metrics.jsonl and the log to the next")
    tensorboard: bool = Field(False, description="write OUT/tensorboard as well")
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        "auto", description="auto: a bar on a terminal, lines in a log"
    )

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint is due after so many steps."""
        return step % self.save_every == 0 or (self.milestones > 0 and step % self.milestones == 0)
