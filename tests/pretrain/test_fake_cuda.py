"""Whole steps on a CUDA device that is not there, at B/32's sizes: 320 clips of 12 frames at 224, captions of 32 words, bf16.

Counted are tensors on a wrong device, operations that the host waits for, breaks of compiled graphs, and graphs compiled anew.
Forward, losses, backward, chunks, clipping, fused AdamW and averages are the loop's own `take_step`. Of a tower's twelve blocks
four are built, as many as STAN reads, since the others are the same code; `mean` has all. Not shown: cuDNN's LSTM, what a kernel
waits for by itself, torch's autograd engine (`fake_cuda`), and FSDP2 and the prefetcher, whose streams ask for a driver.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from stillreel.configs.model import ModelSettings
from stillreel.configs.train import EmaSettings, EngineSettings, ObjectiveSettings, OptimizerSettings
from stillreel.pretrain.engine.ema import ModelEma
from stillreel.pretrain.engine.loop import TrainState
from stillreel.pretrain.engine.optimizer import build_optimizer
from stillreel.pretrain.engine.parallel import parallelize
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.pretrained import named_cfg
from stillreel.pretrain.model.towers import build_towers
from stillreel.pretrain.objectives import Batch, Classes, Identity, Task
from tests.pretrain.fake_cuda import CUDA, Engine, HostWaits, pretend_cuda
from tests.pretrain.gradients import build_task, gradients_of, whole_batch
from tests.pretrain.zoo import DROPPING, RERANKERS, ZOO

CLIPS, FRAMES, WORDS, SIDE = 320, 12, 32, 224
TOWERS = "ViT-B-32-quickgelu"
ALL = {"sigmoid": 1, "matching": 1, "distill": 1}


class Case(NamedTuple):
    kind: str
    objective: dict[str, Any]
    micro_batch: int = 0
    layers: int = 4


CASES = [
    Case("mean", {}, layers=12),
    Case("3d", {"sigmoid": 1}),
    Case("seq", {"logit_scale": "fixed"}),
    Case("lstm", {}),
    Case("clip2video", {"classes": 1}, 160),
    Case("tdb, mlp", {}),
    Case("tab, slow", {"patch_dropout": 0.5}),
    Case("stan, dropping", {"patch_dropout": 0.5}),
    Case("stan, conv, dropping", {}),
    Case("mug", {}),
    Case("mug, attended", {}),
    Case("mug, pooled", {}),
    Case("mug, weighted", {}, 80),
    Case("tight, dropping", {}),
    Case("rerank, clip2video", ALL, 160),
    Case("rerank, patches", ALL),
]
COMPILED = [
    Case("clip2video", {}),
    pytest.param(Case("stan, dropping", {}, 160), marks=pytest.mark.slow),
    pytest.param(Case("stan, conv, dropping", {}), marks=pytest.mark.slow),
    pytest.param(Case("tight, dropping", {}), marks=pytest.mark.slow),
    pytest.param(Case("rerank", ALL, 160), marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_a_step_stays_on_its_device_and_waits_for_nothing(case: Case) -> None:
    model = model_of(case)
    with pretend_cuda():
        state, batch = build_state(model, case), batch_of(case)
        with HostWaits() as waits:
            values = state.take_step(batch, 0, 10)
        assert not waits.found and waits.operations > 1000
        weights = dict(state.task.named_parameters())
        moments = {one for weight in weights.values() for one in state.optimizer.state.get(weight, {}).values()}
        trained = [one for one in weights.values() if one.requires_grad]
        assert len(moments) == 3 * len(trained) > 100
        told = [values.loss, values.grad_norm, values.logit_scale, *values.parts.values()]
        assert {one.device for one in (*weights.values(), *moments, *told)} == {CUDA}


@pytest.mark.parametrize("case", COMPILED, ids=lambda case: case.kind)
def test_compiled_blocks_break_no_graph_and_are_not_compiled_again(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fullgraph` makes a break an error; the backend takes each graph as it is."""
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *given, **words: compiler(*given, backend="eager", **words))
    counters.clear()
    model, graphs = model_of(case), []
    with pretend_cuda():
        state = build_state(model, case, compile="on")
        for step in range(3):
            state.take_step(batch_of(case), step, 10)
            graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[1] > 0 and len(set(graphs[1:])) == 1, graphs
    assert not counters["graph_break"]


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda one: one[one > 0], "index"),
        (lambda one: one.nonzero(), "nonzero"),
        (lambda one: one.unique(), "_unique2"),
        (lambda one: one.cpu(), "_to_copy between cpu and cuda"),
        (lambda one: torch.zeros(3).to(one.device), "_to_copy between cpu and cuda"),
        (lambda one: one.sum().item(), "_local_scalar_dense"),
        (lambda one: one.repeat_interleave(one.int()), "repeat_interleave"),
    ],
)
def test_what_the_host_would_wait_for_is_found(fault: Any, named: str) -> None:
    """Shapes and values that nobody knows end the step here, too; copies do not, and are counted."""
    with pretend_cuda():
        given = torch.ones(3, device="cuda")
        with HostWaits() as waits:
            try:
                fault(given)
            except Exception as error:  # torch's own kinds, by what is asked
                assert "Dynamic" in type(error).__name__ or "DataDependent" in type(error).__name__, error
        assert waits.found[named] == 1, waits.found


def test_a_tensor_on_another_device_is_an_error() -> None:
    with pretend_cuda(), pytest.raises(Exception, match="two devices, cuda:0 and cpu"):
        torch.ones(3, device="cuda") + torch.ones(3)


@pytest.mark.parametrize("kind", ["clip2video, all", "stan", "tight"])
def test_the_engine_that_stands_in_gives_torchs_gradients(kind: str) -> None:
    """On the CPU, where both can be asked."""
    tasks = [build_task(kind) for _ in "ab"]
    losses = [one.compare(one(whole_batch()), whole_batch().identity).total for one in tasks]
    losses[0].backward()
    for leaf, gradient in Engine().run([losses[1]], [None]):
        leaf.grad = gradient
    expected, found = map(gradients_of, tasks)
    assert expected.keys() == found.keys()
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one, rtol=1e-9, atol=1e-12)


def model_of(case: Case) -> VideoTextModel:
    """One of the zoo on towers of B/32, on no device."""
    cfg = copy.deepcopy(named_cfg(TOWERS))
    cfg["vision_cfg"]["layers"] = cfg["text_cfg"]["layers"] = case.layers
    settings = ModelSettings.resolve({"towers": {"name": TOWERS}, **(ZOO | RERANKERS | DROPPING)[case.kind]})
    with torch.device("meta"):
        return VideoTextModel(build_towers(cfg), settings)


def build_state(model: VideoTextModel, case: Case, **engine: Any) -> TrainState:
    """What trains a model, as a run has it; the model's tensors come to the device."""
    model._apply(lambda one: torch.empty(one.shape, dtype=one.dtype, device="cuda"))
    task = Task(model, ObjectiveSettings(**case.objective)).train()
    wrapped = parallelize(task, EngineSettings(**{"precision": "bf16", "compile": "off", **engine}))
    rates = OptimizerSettings()
    average = ModelEma(task, EmaSettings(decay=0.9))
    return TrainState(task, wrapped, build_optimizer(task, rates), rates, case.micro_batch, average)


def batch_of(case: Case) -> Batch:
    """What the prefetcher hands over."""
    identity = Identity(
        whole(CLIPS), whole(CLIPS), torch.empty(CLIPS, 2, dtype=torch.float64, device="cuda"), whole(CLIPS)
    )
    return Batch(
        torch.empty(CLIPS, FRAMES, 3, SIDE, SIDE, dtype=torch.bfloat16, device="cuda"),
        torch.empty(CLIPS, FRAMES, dtype=torch.bool, device="cuda"),
        whole(CLIPS, WORDS),
        None,
        identity,
        Classes(whole(CLIPS), whole(CLIPS, 2, WORDS), 400) if case.objective.get("classes") else None,
    )


def whole(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.int64, device="cuda")
