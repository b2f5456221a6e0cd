"""Layouts of a run: compiled, checkpointed, in DDP, sharded by FSDP2. What they compute is the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stillreel.configs import DataError, RequestError
from stillreel.configs.train import EngineSettings
from stillreel.pretrain.engine.accumulation import backpropagate
from stillreel.pretrain.engine.parallel import autocast_of, blocks_of, clip_gradients, parallelize
from stillreel.pretrain.engine.state import State, gather_state, set_state
from tests.making import torchrun
from tests.pretrain.gradients import build_task, gradients_of, slow_gradients, whole_batch, worst_error
from tests.pretrain.layouts import MODULE, MOVES, TWO_LEVEL_MOVES, Run

CASES = ["clip2video, all", "clip2video, classes too", "stan, dropping", "tight, dropping"]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("gradients")
    for case in CASES:
        torch.save(slow_gradients(case)[1], home / f"{case}.pt")
    return home


def launch(ranks: int, *words: object, machines: int = 1) -> None:
    said = torchrun(MODULE, [str(word) for word in words], ranks, timeout=280, machines=machines)
    assert said.returncode == 0, said.stderr[-6000:]


@pytest.mark.parametrize(
    "cases", [CASES[::2], pytest.param(CASES[1::2], marks=pytest.mark.slow)], ids=["joint", "others"]
)
def test_sharded_and_replicated_gradients_are_those_of_one_process(right: Path, cases: list[str]) -> None:
    """Checkpointed, whole and in chunks; clipped, they have the length that was asked for."""
    launch(2, right, *cases)
    for rank in range(2):
        told = json.loads((right / f"{rank}.json").read_text())
        assert len(told) == 2 * 2 * len(cases)
        for name, one in told.items():
            assert one["error"] < 1e-6, (name, one)
            assert abs(one["norm"]) < 1e-6 and one["cut"] < 1e-5, (name, one)
            assert not one["drew"], name
        worst = max((one["error"], name) for name, one in told.items())
        print(f"rank {rank}: the worst of all relative errors is {worst[0]:.1e}, of {worst[1]}")


def test_two_machines_of_two_ranks_shard_within_and_are_alike_between(right: Path) -> None:
    """HSDP. Machines are torchruns of their own, which meet; gradients and their lengths are those of one process."""
    cases = ["clip2video, all", "stan, dropping"]
    launch(2, right, *cases, machines=2)
    for rank in range(4):
        told = json.loads((right / f"{rank}.json").read_text())
        assert len(told) == 2 * len(cases)
        for name, one in told.items():
            assert name.startswith("hsdp") and one["error"] < 1e-6, (name, one)
            assert abs(one["norm"]) < 1e-6 and one["cut"] < 1e-5, (name, one)


@pytest.mark.parametrize(
    ("case", "engine"),
    [
        ("tight, dropping", {"compile": "on", "activation_checkpointing": True}),
        ("tight, dropping", {"activation_checkpointing": True}),
        pytest.param("stan, dropping", {"compile": "on"}, marks=pytest.mark.slow),
        pytest.param("stan, dropping", {"compile": "on", "activation_checkpointing": True}, marks=pytest.mark.slow),
    ],
)
def test_compiled_and_checkpointed_blocks_change_no_gradient_and_no_name(
    case: str, engine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *given, **words: compiler(*given, backend="aot_eager", **words))
    plain, task = build_task(case), build_task(case)
    backpropagate(plain, whole_batch(), micro_batch=3)
    names = [*task.state_dict()]
    wrapped = parallelize(task, EngineSettings(**engine))
    backpropagate(wrapped, whole_batch(), micro_batch=3)
    assert [*wrapped.state_dict()] == names
    assert worst_error(gradients_of(task), gradients_of(plain))[0] < 1e-6


def test_checkpointing_keeps_fewer_activations() -> None:
    def kept(**engine: Any) -> int:
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        task = build_task("clip2video")
        wrapped = parallelize(task, EngineSettings(**engine))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            wrapped(whole_batch())
        return total

    assert kept(activation_checkpointing=True) < 0.5 * kept()


@pytest.mark.parametrize("case", ["stan", "tight", "clip2video"])
def test_blocks_are_those_that_are_called(case: str) -> None:
    task = build_task(case)
    called: set[int] = set()
    for block in blocks_of(task):
        block.register_forward_hook(lambda module, *_: called.add(id(module)))
    task.compare(task(whole_batch()), whole_batch().identity)
    assert called == {id(block) for block in blocks_of(task)} and len(called) >= 10


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert autocast_of(EngineSettings(), cpu) is None
    assert autocast_of(EngineSettings(precision="fp32"), cpu) is None
    assert autocast_of(EngineSettings(precision="bf16"), cpu) is torch.bfloat16
    task = build_task("mean").float()
    parallelize(task, EngineSettings(precision="bf16"))
    assert task.autocast is torch.bfloat16


def test_a_gradient_is_cut_to_its_length_or_left() -> None:
    task = build_task("mean")
    with pytest.raises(RequestError, match="no gradient to clip"):
        clip_gradients(task, 1.0)
    backpropagate(task, whole_batch())
    before = {name: one.clone() for name, one in gradients_of(task).items()}
    norm = clip_gradients(task, 0)
    assert norm == pytest.approx(torch.cat([one.flatten() for one in before.values()]).norm().item())
    clip_gradients(task, 2 * norm.item())
    assert all(torch.equal(one, before[name]) for name, one in gradients_of(task).items())
    clip_gradients(task, norm.item() / 2)
    assert worst_error(gradients_of(task), {name: one / 2 for name, one in before.items()})[0] < 1e-5


def test_sharding_without_ranks_is_refused() -> None:
    with pytest.raises(RequestError, match="start it with torchrun, or set parallel=ddp"):
        parallelize(build_task("mean"), EngineSettings(parallel="fsdp"))


def test_a_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    """One process: saved after two steps and loaded into a fresh run, all that follows is the same."""
    first, second = Run("tight, dropping"), Run("tight, dropping")
    for number in range(2):
        first.step(number)
    first.save(tmp_path / "state")
    second.load(tmp_path / "state")
    for number in (2, 3):
        first.step(number)
        second.step(number)
    ends = [run.task.state_dict() for run in (first, second)]
    assert all(torch.equal(one, ends[1][name]) for name, one in ends[0].items())
    averages = [run.average.gather() for run in (first, second)]
    assert all(torch.equal(one, averages[1][name]) for name, one in averages[0].items())


@pytest.mark.parametrize("machines", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_goes_on_in_any_layout(tmp_path: Path, machines: int) -> None:
    """What one layout saved after two steps, every layout loads, and after two more all have the same weights and moments."""
    alone = Run()
    for number in range(2):
        alone.step(number)
    alone.save(tmp_path / "alone")
    launch(2, tmp_path)
    if machines > 1:
        launch(2, tmp_path, machines=machines)
    for number in (2, 3):
        alone.step(number)
    alone.save(tmp_path / "right")
    moves = map("-".join, MOVES + TWO_LEVEL_MOVES if machines > 1 else MOVES)
    ends = {"right": tmp_path / "right"} | {name: tmp_path / name for name in moves}
    back = Run()
    back.load(tmp_path / "fsdp")
    for number in (2, 3):
        back.step(number)
    back.save(tmp_path / "fsdp-alone")
    ends["fsdp-alone"] = tmp_path / "fsdp-alone"
    states = {name: torch.load(path, weights_only=True) for name, path in ends.items()}
    for name, state in states.items():
        for part in ("model", "task", "optimizer", "average"):
            assert state[part].keys() == states["right"][part].keys() and state[part], (name, part)
            for key, tensor in state[part].items():
                torch.testing.assert_close(tensor, states["right"][part][key], rtol=1e-6, atol=1e-8)


def test_another_run_s_state_is_refused() -> None:
    run, other = Run("mean"), Run("clip2video")
    for one in (run, other):
        one.step(0)
    state, strange = gather_state(run.task, run.optimizer), gather_state(other.task, other.optimizer)
    assert state is not None and strange is not None
    with pytest.raises(DataError, match="temporal"):
        set_state(run.task, run.optimizer, strange)
    fewer = {key: one for key, one in state.optimizer.items() if not key.endswith("visual.proj")}
    with pytest.raises(DataError, match=r"1 of them, such as model\.clip\.visual\.proj"):
        set_state(run.task, run.optimizer, State(state.model, state.task, fewer))
