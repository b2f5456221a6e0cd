"""Promise 4 of training: when the loss is not finite, all ranks stop, and the last good checkpoint stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillreel.pretrain.model import load_model
from tests.pretrain.trainer import Place, finish, keys_of, losses_of, words_of
from tests.streaming import write_set


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_frame_that_is_not_a_number_stops_all_ranks_within_a_step(ranks: int, tmp_path: Path) -> None:
    data, home = write_set(tmp_path / "clips", [20, 17]), tmp_path / "run"
    code, said = finish(words_of(data, home / "out"), home, ranks=ranks, spoil=Place(max(ranks - 1, 0), 8))
    assert code == 1
    assert "step 8: the gradient's length is nan" in said and "no longer finite" in said
    assert said.count("step 8: the gradient's length is nan") == max(ranks, 1)  # every rank found it itself
    assert max(keys_of(home, max(ranks, 1))) == 8  # nobody asked for another batch
    kept = sorted(path.name for path in (home / "out" / "checkpoints").iterdir())
    assert kept[-1] == "step-00000006"
    load_model(home / "out" / "checkpoints" / kept[-1])
    code, said = finish(words_of(data, home / "out"), home / "again", ranks=ranks)
    assert code == 0 and "going on from" in said
    assert list(losses_of(home / "out")) == list(range(1, 13))
