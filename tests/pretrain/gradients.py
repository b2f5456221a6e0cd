"""Gradients of a step: as a module, those of a rank under real torchrun; imported, the slow and obvious ones, and the starter.

The slow ones are of one process with the whole batch, pair by pair, in Python's own loops.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stillreel.configs.system.dice import pick
from stillreel.configs.train import ObjectiveSettings
from stillreel.pretrain.engine.accumulation import backpropagate
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures, pick_rows
from stillreel.pretrain.objectives import Batch, Classes, ClassTexts, Identity, Task, identify
from stillreel.pretrain.objectives import task as objective
from tests.making import torchrun
from tests.pretrain.zoo import captions, inputs, mask_of, shaken

MODULE = "tests.pretrain.gradients"
CLIPS, FRAMES, SEED, STEP = 8, 3, 5, 40
LABELS = [3, 18, 0, 3, 7, 0, 11, 16]  # of the clips, among 19 classes, which no number of slots divides

# By name: a model of the zoo, and what is asked of it.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("mean", {}),
    "mean, fixed scale": ("mean", {"logit_scale": "fixed"}),
    "mean, sigmoid": ("mean", {"infonce": 0, "sigmoid": 1, "sigmoid_bias": -3}),
    "matching": ("rerank", {"infonce": 0.5, "matching": 2}),
    "matching, patches": ("rerank, patches", {"infonce": 1, "matching": 0.5}),
    "distill": ("rerank", {"infonce": 0.5, "distill": 2, "candidates": 4}),
    "classes": ("mean", {"infonce": 0, "classes": 1}),
    "re-ranker, nothing asked of it": ("rerank, patches", {}),
    "clip2video": ("clip2video", {}),
    "clip2video, all": (
        "rerank, clip2video",
        {"sigmoid": 0.3, "matching": 0.7, "distill": 0.4, "candidates": 3, "sigmoid_bias": -2},
    ),
    "clip2video, classes too": ("clip2video", {"infonce": 0.4, "classes": 2}),
    "stan": ("stan", {}),
    "stan, classes": ("stan", {"infonce": 0, "classes": 1}),
    "mug, attended": ("mug, attended", {}),
    "mug, weighted, all": ("rerank, mug", {"sigmoid": 0.3, "matching": 0.7, "distill": 0.4, "candidates": 8}),
    "tight": ("tight", {}),
    "mean, dropping": ("mean", {"patch_dropout": 0.5}),
    "3d, dropping": ("3d", {"patch_dropout": 0.3}),
    "clip2video, dropping": ("rerank, clip2video", {"patch_dropout": 0.4, "matching": 0.7}),
    "stan, dropping": ("stan, dropping", {"patch_dropout": 0.5}),
    "stan, conv, dropping": ("stan, conv, dropping", {}),
    "tight, dropping": ("tight, dropping", {"patch_dropout": 0.5}),
    "tight, sigmoid": ("tight", {"infonce": 0, "sigmoid": 1, "sigmoid_bias": 0}),
}


def build_task(case: str) -> Task:
    """In float64, the same for the same name; without dropout, unless the name says so."""
    kind, settings = CASES[case]
    model = copy.deepcopy(shaken(kind))
    torch.manual_seed(3)
    return Task(model, ObjectiveSettings(**settings)).double().train("dropping" in case)


def whole_batch() -> Batch:
    """Slots 2 and 5 have one caption; 1 and 6 show one picture, and 0, 3 and 7 another."""
    frames, _, _, _ = inputs(clips=CLIPS, frames=FRAMES)
    words = ["a red fox", "two boats", "Snow  falls", "a lamp", "an old door", "snow falls", "rain", "five birds"]
    pictures = ["p", "q", "r", "p", "s", "t", "q", "p"]
    token_ids = captions([5, 6, 7, 4, 9, 7, 8, 5], words=9)
    token_ids[5] = token_ids[2]
    identity = identify([f"clip {slot}" for slot in range(CLIPS)], words, pictures, seed=SEED, step=STEP)
    mask = mask_of([3, 2, 3, 1, 3, 3, 2, 3], FRAMES)
    return Batch(frames.double(), mask, token_ids, None, identity, deal_classes(range(CLIPS)))


def class_ids() -> Tensor:
    """Token ids (19, W) of the classes' texts."""
    return captions([4 + number % 5 for number in range(19)], words=9, seed=2)


def deal_classes(slots: range) -> Classes:
    texts = [f"class {number}" for number in range(len(class_ids()))]
    return ClassTexts(texts, class_ids()).deal([texts[LABELS[slot]] for slot in slots])


def excused_pairs() -> set[tuple[int, int]]:
    pairs = [(2, 5), (1, 6), (0, 3), (0, 7), (3, 7)]
    return {*pairs, *((b, a) for a, b in pairs)}


def share_of(batch: Batch, rank: int, ranks: int) -> Batch:
    """Slots rank, rank + ranks, ..., as the loader deals them."""
    share = batch.rows(slice(rank, None, ranks))
    return share._replace(classes=deal_classes(range(rank, CLIPS, ranks)))


def slow_loss(task: Task, batch: Batch) -> Tensor:
    model, settings, excused = task.model, task.settings, excused_pairs()
    video = model.encode_video(batch.frames, batch.frame_mask, batch.identity.draws)
    text = model.encode_text(batch.token_ids, batch.token_mask, batch.identity.draws)
    rows = range(CLIPS)
    pairs = [[model.similarities(_row(video, clip), _row(text, words)) for clip in rows] for words in rows]
    kinds = [[[model.logits(pair[0]).reshape(()) for pair in line] for line in pairs]]
    shares = [1.0]
    if model.align is not None:
        kinds.append([[model.logits(pair[1]).reshape(()) for pair in line] for line in pairs])
        shares = [model.settings.tab.weight, 1 - model.settings.tab.weight]
    total = torch.zeros((), dtype=torch.float64)
    for share, logits in zip(shares, kinds, strict=True):
        total = total + share * settings.infonce * _slow_infonce(logits, excused)
        if task.bias is not None:
            total = total + share * settings.sigmoid * _slow_sigmoid(logits, task.bias, excused)
    mixed = [[sum(s * k[i][j] for s, k in zip(shares, kinds, strict=True)) for j in rows] for i in rows]
    if settings.classes:
        for share, place in zip(shares, (0, 1), strict=False):
            total = total + share * settings.classes * _slow_classes(task, video, place)
    if settings.matching:
        total = total + settings.matching * _slow_matching(task, video, text, mixed, batch.identity)
    if settings.distill:
        total = total + settings.distill * _slow_distillation(task, video, text, mixed)
    return total


def _slow_infonce(logits: list[list[Tensor]], excused: set[tuple[int, int]]) -> Tensor:
    terms = []
    for one in range(CLIPS):
        others = [other for other in range(CLIPS) if (one, other) not in excused]
        right = logits[one][one].exp()
        terms.append(-(right / sum(logits[one][other].exp() for other in others)).log())
        terms.append(-(right / sum(logits[other][one].exp() for other in others)).log())
    return sum(terms) / (2 * CLIPS)


def _slow_classes(task: Task, video: VideoFeatures, place: int) -> Tensor:
    """By the head (place 0), or by TAB's vectors (1)."""
    model = task.model
    texts = [model.encode_text(ids[None]) for ids in class_ids()]
    total = torch.zeros((), dtype=torch.float64)
    for clip, label in enumerate(LABELS):
        scores = [model.similarities(_row(video, clip), text)[place] for text in texts]
        odds = [model.logits(score).exp() for score in scores if score is not None]
        total = total - (odds[label] / sum(odds)).log().reshape(())
    return total / CLIPS


def _slow_sigmoid(logits: list[list[Tensor]], bias: Tensor, excused: set[tuple[int, int]]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for words in range(CLIPS):
        for clip in range(CLIPS):
            if (words, clip) not in excused:
                sign = 1 if words == clip else -1
                total = total + (1 + (-sign * (logits[words][clip] + bias)).exp()).log()
    return total / CLIPS


def slow_negatives(mixed: list[list[Tensor]], units: Tensor) -> tuple[list[int], list[int]]:
    """The negative clip of each caption and the negative caption of each clip."""
    wrong = [[a != b and (a, b) not in excused_pairs() for b in range(CLIPS)] for a in range(CLIPS)]

    def draw(one: int, scores: list[Tensor], unit: float) -> int:
        odds = [score.exp().item() for score in scores]
        return pick([odd if free else 0.0 for odd, free in zip(odds, wrong[one], strict=True)], unit)

    return (
        [draw(one, mixed[one], units[one, 0].item()) for one in range(CLIPS)],
        [draw(one, [line[one] for line in mixed], units[one, 1].item()) for one in range(CLIPS)],
    )


def _slow_matching(
    task: Task, video: VideoFeatures, text: TextFeatures, mixed: list[list[Tensor]], identity: Identity
) -> Tensor:
    clips, words = slow_negatives(mixed, identity.units)
    total = torch.zeros((), dtype=torch.float64)
    for one in range(CLIPS):
        for clip, caption, sign in ((one, one, 1), (clips[one], one, -1), (one, words[one], -1)):
            score = task.model.rerank(_row(video, clip), _row(text, caption)).reshape(())
            total = total + (1 + (-sign * score).exp()).log()
    return total / (3 * CLIPS)


def _slow_distillation(task: Task, video: VideoFeatures, text: TextFeatures, mixed: list[list[Tensor]]) -> Tensor:
    """Each caption among its nearest clips and each clip among its nearest captions: 1 less the correlation of shares."""
    total = torch.zeros((), dtype=torch.float64)
    for one in range(CLIPS):
        for scores, pair in (
            ([mixed[one][clip] for clip in range(CLIPS)], lambda clip, one=one: (clip, one)),
            ([mixed[words][one] for words in range(CLIPS)], lambda words, one=one: (one, words)),
        ):
            others = [other for other in range(CLIPS) if other != one and (one, other) not in excused_pairs()]
            others.sort(key=lambda other, scores=scores: -scores[other].item())
            chosen = [one, *others[: task.settings.candidates - 1]]
            taught = []
            for other in chosen:
                clip, words = pair(other)
                taught.append(task.model.rerank(_row(video, clip), _row(text, words)).item())
            shares = torch.stack([scores[other] for other in chosen]).softmax(dim=0)
            right = torch.tensor(taught, dtype=torch.float64).softmax(dim=0)
            total = total + 1 - torch.corrcoef(torch.stack([shares, right]))[0, 1]
    return total / (2 * CLIPS)


def _row(features: Any, row: int) -> Any:
    return pick_rows(features, slice(row, row + 1))


def gradients_of(task: nn.Module) -> dict[str, Tensor]:
    """Of every weight that has one."""
    return {name: one.grad for name, one in task.named_parameters() if one.requires_grad and one.grad is not None}


def slow_gradients(case: str) -> tuple[float, dict[str, Tensor]]:
    """The loss, and the gradient of every weight that is trained."""
    task = build_task(case)
    loss = slow_loss(task, whole_batch())
    loss.backward()
    found = gradients_of(task)
    assert found.keys() == {name for name, one in task.named_parameters() if one.requires_grad}
    return loss.item(), found


def worst_error(found: dict[str, Tensor], right: dict[str, Tensor]) -> tuple[float, str]:
    """The largest relative error of a weight's gradient, and its name.

    Where the true gradient is nothing but rounding (a bias that moves all logits alike), 1e-7 of the whole gradient's length
    stands for its own.
    """
    assert found.keys() == right.keys(), found.keys() ^ right.keys()
    floor = 1e-7 * torch.stack([one.norm() for one in right.values()]).norm().item()
    errors = {name: (found[name] - one).norm().item() / max(one.norm().item(), floor) for name, one in right.items()}
    worst = max(errors, key=lambda name: errors[name])
    return errors[worst], worst


@contextmanager
def logits_at_once(count: int) -> Iterator[None]:
    """Within it, a loss has no more than so many at once, as it has of a large batch."""
    usual = objective._NUMBERS
    objective._NUMBERS = count
    try:
        yield
    finally:
        objective._NUMBERS = usual


def run_ranks(home: Path, ranks: int) -> dict[str, dict[str, Any]]:
    """All cases with so many processes over gloo. By `CASE, chunk N`: the loss, and of each rank the worst error."""
    said = torchrun(MODULE, [str(home)], ranks, timeout=280)
    assert said.returncode == 0, said.stderr[-4000:]
    told = [json.loads((home / f"{ranks}-{rank}.json").read_text()) for rank in range(ranks)]
    return {
        name: {
            "loss": sum(one[name]["loss"] for one in told) / ranks,
            "error": max((one[name]["error"], one[name]["worst"]) for one in told),
            "reductions": [one[name]["reductions"] for one in told],
            "drew": any(one[name]["drew"] for one in told),
        }
        for name in told[0]
    }


def _measure(home: Path, case: str, rank: int, ranks: int, chunk: int) -> dict[str, Any]:
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
    from torch.nn.parallel import DistributedDataParallel

    wrapped = DistributedDataParallel(build_task(case), bucket_cap_mb=1)  # several buckets
    reductions = []

    def counted(state, bucket):  # type: ignore[no-untyped-def]  # DDP reads annotations, and has its own
        reductions.append(bucket.index())
        return allreduce_hook(state, bucket)

    wrapped.register_comm_hook(None, counted)
    before = torch.get_rng_state()
    with logits_at_once(20 if chunk else 1 << 26):
        losses = backpropagate(wrapped, share_of(whole_batch(), rank, ranks), micro_batch=chunk)
    drew = not torch.equal(torch.get_rng_state(), before)
    right = torch.load(home / f"{case}.pt", weights_only=True, mmap=True)
    error, worst = worst_error(gradients_of(wrapped.module), right)
    return {"loss": losses.total.item(), "error": error, "worst": worst, "reductions": reductions, "drew": drew}


if __name__ == "__main__":
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    _home, _rank, _ranks = Path(sys.argv[1]), dist.get_rank(), dist.get_world_size()
    _told = {
        f"{_case}, chunk {_chunk}": _measure(_home, _case, _rank, _ranks, _chunk)
        for _case in CASES
        for _chunk in (0, 3 if _ranks < 4 else 1)
    }
    (_home / f"{_ranks}-{_rank}.json").write_text(json.dumps(_told))
    dist.destroy_process_group()
