"""What a run must remember besides its place in the data: every tensor, by name.

    weights     the model's state dict, by its own names
    training    task.NAME                the task's weights that are not the model's
                optimizer.FIELD.NAME     AdamW's exp_avg, exp_avg_sq and step of the weight NAME of the task
                GROUP.NAME               what the caller adds, such as the average of the weights

By name and not by number, so that a checkpoint outlives another order of groups; and whole, so that it outlives another
number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from stillreel.configs import DataError
from stillreel.pretrain.engine.state import Rows, State, gather_state, set_state
from stillreel.pretrain.objectives import Task


class Snapshot(NamedTuple):
    """Tensors of a moment, on the CPU; of what was read from parts, `Rows`."""

    weights: dict[str, Tensor]
    training: Mapping[str, Tensor | Rows]

    def group(self, name: str) -> dict[str, Tensor | Rows]:
        """The tensors of a group of `training`, by their names in it."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): one for key, one in self.training.items() if key.startswith(prefix)}

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for part in self for one in part.values())


def take_snapshot(
    task: Task, optimizer: Optimizer, groups: Mapping[str, Mapping[str, Tensor] | None] | None = None
) -> Snapshot | None:
    """Copies of the tensors of a task (not wrapped in DDP), of its optimizer, and of `groups`, on rank 0; None on the others,
    which must call it, too: shards are gathered."""
    state = gather_state(task, optimizer)
    if state is None:
        return None
    named = {"task": state.task, "optimizer": state.optimizer, **(groups or {})}
    training = {f"{group}.{name}": one for group, tensors in named.items() for name, one in (tensors or {}).items()}
    return Snapshot(state.model, training)


def restore_snapshot(snapshot: Snapshot, task: Task, optimizer: Optimizer) -> None:
    """Put the tensors back, in place. All ranks call it. DataError names tensors that are missing, unexpected or of another
    shape. Groups that the caller added are the caller's to put back."""
    try:
        set_state(task, optimizer, State(snapshot.weights, snapshot.group("task"), snapshot.group("optimizer")))
    except DataError as error:
        raise DataError(f"the checkpoint does not fit this run: {error}") from None
