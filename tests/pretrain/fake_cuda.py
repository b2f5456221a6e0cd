"""A CUDA device that is not there: torch's FakeTensorMode knows every tensor's device and shape, and computes nothing.

Two things still ask for a driver there, and are stood in for: torch's autograd engine, by `Engine`, which calls the same nodes of
the same graph in Python, one after another; and autocast, which is told that the device has bf16. cuDNN is off, so an LSTM is its
matrix products, and so is attention, whose kernel is chosen by a device's properties. What kernels do, and what they wait for by
themselves, cannot be seen here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)

# What has a shape or a value that the host must know, so that it waits for the device.
_WAITING = {
    "_local_scalar_dense", "nonzero", "_unique", "_unique2", "unique_dim", "unique_consecutive", "masked_select", "equal",
    "bincount", "is_nonzero", "histc",
}  # fmt: skip
_COPIES = {"_to_copy", "copy_", "copy"}


@contextmanager
def pretend_cuda() -> Iterator[FakeTensorMode]:
    """Within it tensors are made on a device `cuda:0`, and backward passes run there."""
    with pytest.MonkeyPatch.context() as patch, torch.backends.cudnn.flags(enabled=False), FakeTensorMode() as mode:
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        patch.setattr(torch.autograd, "backward", backward)
        patch.setattr(torch.autograd, "grad", grad)
        yield mode


class HostWaits(TorchDispatchMode):
    """Counts, within it, the operations for which the host waits for the device, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, words = func.overloadpacket.__name__, kwargs or {}
        self.operations += 1
        if name in _WAITING or self._asks_how_many(func, args):
            self.found[name] += 1
        result = func(*args, **words)
        if name in _COPIES:
            devices = {one.device.type for one in tree_leaves((args, result)) if isinstance(one, Tensor)}
            if len(devices) > 1:
                self.found[f"{name} between {' and '.join(sorted(devices))}"] += 1
        return result

    @staticmethod
    def _asks_how_many(func: Any, args: Sequence[Any]) -> bool:
        """Places given as booleans, or repeats as a tensor: the outcome's shape is on the device."""
        name = func.overloadpacket.__name__
        if name in ("index", "index_put", "index_put_"):
            return any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1])
        return name == "repeat_interleave" and func._overloadname == "Tensor"


def backward(
    tensors: Tensor | Sequence[Tensor], grad_tensors: Sequence[Tensor | None] | None = None, *_: Any, **__: Any
) -> None:
    """As torch.autograd.backward, for graphs without hooks."""
    roots = [tensors] if isinstance(tensors, Tensor) else [*tensors]
    for leaf, gradient in Engine().run(roots, grad_tensors or [None] * len(roots)):
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


def grad(outputs: Tensor, inputs: Sequence[Tensor], *_: Any, **__: Any) -> tuple[Tensor | None, ...]:
    """As torch.autograd.grad of leaves, with `allow_unused`."""
    found = {id(leaf): gradient for leaf, gradient in Engine().run([outputs], [None])}
    return tuple(found.get(id(one)) for one in inputs)


class Engine:
    """torch's autograd engine in small: every node of the graph once, from the roots to the leaves, its gradients summed."""

    def __init__(self) -> None:
        self._asked: dict[Any, dict[int, Tensor]] = {}  # node -> number of its output -> gradient

    def run(self, roots: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[tuple[Tensor, Tensor]]:
        """Leaves with their gradients. AssertionError where a gradient is on another device than what it is of."""
        leaves: list[tuple[Tensor, Tensor]] = []
        for root, gradient in zip(roots, gradients, strict=True):
            gradient = torch.ones_like(root) if gradient is None else gradient
            if root.grad_fn is None:
                leaves.append((root, gradient))
            else:
                self._ask(root.grad_fn, root.output_nr, gradient)
        with torch.no_grad():
            for node in _in_order([root.grad_fn for root in roots if root.grad_fn is not None]):
                asked = self._asked.pop(node, None)
                if asked is None:
                    continue
                if hasattr(node, "variable"):
                    leaves.append((node.variable, asked[0]))
                    continue
                call: Callable[..., Any] = node.apply if hasattr(node, "apply") else node
                given = call(*(asked.get(number) for number in range(len(node._input_metadata))))
                for gradient, (after, number) in zip(
                    given if isinstance(given, tuple) else (given,), node.next_functions, strict=True
                ):
                    if gradient is not None and after is not None:
                        self._ask(after, number, gradient)
        return leaves

    def _ask(self, node: Any, number: int, gradient: Tensor) -> None:
        told = node._input_metadata[number]
        assert gradient.device == told.device, f"{node.name()}: {gradient.device} is asked of {told.device}"
        fitting = gradient.sum_to_size(tuple(told.shape)).to(told.dtype)
        slot = self._asked.setdefault(node, {})
        slot[number] = slot[number] + fitting if number in slot else fitting


def _in_order(roots: list[Any]) -> list[Any]:
    """Nodes behind the roots, each before those that it hands gradients to."""
    order: list[Any] = []
    seen: set[Any] = set()
    stack = [(root, False) for root in roots]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(after, False) for after, _ in node.next_functions if after is not None]
    return order[::-1]
