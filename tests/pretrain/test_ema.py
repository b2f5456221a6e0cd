"""Averages of weights. tests/pretrain/test_parallel.py has their states move between layouts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stillreel.configs import DataError, RequestError
from stillreel.configs.train import EmaSettings
from stillreel.pretrain.engine.ema import ModelEma, decay_at, wise_ft
from stillreel.pretrain.objectives import Task
from tests.pretrain.gradients import build_task


def weights_of(task: Task) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in task.named_parameters() if one.requires_grad}


def walk(task: Task, average: ModelEma, steps: range) -> list[dict[str, Tensor]]:
    """Steps of noise; the weights after each."""
    generator, path = torch.Generator().manual_seed(steps.start), []
    for step in steps:
        with torch.no_grad():
            for weight in task.parameters():
                if weight.requires_grad:
                    weight += torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        average.update(step)
        path.append(weights_of(task))
    return path


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_is_the_sum_that_it_is_said_to_be(warmup: bool) -> None:
    task, settings = build_task("mean"), EmaSettings(decay=0.8, warmup=warmup)
    start, average = weights_of(task), ModelEma(task, settings)
    path = [start, *walk(task, average, range(6))]
    keeps = [decay_at(step, settings) for step in range(6)]
    if not warmup:
        assert keeps == [0.8] * 6
    shares = [1.0 if not step else 1 - keeps[step - 1] for step in range(7)]
    for step in range(7):
        for keep in keeps[step:]:
            shares[step] *= keep
    assert sum(shares) == pytest.approx(1)
    found = average.gather()
    assert found is not None and found.keys() == start.keys()
    for name, tensor in found.items():
        expected = sum(share * weights[name] for share, weights in zip(shares, path, strict=True))
        torch.testing.assert_close(tensor, expected, rtol=1e-10, atol=1e-10)


def test_a_warm_up_forgets_the_start_and_reaches_the_decay() -> None:
    settings = EmaSettings(decay=0.999)
    decays = [decay_at(step, settings) for step in range(20000)]
    assert decays[0] == 0.1 and decays[90] == pytest.approx(0.91) and decays == sorted(decays) and decays[-1] == 0.999


def test_the_average_is_swapped_in_and_out_to_the_bit() -> None:
    task = build_task("mean")
    average = ModelEma(task, EmaSettings(decay=0.9))
    walk(task, average, range(3))
    before, averaged, places = weights_of(task), average.gather(), [id(one) for one in task.parameters()]
    with average.applied():
        assert all(torch.equal(one, averaged[name]) for name, one in weights_of(task).items())
    assert all(torch.equal(one, before[name]) for name, one in weights_of(task).items())
    with pytest.raises(RuntimeError, match="evaluation failed"), average.applied():
        raise RuntimeError("evaluation failed")
    assert all(torch.equal(one, before[name]) for name, one in weights_of(task).items())
    assert [id(one) for one in task.parameters()] == places
    assert not any(torch.equal(one, averaged[name]) for name, one in before.items())


def test_an_average_goes_on_from_its_state() -> None:
    first, second = build_task("mean"), build_task("mean")
    averages = [ModelEma(task, EmaSettings(decay=0.9)) for task in (first, second)]
    walk(first, averages[0], range(3))
    second.load_state_dict(first.state_dict())
    averages[1].load(averages[0].gather())
    for task, average in zip((first, second), averages, strict=True):
        walk(task, average, range(3, 5))
    ends = [average.gather() for average in averages]
    assert all(torch.equal(one, ends[1][name]) for name, one in ends[0].items())
    with pytest.raises(DataError, match="temporal"):
        averages[0].load(ModelEma(build_task("clip2video"), EmaSettings(decay=0.9)).gather())


def test_frozen_weights_are_not_averaged() -> None:
    task = build_task("mean")
    task.model.clip.visual.requires_grad_(False)
    found = ModelEma(task, EmaSettings(decay=0.9)).gather()
    assert found and not any(".visual." in name for name in found)


def test_the_mean_with_the_start_lies_between_and_leaves_new_weights() -> None:
    start = {
        "tower": torch.tensor([0.0, 2.0]),
        "half": torch.tensor([1.0], dtype=torch.bfloat16),
        "count": torch.tensor(3),
    }
    trained = {
        "tower": torch.tensor([4.0, 6.0]),
        "half": torch.tensor([3.0], dtype=torch.bfloat16),
        "count": torch.tensor(5),
        "new": torch.tensor([9.0]),
    }
    mixed = wise_ft(start, trained, 0.25)
    assert mixed["tower"].tolist() == [1, 3] and mixed["half"].tolist() == [1.5]
    assert mixed["new"].tolist() == [9] and mixed["count"] == 5 and mixed["half"].dtype == torch.bfloat16
    for share, end in ((0.0, start), (1.0, trained)):
        assert torch.equal(wise_ft(start, trained, share)["tower"], end["tower"])


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(RequestError, match="decay=0 keeps no average"):
        ModelEma(build_task("mean"), EmaSettings())
    with pytest.raises(RequestError, match="share from 0"):
        wise_ft({}, {}, 1.5)
    with pytest.raises(DataError, match=r"a is \(2,\) in the start and absent"):
        wise_ft({"a": torch.zeros(2)}, {}, 0.5)
    with pytest.raises(DataError, match=r"a is \(2,\) in the start and \(3,\)"):
        wise_ft({"a": torch.zeros(2)}, {"a": torch.zeros(3)}, 0.5)
    with pytest.raises(RequestError, match="decay=1"):
        EmaSettings.resolve({"decay": "1"})
