"""What a sample of the stream becomes: of every store, by its own recipe or a new one, in frames or for the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stillreel.animate import SampleDecoder
from stillreel.animate.render.device import render_stills
from stillreel.configs import DataError, RequestError
from stillreel.pretrain.data import ClipBatch, ClipLoader, Share, View, view_at
from stillreel.pretrain.data.identity import identify
from stillreel.pretrain.engine.prefetcher import DevicePrefetcher
from stillreel.shards import as_webdataset
from stillreel.shards.stream.stream import open_blend
from tests.making import animate, picture_folder
from tests.streaming import digest_of, read_steps, settings_of, write_set


def first_epoch(data: Path, batch: int = 5, **values: object) -> list[ClipBatch]:
    blend = open_blend(str(data))
    return list(ClipLoader(blend, settings_of(**values), Share(batch), steps=blend.corpora[0].samples // batch))


def clips_of(batches: list[ClipBatch]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for batch in batches:
        assert batch.frames is not None
        found |= {key: batch.frames[at].numpy() for at, key in enumerate(batch.keys)}
    return found


@pytest.mark.parametrize("store", ["recipe", "frames", "video"])
def test_frames_are_those_of_the_sample_decoder(store: str, built: dict[str, Path]) -> None:
    batches = first_epoch(built[store], frames=5, size=64)
    found = clips_of(batches)
    captions = {key: caption for batch in batches for key, caption in zip(batch.keys, batch.captions, strict=True)}
    clips = list(as_webdataset(str(built[store]), SampleDecoder(5, 64)))
    assert len(clips) == len(found) == 25
    for clip in clips:
        assert np.array_equal(found[clip.key], clip.frames)
        assert captions[clip.key] == clip.caption


def test_device_renders_the_same_frames(built: dict[str, Path]) -> None:
    here = clips_of(first_epoch(built["recipe"], frames=5, size=64))
    for batch in first_epoch(built["recipe"], frames=5, size=64, render="device"):
        assert batch.frames is None and batch.stills is not None
        frames = render_stills(batch.stills, "cpu")
        expected = torch.from_numpy(np.stack([here[key] for key in batch.keys]))
        # The device's own tests say how closely it agrees; here it must be the right clip.
        assert (frames.int() - expected.int()).abs().float().mean() < 0.5


def test_what_a_model_reads_is_the_same_wherever_it_is_rendered(built: dict[str, Path]) -> None:
    seen = {}
    for render in ("loader", "device"):
        rules = settings_of(frames=5, size=64, render=render, context_length=8)
        loader = ClipLoader(open_blend(str(built["recipe"])), rules, Share(5), steps=1, workers=1)
        (seen[render],) = DevicePrefetcher(loader, torch.device("cpu"), dtype=torch.float32)
    here, there = (one.batch for one in seen.values())
    assert here.frames.shape == there.frames.shape == (5, 5, 3, 64, 64)
    # A level of color is about 0.015.
    assert (here.frames - there.frames).abs().mean() < 0.5 * 0.015
    assert all(torch.equal(mine, other) for mine, other in zip(here.identity, there.identity, strict=True))


def test_a_worker_tells_who_is_who(built: dict[str, Path]) -> None:
    blend = open_blend(str(built["frames"]))
    rules = settings_of(frames=5, size=64, seed=3)
    for batch in ClipLoader(blend, rules, Share(5), steps=2, workers=1):
        expected = identify(batch.keys, batch.captions, batch.sources, seed=3, step=batch.step)
        assert all(torch.equal(mine, one) for mine, one in zip(batch.identity, expected, strict=True))


def test_recipes_are_fresh_every_epoch_and_the_same_for_every_layout(built: dict[str, Path]) -> None:
    rules = settings_of(fresh=True, frames=3)
    found, _ = read_steps(built["recipe"], rules, batch=5, steps=10)
    epochs = [{clip.split()[0]: clip for step in found[begin : begin + 5] for clip in step} for begin in (0, 5)]
    assert epochs[0].keys() == epochs[1].keys()
    assert sum(epochs[0][key] == epochs[1][key] for key in epochs[0]) == 0
    assert read_steps(built["recipe"], rules, batch=5, steps=10, workers=2)[0] == found
    stored, _ = read_steps(built["recipe"], settings_of(frames=3), batch=5, steps=10)
    kept = [{clip.split()[0]: clip for step in stored[begin : begin + 5] for clip in step} for begin in (0, 5)]
    assert kept[0] == kept[1]


def test_a_grammar_that_is_asked_for_is_the_build_s_own_with_its_seed(stills: Path, tmp_path: Path) -> None:
    """Drawn here by (seed, source key, grammar): what a build with that grammar and seed would have drawn."""
    assert animate(stills, tmp_path / "film", grammar="film", seed=7) == 0
    assert animate(stills, tmp_path / "zoom", grammar="zoom", seed=7) == 0
    asked = first_epoch(tmp_path / "film", grammar="zoom", seed=7)
    built_so = first_epoch(tmp_path / "zoom", seed=7)
    assert {line for batch in asked for line in digest_of(batch)} == {
        line for batch in built_so for line in digest_of(batch)
    }


def test_fresh_recipes_follow_the_build_s_own_grammar_file(stills: Path, tmp_path: Path) -> None:
    grammar = tmp_path / "mine.yaml"
    grammar.write_text("kind: jump\nscale: [0.4, 0.6]\n")
    assert animate(stills, tmp_path / "out", grammar=str(grammar)) == 0
    grammar.unlink()  # its contents stand in the plan
    assert len(clips_of(first_epoch(tmp_path / "out", fresh=True))) == 25


def test_curriculum_changes_the_view_at_a_step(built: dict[str, Path]) -> None:
    changes = {"2": {"frames": "4"}, "4": {"size": "48", "grammar": "still"}}
    rules = settings_of(frames=1, size=32, curriculum=changes)
    assert [view_at(rules, step) for step in (0, 1, 2, 3, 4, 99)] == [
        View("", 1, 32),
        View("", 1, 32),
        View("", 4, 32),
        View("", 4, 32),
        View("still", 4, 48),
        View("still", 4, 48),
    ]
    blend = open_blend(str(built["recipe"]))
    state = blend.start(rules.order(), 1, 5)
    shapes = [tuple(batch.frames.shape) for batch in ClipLoader(blend, rules, Share(5), state=state, steps=4)]
    assert shapes == [(5, 1, 32, 32, 3), (5, 4, 32, 32, 3), (5, 4, 32, 32, 3), (5, 4, 48, 48, 3)]
    whole, _ = read_steps(built["recipe"], rules, batch=5, steps=6)
    first, state = read_steps(built["recipe"], rules, batch=5, steps=3, workers=2)
    assert first + read_steps(built["recipe"], rules, batch=5, steps=3, ranks=5, state=state)[0] == whole


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fresh": True}, "the shards hold rendered frames"),
        ({"grammar": "zoom"}, "the shards hold rendered frames"),
        ({"render": "device"}, "render=device needs pictures"),
    ],
)
def test_rendered_frames_cannot_be_filmed_again(values: dict[str, object], words: str, built: dict[str, Path]) -> None:
    with pytest.raises(RequestError, match=words):
        first_epoch(built["frames"], frames=5, size=64, **values)


def test_looks_need_the_cpu(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "stills", 5)
    assert animate(source, tmp_path / "out", looks="graded") == 0
    assert len(clips_of(first_epoch(tmp_path / "out"))) == 5
    with pytest.raises(RequestError, match="render=device cannot change colors"):
        first_epoch(tmp_path / "out", render="device")


def test_another_number_of_frames_than_stored_is_said(built: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="holds 5 frames of 64 x 64; asked for 6 of 64 x 64"):
        first_epoch(built["frames"], frames=6, size=64)


def test_unknown_grammar_is_a_wrong_request_not_damage(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", [4])
    with pytest.raises(RequestError, match="no preset named 'zom'; did you mean 'zoom'"):
        next(iter(ClipLoader(open_blend(str(data)), settings_of(grammar="zom"), Share(2), workers=1)))
