"""What must hold of every model, whatever its weights."""

from __future__ import annotations

import copy
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillreel.configs import RequestError
from stillreel.pretrain.model import ModelSettings
from stillreel.pretrain.model.blocks import key_bias
from stillreel.pretrain.model.features import Frames
from stillreel.pretrain.model.towers import encode_words
from tests.pretrain.zoo import ZOO, captions, inputs, mask_of, shaken, tiny

KINDS = sorted(ZOO)
BLIND = {"mean", "mean, plain", "tab", "mug, attended", "mug, pooled", "mug, weighted"}  # to the order of frames


@pytest.mark.parametrize("kind", KINDS)
def test_what_padding_frames_hold_changes_no_bit_of_a_score(kind: str) -> None:
    model, given = shaken(kind), inputs()
    mask = mask_of([5, 3, 1], 5)
    scores = model.score(given.frames, mask, given.token_ids, None)
    others = torch.where(mask[:, :, None, None, None], given.frames, 100 * torch.randn_like(given.frames))
    assert torch.equal(model.score(others, mask, given.token_ids, None), scores)


@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_clip_scores_as_the_clip_alone(kind: str) -> None:
    model, given = shaken(kind), inputs()
    counts = [5, 3, 1]
    scores = model.score(given.frames, mask_of(counts, 5), given.token_ids, None)
    for clip, count in enumerate(counts):
        alone = model.score(given.frames[clip : clip + 1, :count], None, given.token_ids, None)
        assert torch.allclose(scores[:, clip : clip + 1], alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_the_batch_permutes_the_scores(kind: str) -> None:
    model, given = shaken(kind), inputs(4)
    mask, clips, texts = mask_of([5, 2, 4, 3], 5), torch.tensor([2, 0, 3, 1]), torch.tensor([1, 3, 0, 2])
    scores = model.score(given.frames, mask, given.token_ids, None)
    permuted = model.score(given.frames[clips], mask[clips], given.token_ids[texts], None)
    assert torch.allclose(permuted, scores[texts][:, clips], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_score_as_the_whole(kind: str) -> None:
    model, given = shaken(kind), inputs(5)
    mask = mask_of([5, 2, 4, 3, 1], 5)
    whole = model.score(given.frames, mask, given.token_ids, None)
    assert whole.shape == (5, 5)
    assert torch.allclose(model.score(given.frames, mask, given.token_ids, None, chunk=2), whole, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_only_some_models_know_the_order_of_frames(kind: str) -> None:
    model, given = shaken(kind), inputs()
    change = (model.score(*given) - model.score(given.frames.flip(1), *given[1:])).abs().max()
    assert change < 2e-5 if kind in BLIND else change > 2e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2])
def test_a_clip_may_have_one_frame_or_two(kind: str, count: int) -> None:
    model, given = shaken(kind), inputs(2, frames=count)
    assert model.score(*given).isfinite().all()
    model.loss(model.encode_video(given.frames), model.encode_text(given.token_ids)).backward()


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_that_is_trained_has_a_finite_gradient(kind: str) -> None:
    model, given = shaken(kind), inputs()
    model.loss(model.encode_video(given.frames, mask_of([5, 3, 1], 5)), model.encode_text(given.token_ids)).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.sampled_from(["seq", "clip2video", "stan"]))
def test_padding_is_not_seen_in_any_batch(counts: list[int], kind: str) -> None:
    given = inputs(len(counts), frames=6)
    mask = mask_of(counts, 6)
    model = shaken(kind)
    scores = model.score(given.frames * mask[:, :, None, None, None], mask, given.token_ids, None)
    assert torch.equal(model.score(given.frames, mask, given.token_ids, None), scores)


@pytest.mark.parametrize("words", [5, 20, 32])
def test_short_captions_are_sliced_to_the_bit(words: int) -> None:
    """As open_clip's own tower does whose positions and mask were cut; what a padded caption gives, but for rounding."""
    model, ids = shaken("mean"), captions([5, 4, words], 77)
    cut = copy.deepcopy(model.clip)
    cut.positional_embedding = torch.nn.Parameter(cut.positional_embedding[:words])
    cut.attn_mask = cut.attn_mask[:words, :words]
    with torch.no_grad():
        ours = model.encode_text(ids[:, :words])
        hidden = encode_words(model.clip, ids[:, :words])
        assert torch.equal(
            hidden[torch.arange(3), ids.argmax(dim=1)] @ cut.text_projection, cut.encode_text(ids[:, :words])
        )
        assert torch.allclose(ours.pooled, model.clip.encode_text(ids), atol=1e-5)
        assert torch.allclose(ours.tokens, model.encode_text(ids).tokens[:, :words], atol=1e-5)


def test_frame_features_are_open_clips_own() -> None:
    model, given = shaken("stan"), inputs()
    with torch.no_grad():
        frames = model.encode_frames(given.frames)
        expected = model.clip.encode_image(given.frames.flatten(0, 1)).unflatten(0, (3, 5))
    assert torch.allclose(frames.features, expected, atol=1e-5)
    assert len(frames.blocks) == 4


def test_a_caption_cut_before_its_end_is_read_at_its_last_word() -> None:
    """STAN reads both of these at the start token, which is the same for all captions (`faithful`)."""
    given = inputs(2)
    cut = captions([12, 12], 12, seed=1)[:, :9]
    right, published = shaken("stan"), shaken("stan", faithful="peer")
    ended = cut.clone()
    ended[:, -1] = 49407
    assert torch.equal(right.score(given.frames, None, cut, None), right.score(given.frames, None, ended, None))
    scores = published.score(given.frames, None, cut, None)
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(
        right.score(given.frames, None, cut, None)[0], right.score(given.frames, None, cut, None)[1]
    )


def test_layer_norms_have_clips_epsilon_unless_the_published_one_is_asked_for() -> None:
    def epsilons(**settings: object) -> set[float]:
        model = tiny("clip2video", **settings)
        return {module.eps for module in model.modules() if isinstance(module, torch.nn.LayerNorm)}

    assert epsilons() == {1e-5}
    assert epsilons(faithful="peer") == epsilons(faithful="own_mask") == epsilons(eps=1e-12) == {1e-5, 1e-12}


def test_mug_keeps_a_word_whose_id_is_zero() -> None:
    """Zero is a real token ("!"); the published code takes it for padding."""
    given = inputs(2)
    ids = captions([7, 6], 9)
    ids[0, 3] = 0
    hidden = mask_of([7, 6], 9)
    hidden[0, 3] = False
    right, published = shaken("mug, attended"), shaken("mug, attended", faithful="peer")
    without = right.score(given.frames, None, ids, hidden)
    assert torch.allclose(published.score(given.frames, None, ids, None), without, atol=1e-6)
    assert not torch.allclose(right.score(given.frames, None, ids, None), without, atol=1e-4)


def test_stan_publishes_the_sum_of_both_directions() -> None:
    given = inputs()
    losses = [
        model.loss(model.encode_video(given.frames), model.encode_text(given.token_ids))
        for model in (shaken("stan"), shaken("stan", faithful="peer"))
    ]
    assert losses[1].item() == pytest.approx(2 * losses[0].item())


def test_a_difference_is_not_a_clips_own_when_one_of_its_frames_is_padding() -> None:
    """Published: the first padding frame leaks through the last difference, and the masks of a batch are mixed up."""
    given, mask = inputs(), mask_of([5, 3, 1], 5)
    other = given.frames.clone()
    other[1, 3] += 1  # the first padding frame of the second clip

    def change(faithful: str) -> torch.Tensor:
        model = shaken("clip2video", faithful=faithful)
        return (
            model.score(given.frames, mask, given.token_ids, None) - model.score(other, mask, given.token_ids, None)
        ).abs()

    assert change("no").max() == 0
    leak = change("own_mask").amax(dim=0)
    assert leak[1] > 1e-4 and leak[0] == leak[2] == 0


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.randoms(use_true_random=False))
def test_published_masks_are_repeated_where_they_should_be_interleaved(
    clips: int, heads: int, width: int, random: Random
) -> None:
    mask = torch.tensor([[random.random() < 0.5 for _ in range(width)] for _ in range(clips)])
    right, published = key_bias(mask, heads), key_bias(mask, heads, mixed_up=True)
    rows = mask[:, None, :].expand(clips, width, width)
    for bias, spread in ((right, rows.repeat_interleave(heads, dim=0)), (published, rows.repeat(heads, 1, 1))):
        assert torch.equal(bias.expand(clips, heads, width, width).flatten(0, 1) == 0, spread)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"align": "slow"}, "align=slow needs the positions of temporal=seq or tdb, given mean"),
        ({"align": "slow_tdb", "temporal": "seq"}, "align=slow_tdb needs temporal=tdb, given seq"),
        ({"align": "frames", "head": "mug"}, "align=frames needs head=dot, given mug"),
        ({"temporal": "tsm"}, "temporal=tsm"),
        ({"tempral": "seq"}, "did you mean 'temporal'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, str], expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        ModelSettings.resolve(values)


def test_inputs_that_do_not_fit_are_refused() -> None:
    model, given = tiny("seq"), inputs()
    with pytest.raises(RequestError, match=r"expected normalized floats \(B, T, 3, 64, 64\)"):
        model.score(given.frames[..., :32], None, given.token_ids, None)
    with pytest.raises(RequestError, match="uint8"):
        model.score(given.frames.to(torch.uint8), None, given.token_ids, None)
    with pytest.raises(RequestError, match=r"frame_mask is \(3, 4\); the frames' B and T are \(3, 5\)"):
        model.score(given.frames, mask_of([4, 4, 4], 4), given.token_ids, None)
    with pytest.raises(RequestError, match="W up to 77"):
        model.score(given.frames, None, captions([5], 78), None)
    with pytest.raises(RequestError, match=r"a clip of 78 frames is too long: this model has 77 positions"):
        model.encode_video(torch.zeros(1, 78, 3, 64, 64))
    with pytest.raises(RequestError, match=r"a clip of 65 frames is too long: this model's stan.frames is 64"):
        tiny("stan").encode_video(torch.zeros(1, 65, 3, 64, 64))
    with pytest.raises(RequestError, match=r"stan.depth=9: the image tower has only 4 blocks"):
        tiny("stan", stan={"depth": 9})


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_in_double_precision_scores_in_it(kind: str) -> None:
    model, given = shaken(kind), inputs()
    double = copy.deepcopy(model).double().score(given.frames.double(), None, given.token_ids, None)
    assert double.dtype == torch.float64
    assert torch.allclose(double.float(), model.score(*given), atol=2e-5, rtol=1e-5)


def test_scoring_leaves_the_model_in_the_mode_in_which_it_was() -> None:
    model = tiny("stan").train()
    first, second = (model.score(*inputs()) for _ in range(2))
    assert model.training and torch.equal(first, second)


def test_an_lstm_computes_in_fp32_under_autocast() -> None:
    """In half precision cuDNN's is of fp16, whatever type is asked for: its gradients vanish without a scaler."""
    module, generator = copy.deepcopy(shaken("lstm").temporal), torch.Generator().manual_seed(0)
    features = torch.randn(3, 5, 64, generator=generator).bfloat16()
    mask = mask_of([5, 3, 1], 5)
    visual = shaken("lstm").clip.visual
    with torch.autocast("cpu", torch.bfloat16):
        told = module(Frames(features, mask, (), visual, None, None))
    assert torch.equal(told, module(Frames(features.float(), mask, (), visual, None, None)))
    assert told.dtype == torch.float32
    told.sum().backward()
    assert all(one.grad is not None and one.grad.dtype == torch.float32 for one in module.parameters())
