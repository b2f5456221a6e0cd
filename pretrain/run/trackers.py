"""Where metrics go beside metrics.jsonl: TensorBoard, Weights & Biases.

A new tracker is a class here that does what `Tracker` says, its name in `open_trackers`, and in TRACKERS of configs/run.py.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from stillreel.configs import RequestError
from stillreel.configs.run import RunSettings

_RUN_ID = "wandb/stillreel-run-id"  # in OUT


class Tracker(Protocol):
    """Rank 0 has it. Values are finite, and named as in metrics.jsonl; a step may come twice, with other metrics."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics after so many steps."""

    def close(self, error: BaseException | None) -> None:
        """The run is over, by an error if there is one."""


def open_trackers(folder: Path, settings: RunSettings, step: int) -> list[Tracker]:
    """Those that are asked for, in a run's folder; `step` is that of the checkpoint that the run goes on from, 0 for a new one.

    RequestError where a tracker's package is not installed, or it does not let us in.
    """
    known: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoardTracker(folder, step),
        "wandb": lambda: WandbTracker(folder, settings, step),
    }
    return [known[name]() for name in settings.trackers]


class TensorBoardTracker:
    """OUT/tensorboard, as `tensorboard --logdir` reads it. Steps that come again replace those of before."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise _not_installed("tensorboard") from None
        # A board leaves out what an earlier file has of these steps.
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1, flush_secs=30)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self, error: BaseException | None) -> None:
        self._writer.close()


class WandbTracker:
    """A run of Weights & Biases; its files lie in OUT/wandb. What the environment's WANDB_* say goes before what is said here.

    A run that goes on is the same one there, by an id that is kept in OUT. wandb takes no step back: of steps that come again
    (those after the last checkpoint of a run that was killed) it keeps what was told first, metrics.jsonl what was told last.
    """

    def __init__(self, folder: Path, settings: RunSettings, step: int) -> None:
        try:
            from wandb import Error, init  # a folder named wandb can be imported as well, and has neither
        except ImportError:
            raise _not_installed("wandb") from None
        try:
            self._run = init(
                project=_unless_set("WANDB_PROJECT", "stillreel"),
                name=_unless_set("WANDB_NAME", folder.resolve().name),
                dir=_unless_set("WANDB_DIR", str(folder)),
                id=_unless_set("WANDB_RUN_ID", _run_id(folder, step)),
                resume=None if os.environ.get("WANDB_RESUME") else "allow",
                config=settings.model_dump(mode="json"),
            )
        except Error as error:
            raise RequestError(
                f"tracker=wandb: {str(error).rstrip('.')}; log in (`wandb login`), set WANDB_MODE=offline, or leave it out"
            ) from None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self, error: BaseException | None) -> None:
        self._run.finish(exit_code=0 if error is None else 1)


def _unless_set(name: str, value: str) -> str | None:
    return None if os.environ.get(name) else value


def _run_id(folder: Path, step: int) -> str:
    """Of a run that goes on the same as before; of one that begins anew another, for the old one's steps are past."""
    file = folder / _RUN_ID
    if step and file.is_file():
        return file.read_text().strip()
    file.parent.mkdir(exist_ok=True)
    name = secrets.token_hex(4)
    file.write_text(f"{name}\n")
    return name


def _not_installed(name: str) -> RequestError:
    return RequestError(f'tracker={name} needs the package {name}: pip install "stillreel[{name}]", or leave it out')
