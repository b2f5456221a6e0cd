"""Cached accumulation in one process; tests/promises/test_training_1_gradients.py has it over ranks."""

from __future__ import annotations

import copy

import pytest
import torch
from open_clip.transformer import PatchDropout

from configs import RequestError
from configs.train import ObjectiveSettings
from pretrain.accumulation import backpropagate
from pretrain.objectives import Encoded, Losses, Task
from tests.pretrain.gradients import gradients_of, whole_batch, worst_error
from tests.pretrain.zoo import shaken


def dropping(kind: str) -> Task:
    """In training: dropout of the tight head, drop path of STAN, and patch dropout of the image tower."""
    model = copy.deepcopy(shaken(kind))
    if kind == "tight":  # STAN adds its own patches to the tower's, and needs all of them
        model.clip.visual.patch_dropout = PatchDropout(0.5)
    return Task(model, ObjectiveSettings()).double().train()


def through_all_chunks(task: Task, chunk: int) -> Losses:
    """The same draws in the same order, with one graph through all chunks: what the cache saves."""
    batch = whole_batch()
    parts = [task(batch.rows(slice(start, start + chunk))) for start in range(0, len(batch.frames), chunk)]
    joined = [
        type(sides[0])(*(None if fields[0] is None else torch.cat(fields) for fields in zip(*sides, strict=True)))
        for sides in zip(*parts, strict=True)
    ]
    losses = task.compare(Encoded(*joined), batch.identity)
    losses.total.backward()
    return losses


@pytest.mark.parametrize("kind", ["stan", "tight"])
def test_the_second_forward_draws_what_the_first_drew(kind: str) -> None:
    right, cached, other = dropping(kind), dropping(kind), dropping(kind)
    torch.manual_seed(1)
    expected = through_all_chunks(right, 3)
    after = torch.rand(3)
    torch.manual_seed(1)
    losses = backpropagate(cached, whole_batch(), chunk=3)
    assert torch.equal(torch.rand(3), after)  # the next step draws on, and not the same again
    assert losses.total.item() == pytest.approx(expected.total.item(), rel=1e-12)
    assert worst_error(gradients_of(cached), gradients_of(right))[0] < 1e-6
    torch.manual_seed(2)
    backpropagate(other, whole_batch(), chunk=3)
    assert worst_error(gradients_of(other), gradients_of(right))[0] > 1e-2  # so something was dropped


def test_gradients_add_up_as_after_any_backward_pass() -> None:
    once, twice = (Task(copy.deepcopy(shaken("mean")), ObjectiveSettings()).double() for _ in range(2))
    backpropagate(once, whole_batch(), chunk=3)
    for _ in range(2):
        backpropagate(twice, whole_batch(), chunk=3)
    doubled = {name: 2 * gradient for name, gradient in gradients_of(once).items()}
    assert worst_error(gradients_of(twice), doubled)[0] < 1e-6


@pytest.mark.parametrize("frozen", ["model.clip.visual.", "model.clip."])
def test_frozen_towers_take_no_part(frozen: str) -> None:
    whole, chunked = (Task(copy.deepcopy(shaken("tight")), ObjectiveSettings()).double() for _ in range(2))
    for task, chunk in ((whole, 0), (chunked, 3)):
        for name, weight in task.named_parameters():
            weight.requires_grad_(not name.startswith(frozen))
        backpropagate(task, whole_batch(), chunk=chunk)
    assert gradients_of(whole)
    assert worst_error(gradients_of(chunked), gradients_of(whole))[0] < 1e-6


def test_a_chunk_below_zero_is_refused() -> None:
    with pytest.raises(RequestError, match="chunk=-1"):
        backpropagate(Task(copy.deepcopy(shaken("mean")), ObjectiveSettings()), whole_batch(), chunk=-1)
