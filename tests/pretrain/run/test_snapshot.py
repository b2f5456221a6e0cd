"""Every tensor of a run, by name: out, into files, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stillreel.configs import DataError
from stillreel.pretrain.run import Snapshot, restore_snapshot, take_snapshot
from stillreel.pretrain.run.checkpoint import write_checkpoint
from tests.pretrain.run.making import equal, state_at, take_steps, toy_task


def test_a_run_that_was_saved_and_restored_takes_the_same_steps_to_the_bit(tmp_path: Path) -> None:
    task, optimizer = toy_task()
    take_steps(task, optimizer, 3)
    average = {name: one * 2 for name, one in task.model.state_dict().items()}
    snapshot = take_snapshot(task, optimizer, {"average": average})
    saved = write_checkpoint(tmp_path, task.model, snapshot, state_at(3), {}, {})
    take_steps(task, optimizer, 4)
    other, its_optimizer = toy_task()
    take_steps(other, its_optimizer, 1)  # somewhere else
    read = saved.read()
    restore_snapshot(read, other, its_optimizer)
    assert equal(read.group("average"), average)
    take_steps(other, its_optimizer, 4)
    assert equal(dict(task.state_dict()), dict(other.state_dict()))
    assert equal(take_snapshot(task, optimizer).training, take_snapshot(other, its_optimizer).training)


def test_state_is_by_name_so_groups_may_have_another_order() -> None:
    task, optimizer = toy_task()
    take_steps(task, optimizer, 2)
    snapshot = take_snapshot(task, optimizer)
    assert "task.bias" in snapshot.training and "optimizer.exp_avg_sq.model.clip.visual.proj" in snapshot.training
    held = {name: one.clone() for name, one in snapshot.training.items()}
    other, its_optimizer = toy_task()
    its_optimizer.param_groups.reverse()
    restore_snapshot(snapshot, other, its_optimizer)
    assert equal(take_snapshot(other, its_optimizer).training, held)
    take_steps(task, optimizer, 1)
    take_steps(other, its_optimizer, 1)
    assert equal(dict(task.state_dict()), dict(other.state_dict()))


def test_before_the_first_step_there_is_no_state_to_restore() -> None:
    task, optimizer = toy_task()
    snapshot = take_snapshot(task, optimizer)
    assert not snapshot.group("optimizer")
    restore_snapshot(snapshot, *toy_task())


def test_what_does_not_fit_is_named() -> None:
    task, optimizer = toy_task()
    take_steps(task, optimizer, 1)
    weights, training = take_snapshot(task, optimizer)
    without = {name: one for name, one in weights.items() if name != "clip.logit_scale"}
    with pytest.raises(DataError, match=r"1 missing: model\.clip\.logit_scale; 1 unexpected: model\.x"):
        restore_snapshot(Snapshot({**without, "x": torch.zeros(1)}, training), task, optimizer)
    with pytest.raises(DataError, match=r"model\.clip\.visual\.proj is \(2, 2\), expected \(\d+, \d+\)"):
        restore_snapshot(Snapshot({**weights, "clip.visual.proj": torch.zeros(2, 2)}, training), task, optimizer)
    lost = {name: one for name, one in training.items() if not name.endswith(".bias")}
    with pytest.raises(DataError, match=r"of other weights than those that are trained: .* such as bias"):
        restore_snapshot(Snapshot(weights, {**lost, "task.bias": training["task.bias"]}), task, optimizer)
