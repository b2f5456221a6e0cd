"""The re-ranker: every word asks of every frame, padding is not seen, and many pairs at once score as one by one.

tests/promises/test_training_1_gradients.py has the gradients of what it is trained by, and of what it teaches.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from stillreel.configs import DataError, RequestError
from stillreel.configs.system.storage import Folder
from stillreel.configs.train import ObjectiveSettings, OptimizerSettings
from stillreel.pretrain.engine.accumulation import backpropagate
from stillreel.pretrain.engine.optimizer import build_optimizer
from stillreel.pretrain.model import VideoTextModel, load_model, save_model
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures, pick_rows
from stillreel.pretrain.model.rerank import cut_padding
from stillreel.pretrain.objectives import Batch, Task, identify
from stillreel.pretrain.objectives.distillation import nearest, pearson_distance
from stillreel.pretrain.objectives.identity import Truth
from tests.pretrain.zoo import RERANKERS, captions, inputs, mask_of, shaken, tiny

LENGTHS, FRAMES = [9, 4, 6, 5], [5, 3, 1, 4]


@cache
@torch.no_grad()
def encoded(kind: str, clips: int = 4) -> tuple[VideoTextModel, VideoFeatures, TextFeatures]:
    """Padded clips and captions."""
    model, seen = shaken(kind), inputs(clips)
    lengths, counts = (([*some] * clips)[:clips] for some in (LENGTHS, FRAMES))
    return model, model.encode_video(seen.frames, mask_of(counts, 5)), model.encode_text(captions(lengths, 9))


@torch.no_grad()
def one_by_one(model: VideoTextModel, video: VideoFeatures, text: TextFeatures) -> Tensor:
    """Logits (A, B), each of a pair by itself, without its padding."""

    def clip(row: int) -> VideoFeatures:
        alone, count = pick_rows(video, slice(row, row + 1)), int(video.mask[row].sum())
        patches = None if alone.patches is None else alone.patches[:, :count]
        return alone._replace(frames=alone.frames[:, :count], mask=alone.mask[:, :count], patches=patches)

    def caption(row: int) -> TextFeatures:
        return cut_padding(pick_rows(text, slice(row, row + 1)))

    rows, columns = range(len(text.mask)), range(len(video.mask))
    return torch.stack([torch.cat([model.rerank(clip(b), caption(a)) for b in columns]) for a in rows])


@pytest.mark.parametrize("kind", RERANKERS)
def test_padded_and_cut_inputs_give_the_same_logit(kind: str) -> None:
    model, video, text = encoded(kind)
    logits = model.rerank(video, text)
    assert logits.shape == (4,)
    assert torch.allclose(logits, one_by_one(model, video, text).diagonal(), atol=1e-5)
    assert (logits - logits.mean()).abs().min() > 1e-3  # pairs differ by far more


@pytest.mark.parametrize("kind", RERANKERS)
def test_what_padding_holds_changes_no_bit(kind: str) -> None:
    model, video, text = encoded(kind)
    other_video = video._replace(
        frames=torch.where(video.mask[..., None], video.frames, 100.0),
        patches=None if video.patches is None else torch.where(video.mask[..., None, None], video.patches, 100.0),
    )
    other_text = text._replace(tokens=torch.where(text.mask[..., None], text.tokens, -100.0))
    assert torch.equal(model.rerank(other_video, other_text), model.rerank(video, text))


@pytest.mark.parametrize("kind", RERANKERS)
def test_every_word_and_frame_and_patch_is_heard_and_no_padding(kind: str) -> None:
    model, video, text = encoded(kind)
    leaves = {"frames": video.frames, "tokens": text.tokens}
    if video.patches is not None:
        leaves["patches"] = video.patches
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()}
    of_video = {name: leaf for name, leaf in leaves.items() if name != "tokens"}
    model.rerank(video._replace(**of_video), text._replace(tokens=leaves["tokens"])).sum().backward()
    for name, leaf in leaves.items():
        mask = text.mask if name == "tokens" else video.mask
        heard = leaf.grad.abs().amax(dim=-1)
        heard = heard.amin(dim=-1) if name == "patches" else heard
        assert torch.equal(heard > 0, mask), name


def test_the_order_of_frames_and_of_words_is_known() -> None:
    model, video, text = encoded("rerank")
    logits = model.rerank(video, text)
    turned = video._replace(frames=video.frames.flip(1), mask=video.mask.flip(1))
    assert (model.rerank(turned, text) - logits).abs().min() > 1e-4
    swapped = text.tokens[:, [0, 2, 1, *range(3, 9)]]
    assert (model.rerank(video, text._replace(tokens=swapped)) - logits).abs().min() > 1e-5


@pytest.mark.parametrize("kind", RERANKERS)
def test_candidates_score_as_one_by_one(kind: str) -> None:
    model, video, text = encoded(kind, clips=7)
    expected = one_by_one(model, video, text)
    clips = torch.tensor([[3, 0, 3], [1, 1, 1], [6, 5, 4], [0, 2, 1], [6, 6, 0], [2, 3, 4], [5, 0, 6]])
    with torch.no_grad():
        read = model.reranker.read(video)
        for store in (video, read):
            for pairs in (1, 2, 4, 64):
                logits = model.reranker.candidates(store, text, clips, pairs=pairs)
                assert torch.allclose(logits, expected.gather(1, clips), atol=1e-5)
            assert torch.allclose(model.reranker.every(store, text, pairs=5), expected, atol=1e-5)


@cache
def all_of_five() -> Tensor:
    return one_by_one(*encoded("rerank, patches", clips=5))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_candidates_of_any_captions_score_as_one_by_one(data: st.DataObject) -> None:
    model, video, text = encoded("rerank, patches", clips=5)
    every = all_of_five()
    asked = data.draw(st.lists(st.integers(0, 4), max_size=4))
    width = data.draw(st.integers(0, 6))
    drawn = [data.draw(st.lists(st.integers(0, 4), min_size=width, max_size=width)) for _ in asked]
    clips = torch.tensor(drawn, dtype=torch.int64).reshape(len(asked), width)
    with torch.no_grad():
        some = pick_rows(text, torch.tensor(asked, dtype=torch.int64))
        logits = model.reranker.candidates(video, some, clips, pairs=data.draw(st.integers(1, 9)))
    expected = every[asked].gather(1, clips) if clips.numel() else torch.zeros(clips.shape)
    assert logits.shape == clips.shape
    assert torch.allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["rerank", "rerank, patches"])
def test_a_fine_score_is_of_every_pair(kind: str) -> None:
    model, video, text = encoded(kind)
    seen, ids = inputs(4), captions(LENGTHS, 9)
    for chunk in (64, 3):
        fine = model.score(seen.frames, mask_of(FRAMES, 5), ids, None, fine=True, chunk=chunk)
        assert torch.allclose(fine, one_by_one(model, video, text), atol=1e-5)
    assert not torch.allclose(fine, model.score(seen.frames, mask_of(FRAMES, 5), ids, None), atol=1e-2)


def test_patches_are_means_over_a_grid_of_the_towers_own() -> None:
    seen = inputs(2)
    whole, quarters, one = (shaken("seq", rerank=FrozenSettings(layers=1, grid=side)) for side in (4, 2, 1))
    with torch.no_grad():
        fine, coarse, mean = (model.encode_video(seen.frames).patches for model in (whole, quarters, one))
        visual = whole.clip.visual
        visual.output_tokens = True
        _, tokens = visual(seen.frames.flatten(0, 1))
        visual.output_tokens = False
    assert fine.shape == (2, 5, 16, 64) and coarse.shape == (2, 5, 4, 64)
    assert torch.allclose(fine.flatten(0, 1), tokens @ visual.proj, atol=1e-4)
    corner = fine.unflatten(2, (4, 4))[:, :, 2:, :2].flatten(2, 3).mean(dim=2)
    assert torch.allclose(coarse[:, :, 2], corner, atol=1e-4)
    assert torch.allclose(mean[:, :, 0], fine.mean(dim=2), atol=1e-4)


class FrozenSettings(dict[str, int]):
    """Settings that a cache can hold."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def test_a_fresh_one_starts_from_the_text_towers_blocks() -> None:
    model = tiny("mean", rerank={"layers": 5, "grid": 2})
    reranker, text = model.reranker, model.clip.transformer.resblocks
    for block, source in zip(reranker.blocks, text, strict=False):
        for name, tensor in block.state_dict().items():
            assert torch.equal(tensor, source.state_dict()[name]), name
    assert reranker.blocks[4].mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.1)  # beyond the tower's four
    assert torch.equal(reranker.positions, model.clip.positional_embedding)
    assert reranker.types.std().item() == pytest.approx(0.02, rel=0.3)
    seen = inputs()
    assert model.score(*seen, fine=True).abs().max() < 1  # undecided


@pytest.mark.parametrize("kind", ["rerank", "rerank, patches"])
def test_files_carry_it_strictly(kind: str, tmp_path: Path) -> None:
    model = shaken(kind)
    save_model(model, Folder(str(tmp_path / "model")), {})
    again = load_model(tmp_path / "model")
    assert torch.equal(again.score(*inputs(), fine=True), model.score(*inputs(), fine=True))
    weights = tmp_path / "model" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["reranker.score.bias"]
    save_file(tensors, weights)
    with pytest.raises(DataError, match=r"1 missing: reranker\.score\.bias"):
        load_model(tmp_path / "model")


def test_a_model_saved_before_there_were_re_rankers_loads_without_one(tmp_path: Path) -> None:
    model = shaken("seq")
    save_model(model, Folder(str(tmp_path / "model")), {})
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    del config["model"]["rerank"]
    path.write_text(json.dumps(config))
    again = load_model(tmp_path / "model")
    assert again.reranker is None
    assert torch.equal(again.score(*inputs()), model.score(*inputs()))


@pytest.mark.parametrize("kind", ["rerank", pytest.param("rerank, patches", marks=pytest.mark.slow)])
def test_no_block_breaks_the_graph(kind: str) -> None:
    torch.compiler.reset()
    model, video, text = encoded(kind)
    model = copy.deepcopy(model)
    expected = model.rerank(video, text)
    for block in model.reranker.blocks:
        block.compile(backend="aot_eager", fullgraph=True)
    logits = model.rerank(video, text)
    assert torch.allclose(logits, expected, atol=1e-4)
    logits.sum().backward()
    torch.compiler.reset()


# In training


def batch_of(clips: int = 4, step: int = 0) -> Batch:
    names = [f"number {clip}" for clip in range(clips)]
    return Batch(*inputs(clips=clips, frames=3), identify(names, names, names, seed=0, step=step))


def task_of(kind: str, rate: float, autocast: torch.dtype | None = None, **asked: Any) -> tuple[Task, Any]:
    """A task, and its optimizer: towers at this rate, all else faster."""
    task = Task(copy.deepcopy(shaken(kind)), ObjectiveSettings(**asked), autocast=autocast)
    return task, build_optimizer(task, OptimizerSettings(lr=rate, lr_new=1e-3))


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("chunk", [0, 3])
@pytest.mark.parametrize(
    ("kind", "rate", "asked"),
    [
        ("rerank, patches", 1e-4, {}),
        ("rerank, patches", 1e-4, {"matching": 1}),
        ("rerank", 0, {"matching": 1}),
        ("rerank, patches", 0, {"matching": 1, "distill": 1}),
        ("rerank", 1e-4, {"distill": 1}),
    ],
)
def test_ddp_waits_for_no_gradient(kind: str, rate: float, asked: dict[str, int], chunk: int) -> None:
    """It complains in the step after the one in which a weight got none."""
    task, optimizer = task_of(kind, rate, **asked)
    wrapped = DistributedDataParallel(task)
    for _ in range(2):
        optimizer.zero_grad()
        backpropagate(wrapped, batch_of(), micro_batch=chunk)
        assert [name for name, one in task.named_parameters() if one.requires_grad != (one.grad is not None)] == []
        optimizer.step()
    assert any(name.startswith("model.reranker.") and one.requires_grad for name, one in task.named_parameters()) == (
        "matching" in asked
    )


@pytest.mark.parametrize("kind", ["rerank", "rerank, patches"])
def test_on_frozen_towers_it_learns_which_pairs_match(kind: str) -> None:
    task, optimizer = task_of(kind, 0, matching=1)
    before = {name: tensor.clone() for name, tensor in task.model.clip.state_dict().items()}
    batch, losses = batch_of(), []
    with torch.no_grad():  # so that all wrong pairs are drawn alike
        task.model.clip.logit_scale.fill_(0)
        before["logit_scale"].fill_(0)
    for step in range(60):
        optimizer.zero_grad()
        losses.append(backpropagate(task, batch_of(step=step)).parts["matching"].item())
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0], losses
    fine = task.model.score(batch.frames, None, batch.token_ids, None, fine=True)
    assert torch.equal(fine.argmax(dim=1), torch.arange(4)) and torch.equal(fine.argmax(dim=0), torch.arange(4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.model.clip.state_dict().items())


def test_in_bf16_its_logits_are_in_fp32() -> None:
    exact, rough = (
        backpropagate(task_of("rerank", 1e-4, autocast, matching=1, distill=1)[0], batch_of())
        for autocast in (None, torch.bfloat16)
    )
    for name in ("matching", "distill"):
        assert rough.parts[name].dtype == torch.float32
        assert rough.parts[name].item() != exact.parts[name].item()
        assert rough.parts[name].item() == pytest.approx(exact.parts[name].item(), rel=0.1, abs=0.02)


def test_the_coarse_model_learns_the_order_of_the_re_ranker() -> None:
    """Of a teacher that is left as it is."""
    task, optimizer = task_of("rerank", 1e-4, infonce=1e-6, distill=1)
    before = copy.deepcopy(task.model.reranker.state_dict())
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(backpropagate(task, batch_of(6)).parts["distill"].item())
        optimizer.step()
    assert losses[0] > 0.3 and losses[-1] < 0.3 * losses[0], losses
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.model.reranker.state_dict().items())


def test_pearsons_distance_is_between_nought_and_two_and_knows_no_scale() -> None:
    there = torch.ones(1, 4, dtype=torch.bool)
    taught = torch.tensor([[3.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
    assert pearson_distance(taught + 5, taught, there).item() == pytest.approx(0, abs=1e-6)
    shares = taught.softmax(dim=1)
    assert pearson_distance((0.3 * shares + 0.175).log(), taught, there).item() == pytest.approx(0, abs=1e-6)
    assert pearson_distance((1 - shares).log(), taught, there).item() == pytest.approx(2, abs=1e-6)
    level = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    distance = pearson_distance(level, taught, there)
    distance.backward()
    assert distance.item() == pytest.approx(1) and level.grad.isfinite().all()


def test_excused_candidates_are_not_compared() -> None:
    logits = torch.tensor([[9.0, 1.0, 5.0, 4.0], [0.0, 3.0, 2.0, 8.0]], dtype=torch.float64)
    excused = torch.tensor([[False, False, True, True], [False, False, False, False]])
    truth = Truth(torch.tensor([1, 0]), excused)
    columns = nearest(logits, truth, 3)
    assert columns[0, :2].tolist() == [1, 0] and columns[1].tolist() == [0, 3, 1]
    there = ~excused.gather(1, columns)
    other = logits.clone()
    other[0, 2:] = -50
    taught = torch.randn(2, 3, dtype=torch.float64)
    assert torch.equal(
        pearson_distance(logits.gather(1, columns), taught, there),
        pearson_distance(other.gather(1, columns), taught, there),
    )


# What cannot be had


@pytest.mark.parametrize("values", [{"grid": 2}, {"layers": -1}, {"layers": 2, "grid": 5}])
def test_settings_that_do_not_fit_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(RequestError, match=r"rerank\.(grid|layers)"):
        tiny("mean", rerank=values)


def test_without_one_nothing_is_re_ranked() -> None:
    model, seen = tiny(), inputs()
    with pytest.raises(RequestError, match=r"this model has no re-ranker; .* rerank\.layers=4"):
        model.score(*seen, fine=True)
    with pytest.raises(RequestError, match="no re-ranker"):
        model.rerank(model.encode_video(seen.frames), model.encode_text(seen.token_ids))


def test_a_clip_that_is_too_long_is_refused() -> None:
    model = shaken("rerank")
    with pytest.raises(RequestError, match=r"a clip of 78 frames is too long: the re-ranker has 77 positions"):
        model.reranker.read(model.encode_video(torch.zeros(1, 78, 3, 64, 64)))
