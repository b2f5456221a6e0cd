"""What is asked of the model, in one process; tests/promises/test_training_1_gradients.py has the ranks and the arithmetic."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from stillreel.configs import RequestError
from stillreel.configs.pretrain import PretrainSettings
from stillreel.configs.train import ObjectiveSettings
from stillreel.pretrain.engine.accumulation import backpropagate
from stillreel.pretrain.objectives import Batch, ClassTexts, Task, identify
from tests.pretrain.zoo import ZOO, inputs, shaken, tiny


def task_of(kind: str, settings: dict[str, Any] | None = None, **words: Any) -> Task:
    return Task(copy.deepcopy(shaken(kind, **words)), ObjectiveSettings(**(settings or {})))


def batch_of(clips: int = 4) -> Batch:
    names = [f"number {clip}" for clip in range(clips)]
    return Batch(*inputs(clips=clips, frames=3), identify(names, names, names, seed=0, step=0))


@pytest.mark.parametrize("kind", ZOO)
def test_without_twins_infonce_is_the_published_loss_and_every_weight_learns(kind: str) -> None:
    task, batch = task_of(kind), batch_of()
    losses = backpropagate(task, batch)
    video = task.model.encode_video(batch.frames)
    torch.testing.assert_close(losses.total, task.model.loss(video, task.model.encode_text(batch.token_ids)))
    # DDP waits for the gradient of every weight that asks for one.
    assert [name for name, one in task.named_parameters() if one.requires_grad and one.grad is None] == []


def test_the_sum_of_directions_stays_stan_s() -> None:
    batch = batch_of()
    faithful, mean = (task_of("stan", faithful=faithful) for faithful in ("peer", "no"))
    assert backpropagate(faithful, batch).total == pytest.approx(2 * backpropagate(mean, batch).total.item(), rel=1e-5)


def test_captions_are_twins_whatever_their_case_and_blanks() -> None:
    captions = identify(list("abc"), ["A  Fox ", "a fox", "a box"], list("xyz"), seed=0, step=0).captions
    assert captions[0] == captions[1] != captions[2]


def test_a_batch_of_twins_asks_nothing() -> None:
    task = task_of("rerank", {"infonce": 1, "matching": 1, "distill": 1})
    frames, _, token_ids, _ = inputs(clips=3, frames=2)
    identity = identify(list("abc"), ["one", "one", "one"], list("xyz"), seed=0, step=0)
    losses = backpropagate(task, Batch(frames, None, token_ids, None, identity))
    assert losses.parts["infonce"] == 0
    assert math.isfinite(losses.parts["matching"])  # of the true pairs only
    assert losses.parts["distill"] == 0
    assert all(one.grad.isfinite().all() for one in task.parameters() if one.grad is not None)


def test_towers_in_bf16_leave_weights_gradients_and_logits_in_fp32() -> None:
    batch = batch_of()
    exact = backpropagate(task_of("clip2video"), batch)
    task = Task(copy.deepcopy(shaken("clip2video")), ObjectiveSettings(), autocast=torch.bfloat16)
    losses = backpropagate(task, batch, micro_batch=2)
    assert losses.total.dtype == torch.float32
    assert {one.grad.dtype for one in task.parameters() if one.requires_grad} == {torch.float32}
    assert losses.total != exact.total
    assert losses.total.item() == pytest.approx(exact.total.item(), rel=0.05)


def test_dual_encoders_send_no_words_and_frames_unless_a_re_ranker_reads_them() -> None:
    batch = batch_of()
    own = task_of("mean")(batch)
    assert own.video.frames.shape[1] == own.text.tokens.shape[1] == 0
    own = task_of("rerank, patches")(batch)
    assert own.video.frames.shape[1] == own.text.tokens.shape[1] == 0 and own.video.patches is None
    for asked in ("matching", "distill"):
        own = task_of("rerank, patches", {asked: 1})(batch)
        assert own.video.frames.shape[1] == 3 and own.text.tokens.shape[1] == 9
        assert own.video.patches is not None and own.video.patches.shape[1:3] == (3, 4)


def test_the_scale_is_held_between_one_and_its_largest() -> None:
    task = task_of("mean", {"max_logit_scale": 50})
    scale = task.model.clip.logit_scale
    for given, held in ((9.0, math.log(50)), (-1.0, 0.0), (2.0, 2.0)):
        scale.data.fill_(given)
        task.clamp_scale()
        assert scale.item() == pytest.approx(held)


def test_a_fixed_scale_is_neither_learned_nor_clamped() -> None:
    task = task_of("mean", {"logit_scale": "fixed", "max_logit_scale": 2})
    before = task.model.clip.logit_scale.item()
    backpropagate(task, batch_of())
    task.clamp_scale()
    assert task.model.clip.logit_scale.grad is None and task.model.clip.logit_scale.item() == before


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(RequestError, match="infonce, sigmoid and classes are all 0"):
        ObjectiveSettings.resolve({"infonce": "0", "matching": "1"})
    with pytest.raises(RequestError, match=r"max_logit_scale=0.5 is below 1"):
        ObjectiveSettings.resolve({"max_logit_scale": "0.5"})
    with pytest.raises(RequestError, match=r"matching=1.0 and distill=2.0 needs a re-ranker"):
        Task(tiny(), ObjectiveSettings(matching=1.0, distill=2.0))
    with pytest.raises(RequestError, match=r"objective.classes=1.0 compares vectors, and model.head=tight"):
        Task(tiny("tight"), ObjectiveSettings(classes=1.0))
    with pytest.raises(RequestError, match=r"objective.classes=1.0: captions are no classes"):
        PretrainSettings.resolve({"data": "clips", "out": "run", "objective": {"classes": "1"}})


@pytest.mark.parametrize("clips", [1, 3, 4, 20])
def test_texts_of_classes_are_dealt_to_rows_and_each_comes_to_its_place(clips: int) -> None:
    texts = [f"class {number}" for number in range(7)]
    dealt = ClassTexts(texts, torch.arange(7)[:, None].expand(7, 3)).deal([texts[slot % 7] for slot in range(clips)])
    assert dealt.labels.tolist() == [slot % 7 for slot in range(clips)]
    assert dealt.token_ids.shape == (clips, math.ceil(7 / clips), 3)
    assert dealt.token_ids.flatten(0, 1)[: dealt.total, 0].tolist() == list(range(7))


def test_classes_of_one_text_are_one() -> None:
    texts = ClassTexts(["a", "b", "a"], torch.zeros(3, 2, dtype=torch.int64))
    assert texts.deal(["a", "b", "a"]).labels.tolist() == [0, 1, 0]
