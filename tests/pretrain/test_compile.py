"""Compiled, the models score the same, and no block of theirs breaks the graph.

`aot_eager` traces forward and backward as any backend has them traced, and needs no compiler at hand.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from stillreel.configs.train import EngineSettings, ObjectiveSettings
from stillreel.pretrain.engine.accumulation import backpropagate
from stillreel.pretrain.engine.parallel import parallelize
from stillreel.pretrain.model.blocks import Block
from stillreel.pretrain.model.temporal.stan import StanLayer
from stillreel.pretrain.objectives import Batch, Task, identify
from tests.pretrain.zoo import Inputs, captions, inputs, mask_of, shaken


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def padded() -> Inputs:
    return inputs()._replace(frame_mask=mask_of([5, 3, 1], 5))


def most_are_slow(*kinds: str) -> list[object]:
    """The first kind always, the others with the slow tests."""
    return [kinds[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in kinds[1:])]


@pytest.mark.parametrize("kind", most_are_slow("clip2video", "3d", "lstm", "mug", "stan, conv", "tight"))
def test_a_compiled_model_gives_equal_scores(kind: str) -> None:
    model, given = shaken(kind), padded()
    compiled = torch.compile(model, backend="aot_eager")
    assert torch.allclose(compiled(*given), model(*given), atol=1e-4)


@pytest.mark.parametrize("kind", most_are_slow("stan", "clip2video", "stan, conv", "tight"))
def test_no_block_breaks_the_graph(kind: str) -> None:
    """Each block compiled by itself, as the trainer does it: `fullgraph` makes a break an error."""
    model, given = shaken(kind), padded()
    expected = model(*given)
    blocks = [module for module in model.modules() if is_block(module)]
    assert len(blocks) >= 8  # of the towers, and the model's own
    for block in blocks:
        block.compile(backend="aot_eager", fullgraph=True)
    try:
        scores = model(*given)
        assert torch.allclose(scores, expected, atol=1e-4)
        scores.sum().backward()
    finally:
        for block in blocks:
            block._compiled_call_impl = None


def test_steps_with_a_teacher_compile_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions of other lengths and other candidates in each step: a shape that went by them was compiled 56 times in 14 steps,
    and then the limit of a block that may not break its graph ended the run."""
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *given, **words: compiler(*given, backend="aot_eager", **words))
    tasks = [
        Task(copy.deepcopy(shaken("rerank")), ObjectiveSettings(matching=1, distill=1, candidates=3)) for _ in "ab"
    ]
    plain, compiled = (
        parallelize(task, EngineSettings(compile=how)) for task, how in zip(tasks, ("off", "on"), strict=True)
    )
    counters.clear()
    graphs = []
    for step in range(14):
        batch = batch_of_lengths([4 + (5 * step + row * row) % 9 for row in range(6)], step)
        losses, expected = (backpropagate(wrapped, batch).parts["distill"].item() for wrapped in (compiled, plain))
        assert losses == pytest.approx(expected, rel=1e-4)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[1] > 0 and len(set(graphs[1:])) == 1, graphs
    gradients = [[one.grad for one in task.parameters() if one.grad is not None] for task in tasks]
    assert all(torch.allclose(*pair, rtol=1e-3, atol=1e-5) for pair in zip(*gradients, strict=True))


def batch_of_lengths(lengths: list[int], step: int) -> Batch:
    names, frames = [str(row) for row in range(len(lengths))], inputs(clips=len(lengths), frames=2, seed=step).frames
    ids = captions(lengths, words=12, seed=step)
    return Batch(frames, None, ids, None, identify(names, names, names, seed=0, step=step))


def is_block(module: nn.Module) -> bool:
    return isinstance(module, Block | StanLayer) or type(module).__name__ == "ResidualAttentionBlock"
