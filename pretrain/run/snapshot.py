"""What a run must remember besides its place in the data: every tensor, by name.

    weights     the model's state dict, by its own names
    training    task.NAME                the task's weights that are not the model's
                optimiser.FIELD.NAME     AdamW's exp_avg, exp_avg_sq and step of the weight NAME of the task
                GROUP.NAME               what the caller adds, such as the average of the weights

By name and not by number, so that a checkpoint outlives another order of groups; and whole, so that it outlives another
number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from configs import DataError
from pretrain.objectives import Task

_MODEL = "model."


class Snapshot(NamedTuple):
    """Tensors of a moment. They may be the live ones: write them before the next step."""

    weights: dict[str, Tensor]
    training: dict[str, Tensor]

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors of a group of `training`, by their names in it."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): one for key, one in self.training.items() if key.startswith(prefix)}

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for part in self for one in part.values())


def take_snapshot(
    task: Task, optimiser: Optimizer, groups: Mapping[str, Mapping[str, Tensor]] | None = None
) -> Snapshot:
    """The tensors of a task (not wrapped in DDP), of its optimiser, and of `groups`. All ranks call it: shards are gathered."""
    state = {name: _whole(one) for name, one in task.state_dict().items()}
    training = {f"task.{name}": one for name, one in state.items() if not name.startswith(_MODEL)}
    for name, weight in _optimised(task, optimiser).items():
        for field, value in optimiser.state.get(weight, {}).items():
            training[f"optimiser.{field}.{name}"] = _whole(value)
    for group, tensors in (groups or {}).items():
        training.update({f"{group}.{name}": _whole(one) for name, one in tensors.items()})
    weights = {name.removeprefix(_MODEL): one for name, one in state.items() if name.startswith(_MODEL)}
    return Snapshot(weights, training)


def restore_snapshot(snapshot: Snapshot, task: Task, optimiser: Optimizer) -> None:
    """Put the tensors back, in place. All ranks call it. DataError names every tensor that is missing, unexpected or of
    another shape. Groups that the caller added are the caller's to put back."""
    found = {f"{_MODEL}{name}": one for name, one in snapshot.weights.items()} | snapshot.group("task")
    expected = task.state_dict()
    _check_names("weights", found, expected)
    with torch.no_grad():
        for name, held in expected.items():
            _check_shape(name, found[name], held)
            held.copy_(_like(found[name], held))
    fields: dict[str, dict[str, Tensor]] = {}
    for key, value in snapshot.group("optimiser").items():
        field, _, name = key.partition(".")
        fields.setdefault(name, {})[field] = value
    if not fields:  # saved before the first step
        return
    weights = _optimised(task, optimiser)
    _check_names("the optimiser's state", fields, weights)
    state: dict[int, dict[str, Tensor]] = {}
    for number, (name, weight) in enumerate(weights.items()):
        for field, value in fields[name].items():
            if value.ndim:
                _check_shape(f"{field} of {name}", value, weight)
        state[number] = {
            field: _like(value, weight) if value.ndim else value.clone() for field, value in fields[name].items()
        }
    # torch's own way in puts each tensor where its weight is, and copies; groups are this run's.
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _optimised(task: nn.Module, optimiser: Optimizer) -> dict[str, nn.Parameter]:
    """The weights that an optimiser moves, in its own order, by their names in the task."""
    names = {id(weight): name for name, weight in task.named_parameters()}
    return {names[id(weight)]: weight for group in optimiser.param_groups for weight in group["params"]}


def _whole(value: Any) -> Tensor:
    """A tensor without its gradient, as a file holds it; of one in shards, all of it."""
    tensor: Tensor = value.detach()
    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor().cpu()
    return tensor.contiguous()


def _like(value: Tensor, held: Tensor) -> Tensor:
    """A whole tensor, cut into shards where `held` is; a copy, for it may lie in a file that will be removed."""
    if isinstance(held, DTensor):
        return distribute_tensor(value.to(held.device), held.device_mesh, held.placements)
    return value.clone()


def _check_names(what: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or unexpected:
        raise DataError(
            f"the checkpoint does not fit this run: of {what} it lacks {', '.join(missing) or 'nothing'}, and has "
            f"{', '.join(unexpected) or 'nothing'} that this run does not know"
        )


def _check_shape(name: str, found: Tensor, held: Tensor) -> None:
    if found.shape != held.shape:
        raise DataError(
            f"the checkpoint does not fit this run: {name} is {tuple(found.shape)} there, {tuple(held.shape)} here"
        )
