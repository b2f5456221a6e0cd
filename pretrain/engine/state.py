"""What a run must find again, as plain tensors by name: the same whether one process had it, DDP or FSDP2, on any ranks.

    gather_state(task, optimizer)     -> State, on rank 0, on the CPU
    own_state(task, optimizer)        -> State as it lies on this rank, in shards perhaps
    set_state(task, optimizer, state) of a fresh run of any layout; its next step is the one that the first run would have made

Rates are functions of the step and draws of (seed, key, step), so neither is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from stillreel.configs import DataError
from stillreel.pretrain.engine.parallel import reshard, shard_axis
from stillreel.pretrain.model.keys import check_shapes
from stillreel.pretrain.objectives import Task
from stillreel.pretrain.objectives.gather import rank_count

_MODEL = "model."


class Rows:
    """A tensor that was written in parts, cut along its first axis: only those rows are put together that are asked for."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        """One after another, at least one."""
        self._parts = parts
        self.shape = torch.Size((sum(map(len, parts)), *parts[0].shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self._parts)

    def __getitem__(self, rows: slice) -> Tensor:
        first, end, _ = rows.indices(len(self))
        found, at = [self._parts[0][:0]], 0
        for part in self._parts:
            found.append(part[max(first - at, 0) : max(end - at, 0)])
            at += len(part)
        return torch.cat(found)


class State(NamedTuple):
    """Of a task and its optimizer."""

    model: Mapping[str, Tensor]  # the model's, by the names that `save_model` writes
    task: Mapping[str, Tensor | Rows]  # the task's own, such as the sigmoid's bias
    # KIND.NAME: AdamW's step, exp_avg and exp_avg_sq of the task's weight NAME
    optimizer: Mapping[str, Tensor | Rows]


class OwnState(NamedTuple):
    """The same, of tensors alone."""

    model: dict[str, Tensor]
    task: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def gather_state(task: Task, optimizer: Optimizer) -> OwnState | None:
    """Copies of everything on rank 0, None on the others. All ranks must call it, between two steps."""
    model, own, moments = map(gather_tensors, own_state(task, optimizer))
    return None if model is None or own is None or moments is None else OwnState(model, own, moments)


def own_state(task: Task, optimizer: Optimizer) -> OwnState:
    """What this rank has, not copied."""
    reshard(task)
    own = task.state_dict()
    return OwnState(
        {name.removeprefix(_MODEL): tensor for name, tensor in own.items() if name.startswith(_MODEL)},
        {name: tensor for name, tensor in own.items() if not name.startswith(_MODEL)},
        _moments(task, optimizer),
    )


def set_state(task: Task, optimizer: Optimizer, state: State) -> None:
    """Make a state this run's, in place. Every rank needs the whole state. DataError where names or shapes are not this run's."""
    reshard(task)
    given = {**{_MODEL + name: tensor for name, tensor in state.model.items()}, **state.task}
    set_tensors(task.state_dict(), given)
    groups = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    trained = {name: weight for name, weight in task.named_parameters() if id(weight) in groups}
    by_weight: dict[str, dict[str, Tensor | Rows]] = {}
    for key, tensor in state.optimizer.items():
        kind, _, name = key.partition(".")
        by_weight.setdefault(name, {})[kind] = tensor
    if by_weight and by_weight.keys() != trained.keys():
        strange = sorted(by_weight.keys() ^ trained.keys())
        raise DataError(
            f"the optimizer's state is of other weights than those that are trained: {len(strange)} of them, such as "
            f"{strange[0]}; train what was trained before, or start anew from the model alone"
        )
    optimizer.state.clear()
    for name, moments in by_weight.items():
        weight = trained[name]
        for kind, tensor in moments.items():
            optimizer.state[weight][kind] = _placed(name, kind, tensor, weight, groups[id(weight)])


def gather_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Whole copies on the CPU of rank 0, None on the others. All ranks must call it, with the same names in one order."""
    first = rank_count() == 1 or dist.get_rank() == 0
    found = {}
    for name, tensor in tensors.items():
        own = tensor.detach()
        if isinstance(own, DTensor):
            own = own.full_tensor()
        if first:
            found[name] = own.to("cpu", copy=True)
    return found if first else None


def set_tensors(own: Mapping[str, Tensor], given: Mapping[str, Tensor | Rows]) -> None:
    """Copy whole tensors into a run's own, of which it may hold a part each. Strict: DataError by name."""
    check_shapes(_shapes(given), _shapes(own))
    with torch.no_grad():
        for name, tensor in own.items():
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            local.copy_(_part(given[name], tensor))


def _moments(task: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"{kind}.{name}": tensor
        for name, weight in task.named_parameters()
        for kind, tensor in sorted(optimizer.state.get(weight, {}).items())
    }


def _placed(name: str, kind: str, tensor: Tensor | Rows, weight: Tensor, group: Mapping[str, object]) -> Tensor:
    """One of AdamW's tensors, kept as it does: moments as the weight is, the step on its device."""
    if kind == "step":
        return whole(tensor).to(weight.device if group["fused"] else "cpu", copy=True)
    check_shapes({name: tuple(tensor.shape)}, {name: tuple(weight.shape)})
    moment = torch.zeros_like(weight)
    set_tensors({name: moment}, {name: tensor})
    return moment.detach()


def _shapes(tensors: Mapping[str, Tensor | Rows]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def own_rows(tensor: DTensor) -> tuple[int, int]:
    """The first of this rank's rows of a tensor that FSDP2 splits along its first axis, and the one behind the last: as
    torch.chunk does, the last ranks have fewer, or none."""
    mesh, axis = shard_axis(tensor)
    rows = -(-len(tensor) // mesh.size(axis))
    first = min(rows * mesh.get_local_rank(axis), len(tensor))
    return first, min(first + rows, len(tensor))


def _part(given: Tensor | Rows, like: Tensor) -> Tensor:
    """What this rank has of it."""
    if not isinstance(like, DTensor):
        return whole(given)
    first, end = own_rows(like)
    return given[first:end]


def whole(tensor: Tensor | Rows) -> Tensor:
    """All of it, in one."""
    return tensor[:] if isinstance(tensor, Rows) else tensor
