"""Cached accumulation in one process; tests/promises/test_training_1_gradients.py has it over ranks."""

from __future__ import annotations

import copy

import pytest
import torch

from stillreel.configs import RequestError
from stillreel.configs.train import ObjectiveSettings
from stillreel.pretrain.engine.accumulation import backpropagate
from stillreel.pretrain.objectives import Task, identify
from tests.pretrain.gradients import CLIPS, SEED, build_task, gradients_of, whole_batch, worst_error
from tests.pretrain.zoo import shaken


def step(case: str, number: int, chunk: int) -> Task:
    """The gradients of a step of this number, with dropout."""
    task, batch = build_task(case), whole_batch()
    draws = identify(
        [f"clip {slot}" for slot in range(CLIPS)], [""] * CLIPS, [""] * CLIPS, seed=SEED, step=number
    ).draws
    backpropagate(task, batch._replace(identity=batch.identity._replace(draws=draws)), micro_batch=chunk)
    return task


@pytest.mark.parametrize("case", ["stan, dropping", "tight, dropping"])
def test_chunks_draw_what_the_whole_batch_draws_and_each_step_anew(case: str) -> None:
    torch.manual_seed(1)
    whole = step(case, 3, chunk=0)
    torch.manual_seed(2)
    assert worst_error(gradients_of(step(case, 3, chunk=3)), gradients_of(whole))[0] < 1e-6
    assert worst_error(gradients_of(step(case, 4, chunk=3)), gradients_of(whole))[0] > 1e-2


def test_gradients_add_up_as_after_any_backward_pass() -> None:
    once, twice = (Task(copy.deepcopy(shaken("mean")), ObjectiveSettings()).double() for _ in range(2))
    backpropagate(once, whole_batch(), micro_batch=3)
    for _ in range(2):
        backpropagate(twice, whole_batch(), micro_batch=3)
    doubled = {name: 2 * gradient for name, gradient in gradients_of(once).items()}
    assert worst_error(gradients_of(twice), doubled)[0] < 1e-6


@pytest.mark.parametrize("frozen", ["model.clip.visual.", "model.clip."])
def test_frozen_towers_take_no_part(frozen: str) -> None:
    whole, chunked = (Task(copy.deepcopy(shaken("tight")), ObjectiveSettings()).double() for _ in range(2))
    for task, chunk in ((whole, 0), (chunked, 3)):
        for name, weight in task.named_parameters():
            weight.requires_grad_(not name.startswith(frozen))
        backpropagate(task, whole_batch(), micro_batch=chunk)
    assert gradients_of(whole)
    assert worst_error(gradients_of(chunked), gradients_of(whole))[0] < 1e-6


def test_a_chunk_below_zero_is_refused() -> None:
    with pytest.raises(RequestError, match="micro_batch=-1"):
        backpropagate(Task(copy.deepcopy(shaken("mean")), ObjectiveSettings()), whole_batch(), micro_batch=-1)
