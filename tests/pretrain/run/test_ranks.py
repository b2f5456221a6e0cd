"""Several ranks of one run: what rank 0 decides, finds or fails at is what all of them do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.making import torchrun
from tests.pretrain.run.making import saved_steps, state_at
from tests.pretrain.run.rank_runner import MODULE


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def told(home: Path) -> list[dict[str, Any]]:
    said = torchrun(MODULE, [str(home)], 2, timeout=200)
    assert said.returncode == 0, said.stderr[-4000:]
    return [json.loads((home / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_all_ranks_raise_what_rank_0_raises(home: Path, told: list[dict[str, Any]]) -> None:
    first, second = told
    assert first["full"].startswith("1 ") and "step-00000003/model.safetensors: the disk is full" in first["full"]
    assert second["full"] == first["full"].replace("1 ", "1 rank 0: ", 1)
    assert first["refused"].startswith("2 ") and "seed was 0, is 1" in first["refused"]
    assert second["refused"] == first["refused"].replace("2 ", "2 rank 0: ", 1)
    assert saved_steps(home / "out") == ["step-00000002"]


def test_all_ranks_go_on_from_the_same_checkpoint(home: Path, told: list[dict[str, Any]]) -> None:
    path = home / "out" / "checkpoints" / "step-00000002"
    assert [one["begun"] for one in told] == [True, True]
    assert [one["found"] for one in told] == [[2, str(path), list(state_at(2))]] * 2


def test_weights_in_shards_are_saved_whole_and_cut_again(told: list[dict[str, Any]]) -> None:
    for one in told:
        assert one["weights"] and one["training"]
        assert one["share"] < 0.6


def test_the_wish_of_one_rank_stops_all_after_the_same_step(told: list[dict[str, Any]]) -> None:
    assert [one["stopped"] for one in told] == [[3, 75]] * 2


def test_losses_are_the_means_over_ranks(told: list[dict[str, Any]]) -> None:
    expected = {"loss": 1.5, "loss.infonce": 3.0, "grad_norm": 1.0, "logit_scale": 14.0, "lr": 0.5}
    assert [one["values"] for one in told] == [expected] * 2
