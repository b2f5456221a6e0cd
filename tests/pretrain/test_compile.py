"""Compiled, the models score the same, and no block of theirs breaks the graph.

`aot_eager` traces forward and backward as any backend has them traced, and needs no compiler at hand.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from stillreel.pretrain.model.blocks import Block
from stillreel.pretrain.model.temporal.stan import StanLayer
from tests.pretrain.zoo import Inputs, inputs, mask_of, shaken


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


def is_block(module: nn.Module) -> bool:
    return isinstance(module, Block | StanLayer) or type(module).__name__ == "ResidualAttentionBlock"
