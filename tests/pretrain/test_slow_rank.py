"""A rank whose data come late: the others wait for it, nothing else differs, and the metrics tell its wait, not rank 0's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pretrain.trainer import LATE, SMALL, Slow, finish, keys_of, losses_of, words_of
from tests.streaming import write_set

SECONDS = 2.0


def test_a_slow_loader_and_a_straggling_disk_are_waited_for_and_told(tmp_path: Path) -> None:
    data = write_set(tmp_path / "clips", [9, 5, 13, 10])
    right, home = tmp_path / "alone", tmp_path / "slow"
    assert finish(words_of(data, right / "out"), right)[0] == 0
    code, said = finish(words_of(data, home / "out", workers=0), home, ranks=2, slow=Slow(1, SECONDS))
    assert code == 0, said
    assert losses_of(home / "out") == pytest.approx(losses_of(right / "out"), rel=1e-5)
    assert keys_of(home, 2) == keys_of(right, 1)
    lines = [json.loads(line) for line in (home / "out" / "metrics.jsonl").read_text().splitlines()]
    waited = {
        one["step"]: one["data_wait"] * int(SMALL["batch"]) / one["clips_per_s"] for one in lines if "loss" in one
    }
    # A sleep takes at least its seconds. Only the slow rank waits in the first; in the second, all that share the batch.
    for step in (2, 3):
        assert waited[step] > SECONDS / 2
    assert sum(seconds for step, seconds in waited.items() if step > LATE) > SECONDS
