"""A step asks the device for nothing: what it does next never hangs on a value that is still being computed.

On a CPU nobody waits, so these tests look for the operations that would: those that bring a value over, those whose result has
a shape that only the values tell, and tensors made of Python's numbers. `benchmarks/gpu_pretrain.py` counts them on a GPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stillreel.pretrain.engine.accumulation import backpropagate
from stillreel.pretrain.engine.parallel import clip_gradients
from tests.pretrain.gradients import build_task, whole_batch

_ASKING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "lift_fresh",
    "_unique2",
    "unique_dim",
}
CASES = (
    "mean",
    "mean, sigmoid",
    "matching, patches",
    "distill",
    "clip2video, all",
    "clip2video",
    "mug, attended",
    "stan, dropping",
    "tight, dropping",
)


class Watch(TorchDispatchMode):
    """Notes operations for which a host would wait for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            place is not None and place.dtype in (torch.bool, torch.uint8) for place in args[1]
        )
        if name in _ASKING or by_mask:
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("chunk", [0, 4])
@pytest.mark.parametrize("case", CASES)
def test_a_step_asks_nothing_of_the_device(case: str, chunk: int) -> None:
    task, batch = build_task(case), whole_batch()
    with Watch() as watch:
        backpropagate(task, batch, micro_batch=chunk)
        clip_gradients(task, 1.0)
        task.clamp_scale()
    assert watch.asked == []


def test_the_watch_sees_what_asks() -> None:
    values = torch.arange(4.0)
    with Watch() as watch:
        float(values[1])
        values[values > 1]
        values[values > 1] = 0
        torch.tensor([1, 2])
    assert watch.asked[0] == "_local_scalar_dense"
    assert {"index", "lift_fresh"} <= set(watch.asked)
