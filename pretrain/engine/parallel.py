"""From a task to what a step calls: blocks compiled, then checkpointed; then the task in DDP, or sharded by FSDP2.

    freeze_towers(task, ...)               what is not trained, before anyone counts gradients
    wrapped = parallelize(task, ...)       this module; `wrapped` goes to `backpropagate`, `task` stays the handle of all else
    build_optimizer(task, ...)             after it: FSDP2 puts sharded weights in the place of the whole ones
    clip_gradients(task, ...)              between the backward pass and the optimizer's step

Nothing here renames a weight: blocks keep their places and get another `forward`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from stillreel.configs import RequestError
from stillreel.configs.train import EngineSettings, PrecisionSettings
from stillreel.pretrain.model.blocks import Block
from stillreel.pretrain.model.temporal.stan import StanLayer
from stillreel.pretrain.objectives import Task
from stillreel.pretrain.objectives.gather import rank_count

_RECOMPILES = (
    64  # a block's code has one graph for each tower, STAN layer (by its drop path) and grad mode; torch allows 8
)


def parallelize(task: Task, settings: EngineSettings) -> nn.Module:
    """Change a task in place to what the settings say, and give what a step calls: the task itself, or DDP around it.

    The task lies on its device, and what is not trained is frozen. All ranks must call it. RequestError where the device, torch
    or the task cannot do what is asked.
    """
    device = next(task.parameters()).device
    task.autocast = autocast_of(settings, device)
    blocks = blocks_of(task)
    if settings.compile == "on" or (settings.compile == "auto" and device.type == "cuda"):
        _allow_recompiles()
        for block in blocks:
            _compile(block)
    if settings.activation_checkpointing:
        for block in blocks:
            block.forward = partial(_recompute, block.forward)
    if settings.parallel != "ddp":
        _shard(task, device, settings.parallel)
        return task
    if rank_count() == 1:
        return task
    places = [device.index] if device.type == "cuda" else None
    # Buffers are masks, alike everywhere; gradients live in DDP's buckets, not beside them.
    return DistributedDataParallel(task, device_ids=places, broadcast_buffers=False, gradient_as_bucket_view=True)


def autocast_of(settings: PrecisionSettings, device: torch.device) -> torch.dtype | None:
    """The type that towers compute in; None for that of their weights."""
    if settings.precision == "fp32":
        return None
    if settings.precision == "auto":
        fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if fast else None
    return torch.bfloat16


def blocks_of(task: nn.Module) -> list[nn.Module]:
    """Transformer blocks that are called as modules, in their order; not the ones whose parts another block calls."""
    kinds = (Block, StanLayer, ResidualAttentionBlock)
    found = [one for one in task.modules() if isinstance(one, kinds)]
    inner = {id(part) for one in found for part in one.modules() if part is not one}
    return [one for one in found if id(one) not in inner]


def sharded_blocks(task: Task) -> list[nn.Module]:
    """Those that FSDP2 gathers one by one: the ones that encoding calls. What compares features stays with the rest."""
    called = {id(block) for one in _encoders(task) for block in blocks_of(one)}
    return [block for block in blocks_of(task) if id(block) in called]


def _encoders(task: Task) -> list[nn.Module]:
    model = task.model
    return [one for one in (model.clip, model.temporal, model.align, model.patches) if one is not None]


def clip_gradients(task: nn.Module, max_norm: float) -> Tensor:
    """The length of the whole gradient; a longer one than `max_norm` is scaled down to it (0: none is). Call on all ranks."""
    gradients = [one.grad for one in task.parameters() if one.grad is not None]
    if not gradients:
        raise RequestError("there is no gradient to clip: nothing is trained, or no backward pass came before")
    parts = [one.to_local() for one in gradients if isinstance(one, DTensor)]
    wholes = [one for one in gradients if not isinstance(one, DTensor)]
    squared = _squared(wholes, like=gradients[0])
    if parts:
        shares = _squared(parts, like=gradients[0])
        if rank_count() > 1:  # ranks that hold the same parts as others do not count them again
            mesh, axis = shard_axis(next(one for one in gradients if isinstance(one, DTensor)))
            dist.all_reduce(shares, group=mesh.get_group(axis))
        squared = squared + shares
    norm = squared.sqrt()
    if max_norm:
        torch._foreach_mul_(parts + wholes, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def shard_axis(weight: DTensor) -> tuple[DeviceMesh, int]:
    """The ranks, and the axis of theirs, along which a weight is split."""
    return weight.device_mesh, next(axis for axis, one in enumerate(weight.placements) if one.is_shard())


@contextmanager
def unreduced(wrapped: nn.Module) -> Iterator[None]:
    """Within it, backward passes add to the gradients of this rank, and the first one afterwards reduces them all."""
    if isinstance(wrapped, DistributedDataParallel):
        with wrapped.no_sync():
            yield
    elif isinstance(wrapped, FSDPModule):
        wrapped.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            wrapped.set_requires_gradient_sync(True)
    else:
        yield


@contextmanager
def gathered(task: Task) -> Iterator[None]:
    """Within it, parts of the task may be called by themselves, as evaluation calls `model.encode_video`.

    Under FSDP2 each block still gathers its weights when it is called, so all ranks must call the same ones as often.
    """
    if isinstance(task, FSDPModule):
        task.unshard()
    try:
        yield
    finally:
        reshard(task)


def is_sharded(task: Task) -> bool:
    """Whether ranks hold parts of its weights."""
    return isinstance(task, FSDPModule)


def reshard(task: nn.Module) -> None:
    """Have every weight as the optimizer has it: after a forward pass without a backward one, FSDP2 keeps some of them whole."""
    for module in task.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _squared(tensors: list[Tensor], like: Tensor) -> Tensor:
    filled = [one for one in tensors if one.numel()]
    if not filled:
        return torch.zeros((), dtype=like.dtype, device=like.device)
    return torch.stack(torch._foreach_norm(filled)).square().sum()


def _compile(block: nn.Module) -> None:
    # Shapes are few: a batch's, a chunk's, each tower's. Left to itself, torch makes its kernels for any shape from the second
    # one on, and the text tower's blocks are second.
    block.forward = torch.compile(block.forward, fullgraph=True, dynamic=False)


def _allow_recompiles() -> None:
    import torch._dynamo.config as dynamo

    name = "recompile_limit" if hasattr(dynamo, "recompile_limit") else "cache_size_limit"  # its name up to torch 2.6
    setattr(dynamo, name, max(getattr(dynamo, name), _RECOMPILES))


def _recompute(forward: Callable[..., Any], *given: Any, **words: Any) -> Any:
    """Dropout draws by sample and step, so both times the same without torch's generator."""
    return checkpoint(forward, *given, **words, use_reentrant=False, preserve_rng_state=False)


def _shard(task: Task, device: torch.device, parallel: Literal["fsdp", "hsdp"]) -> None:
    """FSDP2 in place: a group for each block that encoding calls, and one for all the rest.

    The rest stays whole from the forward pass to the backward one, as heads and scale are used between them.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RequestError(
            f"parallel={parallel} splits weights over ranks; start it with torchrun, or set parallel=ddp"
        )
    if "ignored_params" not in inspect.signature(fully_shard).parameters:
        raise RequestError(
            f"parallel={parallel} needs torch 2.7 or newer, and this is {torch.__version__}; set parallel=ddp"
        )
    if not any(weight.requires_grad for one in _encoders(task) for weight in one.parameters()):
        raise RequestError(
            f"parallel={parallel} reduces gradients as they pass the towers, and here only what compares features is trained; "
            "set parallel=ddp"
        )
    scalars = {weight for weight in task.parameters() if weight.ndim == 0}  # FSDP2 cannot split them
    mesh = _mesh(device.type, parallel)
    for block in sharded_blocks(task):
        fully_shard(block, mesh=mesh)
    fully_shard(task, mesh=mesh, reshard_after_forward=False, ignored_params=scalars)
    # The first module that is called would take itself for the root; evaluation may call a block before any step does.
    assert isinstance(task, FSDPModule)  # since fully_shard has made it one
    task._get_fsdp_state()._lazy_init()
    for weight in scalars:
        if weight.requires_grad:
            weight.register_hook(_mean_over_ranks)


def _mesh(device: str, parallel: Literal["fsdp", "hsdp"]) -> DeviceMesh:
    """All ranks in a row, or those of each machine, which torchrun numbers one after another, in a row of its own."""
    ranks = dist.get_world_size()
    if parallel == "fsdp":
        return init_device_mesh(device, (ranks,))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
    if ranks % here:
        raise RequestError(
            f"parallel=hsdp needs equally many ranks on each machine: {here} of {ranks} are on this one; set parallel=fsdp"
        )
    return init_device_mesh(device, (ranks // here, here), mesh_dim_names=("machines", "ranks"))


def _mean_over_ranks(gradient: Tensor) -> Tensor:
    """Cached accumulation passes here twice, which changes nothing: the mean of means is the same."""
    mean = gradient.clone()
    dist.all_reduce(mean)
    return mean / rank_count()
