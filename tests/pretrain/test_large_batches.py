"""The loss of a batch whose logits do not fit into memory: some rows at once, and the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stillreel.configs.train import ObjectiveSettings
from stillreel.pretrain.engine.accumulation import backpropagate
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures
from stillreel.pretrain.objectives import Encoded, Identity, Task
from tests.pretrain.gradients import CASES, build_task, gradients_of, logits_at_once, whole_batch, worst_error
from tests.pretrain.zoo import shaken, tiny


class Memory(TorchDispatchMode):
    """Bytes of all tensors that are alive at once, at most, of those made within it."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                storage = one.untyped_storage()
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {place: one for place, one in self._alive.items() if not one[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


@pytest.mark.parametrize("case", [case for case, (_, asked) in CASES.items() if not {"matching", "distill"} & {*asked}])
def test_some_rows_at_once_give_the_same_loss_and_gradients(case: str) -> None:
    """One row at a time where words meet frames, two else, three and the rest: 8 rows, of which some are no negatives."""
    whole, batch = build_task(case), whole_batch()
    expected = backpropagate(whole, batch)
    for count in (16, 27):
        parted = build_task(case)
        with logits_at_once(count):
            found = backpropagate(parted, batch)
        assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-9)
        assert found.parts.keys() == expected.parts.keys()
        assert worst_error(gradients_of(parted), gradients_of(whole))[0] < 1e-6


def test_in_fp32_too_to_a_millionth() -> None:
    whole, parted = (Task(tiny("clip2video").train(), ObjectiveSettings(sigmoid=0.5)) for _ in "ab")
    batch = whole_batch()
    batch = batch._replace(frames=batch.frames.float())
    expected = backpropagate(whole, batch)
    with logits_at_once(16):
        found = backpropagate(parted, batch)
    assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-6)
    assert worst_error(gradients_of(parted), gradients_of(whole))[0] < 1e-5  # sums of products in another order


@pytest.mark.parametrize(("rows", "limit_gb"), [(65_536, 3.5), (8_192, 3.5)])
def test_65536_clips_fit(rows: int, limit_gb: float) -> None:
    """On one device, counted without computing: whole, the logits alone were 17 GB, and a step's some ten times that."""
    assert peak_of(rows) / 1e9 < limit_gb


def test_whole_they_would_not() -> None:
    with logits_at_once(1 << 60):
        assert peak_of(65_536) / 1e9 > 60


def peak_of(rows: int) -> int:
    """Bytes of comparing so many clips and captions of 512 numbers each, forward and backward."""
    task = Task(shaken("mean"), ObjectiveSettings())
    with FakeTensorMode(allow_non_fake_inputs=True), Memory() as memory:
        video, text = (torch.empty(rows, 512).requires_grad_() for _ in "ab")
        nothing, none = torch.empty(rows, 0, 512), torch.empty(rows, 0, dtype=torch.bool)
        own = Encoded(VideoFeatures(nothing, none, video, None), TextFeatures(nothing, none, text, None))
        numbers = torch.empty(rows, dtype=torch.int64)
        losses = task.compare(own, Identity(numbers, numbers, torch.empty(rows, 2, dtype=torch.float64), numbers))
        found = torch.autograd.grad(losses.total, [video, text])
        assert [one.shape for one in found] == [video.shape, text.shape]
    return memory.peak
