"""Evaluation of a held-out set: the figures of everything scored in one go, for any number of ranks and workers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stillreel.animate.render.device import render_stills
from stillreel.configs import RequestError
from stillreel.configs.stream import DataSettings
from stillreel.pretrain.data import ClipLoader, Share
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.data.tokens import CLIPS_OWN
from stillreel.pretrain.evaluation import Matches, evaluate_retrieval, evaluator, held_out_evaluator
from stillreel.pretrain.evaluation.held_out import choose_samples
from stillreel.pretrain.model.normalize import normalize
from stillreel.shards.format.index import decode_index
from stillreel.shards.stream.stream import open_blend
from tests.pretrain.evaluation.rank_scorer import CASES, CHUNK, VIEW, data_of, evaluate, run_ranks, told_by
from tests.pretrain.zoo import shaken
from tests.streaming import write_set

FAILS_ONE = "storage that fails one rank"
SCORED = [case for case in CASES if case not in {FAILS_ONE, "too much damage", "half precision", "damage"}]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("held out")
    write_set(folder / "whole", [5, 0, 9, 7])
    write_set(folder / "small", [3], name="small")
    damaged = write_set(folder / "damaged", [5, 0, 9, 7])
    flip(damaged / "shards" / "clips-000002.tar", 4)
    (damaged / "shards" / "clips-000003.tar").unlink()
    unreadable = write_set(folder / "unreadable", [4, 4, 4, 4])
    index = unreadable / "shards" / "clips-000001.idx"  # of the second batch, which is the second rank's
    index.unlink()
    index.mkdir()
    return folder


def flip(tar: Path, sample: int) -> None:
    entry = decode_index(tar.with_suffix(".idx").read_bytes())[sample]
    blob = bytearray(tar.read_bytes())
    blob[entry.offset + 700] ^= 1
    tar.write_bytes(blob)


@pytest.fixture(scope="module")
def alone(home: Path) -> dict[str, dict[str, Any]]:
    """All cases in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "_VECTORS", CHUNK)
        patch.setattr(evaluator, "_PAIRS", CHUNK)
        return {case: told_by(case, home) for case in CASES}


@pytest.fixture(scope="module")
def of_two(home: Path) -> list[dict[str, dict[str, Any]]]:
    """All cases by two ranks."""
    return run_ranks(home, 2)


@pytest.mark.parametrize("case", [case for case in CASES if case != FAILS_ONE])
def test_two_ranks_find_the_same_to_the_bit(
    case: str, alone: dict[str, dict[str, Any]], of_two: list[dict[str, dict[str, Any]]]
) -> None:
    assert [one[case] for one in of_two] == [alone[case]] * 2


@pytest.mark.slow
def test_three_ranks_find_the_same_to_the_bit(home: Path, alone: dict[str, dict[str, Any]]) -> None:
    for found in run_ranks(home, 3):
        assert {case: found[case] for case in CASES if case != FAILS_ONE} == {
            case: alone[case] for case in CASES if case != FAILS_ONE
        }


def test_workers_change_nothing(alone: dict[str, dict[str, Any]]) -> None:
    assert alone["workers"] == alone["vectors"]


def test_storage_that_fails_one_rank_stops_all(
    alone: dict[str, dict[str, Any]], of_two: list[dict[str, dict[str, Any]]]
) -> None:
    told = [one[FAILS_ONE] for one in of_two]
    assert told[1] == alone[FAILS_ONE]
    assert told[1]["error"] == "StorageFailure"
    assert told[0] == {"error": "StorageFailure", "said": f"rank 1: {told[1]['said']}"}


def whole_set(case: str, home: Path) -> tuple[Tensor, list[str]]:
    """Frames uint8 (N, T, H, W, 3) of all clips that the case is about, and their captions, in the order of the tars."""
    _, settings, given = CASES[case]
    frames, captions = [], []
    for url in data_of(case, home).split(","):
        blend, rules = open_blend(url), DataSettings.resolve({**VIEW, **settings})
        (batch,) = ClipLoader(blend, rules, Share(blend.corpora[0].samples), steps=1)
        pixels = batch.frames if batch.stills is None else render_stills(batch.stills, "cpu")
        assert pixels is not None
        order = sorted(range(len(batch.keys)), key=batch.keys.__getitem__)
        frames.append(pixels[order])
        captions += [batch.captions[at] for at in order]
    blend = open_blend(data_of(case, home))
    ends = [sum(shard.samples for shard in blend.corpora[0].shards[:at]) for at in range(99)]
    spots = choose_samples(blend, 0, given.get("limit", 0))
    kept = [spot.corpus * 3 + ends[spot.place.shard] + spot.place.sample for spot in spots]
    if len(blend.corpora) > 1:
        kept = list(range(len(captions)))
    return torch.cat(frames)[kept], [captions[at] for at in kept]


def in_one_go(case: str, frames: Tensor, captions: list[str]) -> dict[str, Any]:
    """All captions with all clips in one matrix; captions of equal tokens are one."""
    kind, settings, _ = CASES[case]
    ids = CLIPS_OWN(captions, settings.get("context_length", 32))
    scores = copy.deepcopy(shaken(kind)).double().score(normalize(frames, dtype=torch.float64), None, ids, None)
    names = [tuple(row) for row in ids.tolist()]
    labels = torch.tensor([names.index(one) for one in names])
    return evaluate_retrieval(scores, Matches(labels, labels)).to_json()


@pytest.mark.parametrize("case", SCORED)
def test_figures_are_those_of_everything_in_one_go(case: str, home: Path, alone: dict[str, dict[str, Any]]) -> None:
    frames, captions = whole_set(case, home)
    right = in_one_go(case, frames, captions)
    for way in ("t2v", "v2t"):
        assert alone[case][way]["ranks"] == right[way]["ranks"]
        assert alone[case][way]["items"] == right[way]["items"]
        assert alone[case][way]["r1"] == right[way]["r1"]
    assert (right["v2t"]["items"] < len(captions)) == any(one in case for one in ("equal", "every pair", "two sets"))


def test_damage_is_missed_counted_and_named(home: Path, alone: dict[str, dict[str, Any]]) -> None:
    """One flipped byte, and a shard of seven: what is left has the ranks that it has among itself."""
    found = alone["damage"]
    lost = [5 + 4, *range(14, 21)]
    assert len(found["missing"]) == len(lost)
    assert "not the bytes that were written" in " ".join(found["missing"])
    assert sum("the tar is missing" in one for one in found["missing"]) == 7
    for way in ("t2v", "v2t"):
        assert found[way]["missed"] == lost
        assert {found[way]["ranks"][at] for at in lost} == {found[way]["items"]}
    frames, captions = whole_set("equal captions", home)
    kept = [at for at in range(21) if at not in lost]
    right = in_one_go("equal captions", frames[kept], [captions[at] for at in kept])
    for way in ("t2v", "v2t"):
        assert [found[way]["ranks"][at] for at in kept] == right[way]["ranks"]
    assert found["t2v"]["items"] == 21


def test_too_much_damage_stops_with_its_name(alone: dict[str, dict[str, Any]]) -> None:
    told = alone["too much damage"]
    assert told["error"] == "DataError"
    assert "held-out set: stopped: 8 damaged of 21 samples are more than max_bad=0 allows" in told["said"]
    assert "clips-000002.tar, clips_000000009" in told["said"]


def test_the_run_goes_on_as_if_nothing_had_been(home: Path) -> None:
    """Modes of modules, gradients and generators are as they were; again gives the same."""
    model = copy.deepcopy(shaken("tight")).train()
    model.clip.visual.eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    blend, alone = open_blend(str(home / "whole")), Together(1, 60)
    held_out = held_out_evaluator(blend, DataSettings.resolve(VIEW), together=alone, batch=6, limit=8, workers=1)
    first, second = held_out.evaluate(model), held_out.evaluate(model)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())
    assert first.rows[0].to_json() == second.rows[0].to_json()


def test_figures_have_names(home: Path) -> None:
    found = evaluate("vectors", home)
    ways = [f"{way}_{name}" for way in ("t2v", "v2t") for name in ("r1", "r5", "r10", "r50", "mdr", "mnr")]
    assert list(found.metrics()) == ways
    assert found.metrics()["t2v_r50"] == 100


def test_a_limit_takes_the_first_of_a_permutation(home: Path) -> None:
    blend = open_blend(f"{home / 'small'},{home / 'whole'}")
    everything = choose_samples(blend, 3, 0)
    assert len(set(everything)) == 24
    assert everything == sorted(everything)
    assert choose_samples(blend, 3, 24) == choose_samples(blend, 4, 99) == everything
    five, nine = choose_samples(blend, 3, 5), choose_samples(blend, 3, 9)
    assert len(five) == 5
    assert set(five) < set(nine) < set(everything)
    assert choose_samples(blend, 4, 5) != five


def test_no_clips_a_batch_is_refused(home: Path) -> None:
    with pytest.raises(RequestError, match="batch=0"):
        held_out_evaluator(
            open_blend(str(home / "whole")), DataSettings.resolve(VIEW), together=Together(1, 60), batch=0
        )
