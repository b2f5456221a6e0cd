"""Draws are uniform, independent between samples, steps, modules and elements, and the same wherever they are computed."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from open_clip.transformer import PatchDropout as TowersOwn
from torch import Tensor

from stillreel.configs import RequestError
from stillreel.configs.train import ObjectiveSettings
from stillreel.pretrain.model.dropout import Drawing, Dropout, DropPath, PatchDropout, pair_draws, places_kept
from stillreel.pretrain.objectives import Task, identify
from tests.pretrain.test_objectives import batch_of
from tests.pretrain.zoo import ZOO, inputs, shaken, tiny

SAMPLES, ELEMENTS = 512, 2048
CPU = torch.device("cpu")


def drawing(number: int) -> Drawing:
    module = Drawing()
    module.number = number
    return module


def draws_of(count: int, step: int = 0, seed: int = 0) -> Tensor:
    keys = [f"clip_{number:09d}" for number in range(count)]
    return identify(keys, keys, keys, seed=seed, step=step).draws


def words(number: int = 77, step: int = 0, samples: int = SAMPLES) -> Tensor:
    return drawing(number).words(draws_of(samples, step), samples, ELEMENTS, CPU)


def units(drawn: Tensor) -> Tensor:
    return drawn.double() / 2**32


def chi_square(counts: Tensor) -> float:
    """In deviations from its mean: near 0 for uniform counts, within 4 by all odds."""
    expected, freedom = counts.sum() / counts.numel(), counts.numel() - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5)


def test_draws_are_words_of_32_bits_and_uniform() -> None:
    drawn = words()
    assert drawn.shape == (SAMPLES, ELEMENTS) and drawn.min() >= 0 and drawn.max() < 2**32
    for part in (drawn >> 24, drawn & 0xFF, (drawn >> 12) & 0xFF):  # the high, the low and the middle bits
        assert abs(chi_square(torch.bincount(part.flatten(), minlength=256).double())) < 4
    assert len(drawn.unique()) > 0.999 * drawn.numel()  # of a million in four thousand million, 128 meet by chance


def test_means_of_samples_and_of_elements_scatter_as_means_of_free_draws() -> None:
    for axis, count in ((1, ELEMENTS), (0, SAMPLES)):
        means = (units(words()).mean(dim=axis) - 0.5) * (12 * count) ** 0.5  # standard normal
        assert abs(means.mean()) < 4 / len(means) ** 0.5
        assert means.std() == pytest.approx(1, abs=4 / (2 * len(means)) ** 0.5)


def test_samples_steps_seeds_modules_and_elements_do_not_know_of_each_other() -> None:
    one = units(words())
    seeded = drawing(77).words(draws_of(SAMPLES, seed=1), SAMPLES, ELEMENTS, CPU)
    others = {
        "the next sample": one.roll(1, dims=0),
        "the next element": one.roll(1, dims=1),
        "the next step": units(words(step=1)),
        "the next module": units(words(number=78)),
        "the next seed": units(seeded),
    }
    for name, other in others.items():
        both = (one * 16).long() * 16 + (other * 16).long()
        assert abs(chi_square(torch.bincount(both.flatten(), minlength=256).double())) < 4, name
        assert abs(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) < 4 / one.numel() ** 0.5, name


def test_a_bit_of_the_draws_or_of_the_number_changes_half_of_the_bits_drawn() -> None:
    draws, module = draws_of(64), drawing(77)
    before = module.words(draws, 64, 256, CPU)
    flipped = [module.words(draws ^ (1 << bit if bit < 63 else -(1 << 63)), 64, 256, CPU) for bit in range(64)]
    flipped += [drawing(77 ^ (1 << bit)).words(draws, 64, 256, CPU) for bit in range(32)]
    for bit, after in enumerate(flipped):
        changed = ((before ^ after)[..., None] >> torch.arange(32)) & 1
        assert (changed.double().mean(dim=(0, 1)) - 0.5).abs().max() < 0.06, bit  # of each bit drawn


def test_pairs_draw_by_both_of_their_sides() -> None:
    pairs = pair_draws(draws_of(40), draws_of(50, step=1))
    assert pairs is not None and len(pairs.unique()) == 2000
    part = pair_draws(draws_of(40)[3:5], draws_of(50, step=1)[7:9])
    assert torch.equal(part, pairs[3:5, 7:9])
    same = draws_of(30)
    assert (pair_draws(same, same) != pair_draws(same, same).T).sum() == 30 * 29
    assert pair_draws(None, same) is None


def test_numbers_are_fixed_when_a_model_is_built_and_differ() -> None:
    numbers = {name: one.number for name, one in tiny("stan").named_modules() if isinstance(one, Drawing)}
    assert len(numbers) == 2 * 4 + 1 and len({*numbers.values()}) == len(numbers)
    again = {name: one.number for name, one in tiny("stan").named_modules() if isinstance(one, Drawing)}
    assert again == numbers
    assert tiny("tight").patch_dropout.number == numbers["patch_dropout"]  # other modules change none


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_and_drop_path_keep_the_mean_and_leave_out_their_share(rate: float) -> None:
    values, draws = torch.ones(SAMPLES, 4, 64), draws_of(SAMPLES)
    dropped, branch = Dropout(rate).train()(values, draws), DropPath(rate).train()(values.repeat(8, 1, 1), draws)
    for found in (dropped, branch[:, 0, 0]):
        assert found.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
        share = (found == 0).double().mean().item()
        assert share == pytest.approx(rate, abs=4 * (rate * (1 - rate) / found.numel()) ** 0.5)
    assert torch.equal(branch, branch[:, :1, :1].expand_as(branch))  # whole sequences
    assert torch.equal(Dropout(rate).eval()(values, draws), values)


def test_patch_dropout_is_even_over_places_and_pairs_of_places() -> None:
    module = PatchDropout().train()
    module.rate = 0.5
    clips = 4000
    places = module(draws_of(clips), clips, 16, CPU)
    assert places is not None and places.shape == (clips, 8) and (places.diff(dim=1) > 0).all()
    seen = torch.zeros(clips, 16).scatter_(1, places, 1)
    assert seen.mean(dim=0).tolist() == pytest.approx([0.5] * 16, abs=0.04)
    together = (seen.T @ seen / clips)[~torch.eye(16, dtype=torch.bool)]
    assert together.tolist() == pytest.approx([0.5 * 7 / 15] * 240, abs=0.04)
    assert [places_kept(49, rate) for rate in (0.0, 0.5, 0.99)] == [49, 24, 1]
    assert module.eval()(draws_of(2), 2, 16, CPU) is None


@pytest.mark.parametrize("kind", ["mean", "3d", "clip2video", "stan"])
def test_patches_that_are_left_out_are_not_seen_in_any_frame(kind: str) -> None:
    model = copy.deepcopy(shaken(kind))
    model.drop_patches(0.75)
    given, draws = inputs(2), draws_of(2)
    seen = model.train().encode_frames(given.frames, None, draws)
    assert seen.places is not None and seen.places.shape == (2, 4)
    masked = given.frames.clone()
    for clip, places in enumerate(seen.places.tolist()):
        for place in {*range(16)} - {*places}:
            row, column = 16 * (place // 4), 16 * (place % 4)
            masked[clip, :, :, row : row + 16, column : column + 16] = 99
    again = model.encode_video(masked, None, draws)
    assert torch.equal(again.frames, model.encode_video(given.frames, None, draws).frames)


def test_stan_gives_each_kept_patch_the_position_of_its_place() -> None:
    """With all patches kept, but in another order, the branch and the tower give what they gave."""
    model, given = shaken("stan"), inputs(2)
    with torch.no_grad():
        whole = model.encode_frames(given.frames)
        order = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(clip)) for clip in range(2)])
        rows = order[:, None, :, None]
        shuffled = tuple(
            torch.cat([one[:, :, :1], one[:, :, 1:].gather(2, rows.expand(-1, 5, -1, 64))], 2) for one in whole.blocks
        )
        expected = model.temporal(whole)
        found = model.temporal(whole._replace(blocks=shuffled, places=order))
        wrong = model.temporal(whole._replace(blocks=shuffled))
    assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(wrong, expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["stan", "tight"])
def test_without_draws_torch_s_generator_draws_and_evaluation_never(kind: str) -> None:
    model, given = copy.deepcopy(shaken(kind)).train(), inputs()
    model.drop_patches(0.5)
    scores = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        scores.append(model(*given))
    assert torch.equal(scores[0], scores[1]) and not torch.equal(scores[0], scores[2])
    before = torch.get_rng_state()
    assert torch.equal(model.eval()(*given), shaken(kind)(*given))
    assert torch.equal(torch.get_rng_state(), before)


def test_patch_dropout_that_the_towers_bring_does_not_draw() -> None:
    model, given = copy.deepcopy(shaken("mean")).train(), inputs()
    model.clip.visual.patch_dropout = TowersOwn(0.5)
    assert torch.equal(model(*given), shaken("mean")(*given))


def test_patch_dropout_that_cannot_be_is_refused() -> None:
    with pytest.raises(RequestError, match=r"patch_dropout=0.5 leaves holes in the grid that stan.time=conv"):
        Task(tiny("stan, conv"), ObjectiveSettings(patch_dropout=0.5))
    with pytest.raises(RequestError, match=r"patch_dropout=1.0"):
        tiny().drop_patches(1.0)
    with pytest.raises(RequestError, match=r"patch_dropout=1\.5"):
        ObjectiveSettings.resolve({"patch_dropout": "1.5"})


@pytest.mark.parametrize("kind", [kind for kind in ZOO if kind != "stan, conv"])
def test_every_other_model_trains_on_part_of_the_patches(kind: str) -> None:
    task = Task(copy.deepcopy(shaken(kind)), ObjectiveSettings(patch_dropout=0.75)).train()
    batch = batch_of(2)
    loss = task.compare(task(batch), batch.identity).total
    loss.backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in task.parameters() if one.requires_grad)


def test_steps_leave_out_other_patches() -> None:
    module = PatchDropout().train()
    module.rate = 0.5
    taken = [module(draws_of(20, step), 20, 49, CPU) for step in range(4)]
    assert all((one != other).any(dim=1).all() for one, other in pairwise(taken))
    assert torch.equal(module(draws_of(20), 20, 49, CPU), taken[0])


def test_compiled_draws_are_the_same() -> None:
    torch.compiler.reset()
    module, values, draws = Dropout(0.3).train(), torch.rand(6, 5, 8), draws_of(6)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(values, draws), module(values, draws))
    torch.compiler.reset()
