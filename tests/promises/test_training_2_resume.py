"""Promise 2 of training: a run that is killed at any step resumes to the same losses as one never killed: bit-equal on a CPU;
with another number of ranks and workers the batches are the same, and the losses agree to rounding.

Every process here is a real run; dropout, drop path and patch dropout are on, recipes are drawn anew every epoch.
"""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.pretrain.data.video_tars import write_videos
from tests.pretrain.trainer import Place, finish, keys_of, losses_of, start, tensors_of, words_of
from tests.streaming import write_set

STEPS = 12
MODEL = {"model__temporal": "stan", "model__stan__depth": 2, "objective__patch_dropout": 0.25}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 clips: epochs end within batches."""
    return write_set(tmp_path_factory.mktemp("resume") / "clips", [9, 5, 13, 10])


@pytest.fixture(scope="module")
def whole(data: Path) -> Path:
    """A run that nothing disturbed."""
    home = data.parent / "whole"
    code, said = finish(words_of(data, home / "out", **MODEL), home)
    assert code == 0, said
    return home


def assert_same_run(home: Path, whole: Path) -> None:
    """To the bit: the losses of all steps, the weights, and the optimizer's state."""
    assert losses_of(home / "out") == losses_of(whole / "out")
    assert list(losses_of(home / "out")) == list(range(1, STEPS + 1))
    found, right = tensors_of(home / "out", STEPS), tensors_of(whole / "out", STEPS)
    assert found.keys() == right.keys()
    assert all(torch.equal(found[name], right[name]) for name in right)


def wait_for_step(home: Path, step: int) -> None:
    """Until a run has told of a step."""
    end = time.monotonic() + 240
    while step not in (losses_of(home / "out") if (home / "out" / "metrics.jsonl").exists() else ()):
        assert time.monotonic() < end, f"no step {step}"
        time.sleep(0.01)


def test_a_run_that_was_killed_again_and_again_ends_as_one_that_was_not(data: Path, whole: Path) -> None:
    home = data.parent / "killed"
    dice = random.Random(5)
    for step in (2, 7):  # before the first checkpoint, and after the second
        process = start(words_of(data, home / "out", **MODEL), home)
        wait_for_step(home, step)
        time.sleep(dice.uniform(0, 0.2))
        process.kill()
        process.communicate()
    code, said = finish(words_of(data, home / "out", **MODEL), home)
    assert code == 0, said
    assert_same_run(home, whole)


@pytest.mark.slow
def test_a_run_on_stills_and_videos_that_was_killed_ends_as_one_that_was_not(data: Path) -> None:
    mixture = f"{data}*3,{write_videos(data.parent / 'real', [5, 3])}*1"
    undisturbed, home = data.parent / "undisturbed", data.parent / "killed too"
    assert finish(words_of(mixture, undisturbed / "out", **MODEL), undisturbed)[0] == 0
    process = start(words_of(mixture, home / "out", **MODEL), home)
    wait_for_step(home, 5)
    process.kill()
    process.communicate()
    code, said = finish(words_of(mixture, home / "out", workers=0, **MODEL), home)
    assert code == 0, said
    assert_same_run(home, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda one: one.name)
def test_a_signal_ends_the_step_and_saves_it(number: signal.Signals, data: Path, whole: Path) -> None:
    home = data.parent / number.name
    process = start(words_of(data, home / "out", save_every=100, **MODEL), home)
    wait_for_step(home, 4)
    process.send_signal(number)
    _, said = process.communicate(timeout=240)
    assert process.returncode == (130 if number == signal.SIGINT else 75), said
    assert "run again to go on" in said and "Traceback" not in said
    code, said = finish(words_of(data, home / "out", save_every=100, **MODEL), home)
    assert code == 0, said
    assert_same_run(home, whole)


def test_other_ranks_and_workers_go_on_with_the_same_batches_and_losses(data: Path, whole: Path) -> None:
    home = data.parent / "layouts"
    found: dict[int, list[str]] = {}
    for stop, ranks, workers in ((4, 1, 0), (8, 2, 2), (0, 4, 1)):
        words = words_of(data, home / "out", workers=workers, **MODEL)
        code, said = finish(words, home / f"ranks-{ranks}", ranks=ranks, stop=stop)
        assert code == (1 if stop else 0), said
        assert f"stopped after step {stop}" in said or not stop
        found |= keys_of(home / f"ranks-{ranks}", ranks)
    assert found == keys_of(whole, 1)
    assert losses_of(home / "out") == pytest.approx(losses_of(whole / "out"), rel=1e-5)


def test_weights_in_shards_go_on_from_whole_ones_and_back(data: Path, whole: Path) -> None:
    home = data.parent / "shards"
    evaluated = {"eval.data": write_set(home / "held out", [7], name="others"), "eval.every": 5}
    for stop, ranks, shard in ((4, 1, "ddp"), (9, 2, "fsdp"), (0, 1, "ddp")):
        words = words_of(data, home / "out", parallel=shard, **evaluated, **MODEL)
        code, said = finish(words, home / f"to-{stop}", ranks=ranks if shard == "fsdp" else 0, stop=stop)
        assert code == (0 if not stop else 1 if shard == "fsdp" else 75), said
    assert losses_of(home / "out") == pytest.approx(losses_of(whole / "out"), rel=1e-5)
    found, right = tensors_of(home / "out", STEPS), tensors_of(whole / "out", STEPS)
    for name in right:
        assert torch.allclose(found[name], right[name], rtol=1e-4, atol=1e-5), name


@pytest.mark.slow  # restarted ranks that do not find each other in gloo's few seconds spend torchrun's restarts
@pytest.mark.parametrize(("dead", "shard"), [(1, "ddp"), (0, "fsdp")])
def test_a_rank_that_dies_is_started_again_and_the_run_goes_on_by_itself(
    dead: int, shard: str, data: Path, whole: Path
) -> None:
    """Under `torchrun --max-restarts`: killed in step 8, two steps after the last checkpoint; nobody runs it again."""
    home = data.parent / f"dead-{dead}"
    code, said = finish(
        words_of(data, home / "out", parallel=shard, **MODEL), home, ranks=2, die=Place(rank=dead, step=8)
    )
    assert code == 0, said
    lines = [json.loads(line) for line in (home / f"keys-{dead}.jsonl").read_text().splitlines()]
    assert [step for step, _ in lines].count(7) == 2  # gone through again
    assert losses_of(home / "out") == pytest.approx(losses_of(whole / "out"), rel=1e-5)
    assert list(losses_of(home / "out")) == list(range(1, STEPS + 1))
    assert keys_of(home, 2) == keys_of(whole, 1)
