from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.optim import AdamW

from stillreel.configs import RequestError
from stillreel.configs.train import ObjectiveSettings, OptimizerSettings
from stillreel.pretrain.engine.accumulation import backpropagate
from stillreel.pretrain.engine.optimizer import build_optimizer, lr_at, set_lr
from stillreel.pretrain.objectives import Task
from tests.pretrain.test_objectives import batch_of
from tests.pretrain.zoo import RERANKERS, ZOO, shaken

ALL = {"infonce": 1, "sigmoid": 1, "matching": 1}


def build(kind: str, **settings: Any) -> tuple[Task, AdamW, dict[str, dict[str, Any]]]:
    """The task, its optimizer, and the group of each weight by name."""
    asked = ALL if kind in RERANKERS else ALL | {"matching": 0}
    task = Task(copy.deepcopy(shaken(kind)), ObjectiveSettings(**asked))
    optimizer = build_optimizer(task, OptimizerSettings(**settings))
    of_weight = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    return task, optimizer, {name: of_weight[id(one)] for name, one in task.named_parameters() if one.requires_grad}


@pytest.mark.parametrize("kind", ZOO | RERANKERS)
def test_every_trained_weight_is_in_one_group(kind: str) -> None:
    task, optimizer, groups = build(kind, layer_decay=0.7)
    listed = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(listed) == sorted(id(one) for one in task.parameters() if one.requires_grad)
    assert len({group["name"] for group in optimizer.param_groups}) == len(optimizer.param_groups)
    for name, group in groups.items():
        assert (group["peak"] == 4e-5) == (not name.startswith("model.clip.")), name


@pytest.mark.parametrize("kind", ZOO | RERANKERS)
def test_norms_biases_embeddings_and_scale_do_not_decay(kind: str) -> None:
    _, _, groups = build(kind)
    words = ("ln_", "norm", "bias", "embedding", "positions", "types", "logit_scale")
    for name, group in groups.items():
        spared = any(word in name for word in words)
        assert group["weight_decay"] == (0 if spared else 0.05), name


def test_towers_and_new_modules_have_their_rates_and_lower_blocks_less() -> None:
    _, _, groups = build("rerank, clip2video", lr=1e-5, lr_new=1e-3, layer_decay=0.5)
    below = {
        "model.clip.logit_scale": 0,
        "model.clip.text_projection": 0,
        "model.clip.visual.proj": 0,
        "model.clip.visual.ln_post.bias": 0,
        "model.clip.ln_final.weight": 0,
        "model.clip.visual.transformer.resblocks.3.mlp.c_fc.weight": 1,
        "model.clip.transformer.resblocks.0.attn.in_proj_weight": 4,
        "model.clip.visual.conv1.weight": 5,
        "model.clip.visual.ln_pre.weight": 5,
        "model.clip.visual.class_embedding": 5,
        "model.clip.token_embedding.weight": 5,
        "model.clip.positional_embedding": 5,
    }
    for name, count in below.items():
        assert groups[name]["peak"] == pytest.approx(1e-5 * 0.5**count), name
    for name in ("model.temporal.positions", "model.align.centres", "model.reranker.score.weight", "bias"):
        assert groups[name]["peak"] == 1e-3, name
    assert len({group["peak"] for group in build("mean")[2].values()}) == 2  # without layer decay: towers, and the rest


def test_a_rate_of_zero_freezes_the_towers_and_two_leave_nothing() -> None:
    task, _, groups = build("rerank", lr=0)
    assert not any(one.requires_grad for one in task.model.clip.parameters())
    assert "model.reranker.score.weight" in groups and not any(name.startswith("model.clip.") for name in groups)
    with pytest.raises(RequestError, match="leave nothing to train"):
        build("seq", lr=0, lr_new=0)


def test_rates_rise_evenly_and_fall_along_a_cosine() -> None:
    settings = OptimizerSettings(warmup_steps=10, min_lr_ratio=0.1)
    shares = [lr_at(step, 111, settings) for step in range(111)]
    assert shares[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert shares[10] == 1 and shares[60] == pytest.approx(0.55) and shares[110] == pytest.approx(0.1)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert lr_at(500, 111, settings) == pytest.approx(0.1)
    assert [lr_at(step, 2, OptimizerSettings(warmup_steps=0)) for step in range(2)] == pytest.approx([1, 0])
    assert lr_at(0, 1, OptimizerSettings(warmup_steps=5)) == 0.2  # fewer steps than the warm-up has


def test_rates_of_a_step_are_shares_of_each_group_s_peak() -> None:
    _, optimizer, _ = build("seq", lr=1e-5, lr_new=1e-3)
    for share in (0.5, 0.25):
        set_lr(optimizer, share)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25e-5, 0.25e-3}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["mean", "clip2video", "stan"])
def test_a_few_steps_learn_a_batch_by_heart(kind: str) -> None:
    task, optimizer, _ = build(kind, lr=1e-3, lr_new=1e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        losses.append(backpropagate(task, batch_of(), micro_batch=3).parts["infonce"].item())
        optimizer.step()
        task.clamp_scale()
    assert losses[-1] < 0.3 * losses[0], (losses[0], losses[-1])
    assert torch.isfinite(task.bias).item()
