"""Promise 1 of the stream: the order is a pure function of (shard sizes, seed, epoch, lanes); it does not know ranks or
workers; slot i of a global batch is fed by lane i mod lanes; every sample once an epoch. (Of the function alone:
tests/shards/test_order.py.)
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillreel.configs import RequestError
from stillreel.configs.stream import OrderSettings
from stillreel.pretrain.data import ClipLoader, Share
from stillreel.shards.stream.stream import Stream, open_blend
from tests.making import stillreel
from tests.pretrain.data.rank_reader import run_ranks
from tests.streaming import batches_of, read_steps, settings_of, write_set

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any)
LAYOUTS = [(ranks, workers) for ranks in (1, 2, 4) for workers in (0, 1, 3)]


@given(SIZES, st.integers(0, 99), st.sampled_from([1, 4, 64]), st.sampled_from([1, 5, 4096]), st.integers(1, 7))
@settings(max_examples=25, deadline=None)
def test_every_sample_once_an_epoch_and_equal_batches_for_every_layout(
    sizes: list[int], seed: int, lanes: int, window: int, quarter: int
) -> None:
    batch = 4 * quarter
    rules = settings_of(seed=seed, lanes=lanes, window=window)
    with TemporaryDirectory() as folder:
        blend = open_blend(str(write_set(Path(folder) / "set", sizes)))
        state = blend.start(rules.order(), 0, batch)
        steps = -(-3 * sum(sizes) // batch)
        found = [
            list(islice(batches_of(blend, rules, batch=batch, ranks=ranks, workers=workers, state=state), steps))
            for ranks, workers in LAYOUTS
        ]
    assert all(one == found[0] for one in found)
    order = [slot.split()[0] for step in found[0] for slot in step]
    for epoch in range(3):
        keys = order[epoch * sum(sizes) : (epoch + 1) * sum(sizes)]
        assert Counter(keys) == Counter(f"clips_{number:09d}" for number in range(sum(sizes)))


def test_real_loaders_of_every_layout_give_equal_keys_and_bytes(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", [5, 0, 9, 1, 4])
    rules = settings_of(seed=3)
    first, _ = read_steps(data, rules, batch=8, steps=6)
    for ranks, workers in LAYOUTS[1:]:
        assert read_steps(data, rules, batch=8, steps=6, ranks=ranks, workers=workers)[0] == first, (ranks, workers)


@pytest.mark.parametrize(("render", "workers"), [("loader", 2), ("device", 1)])
def test_workers_that_are_spawned_give_the_same(tmp_path: Path, render: str, workers: int) -> None:
    data = write_set(tmp_path / "set", [5, 9])
    rules = settings_of(render=render)
    spawned = read_steps(data, rules, batch=4, steps=4, workers=workers, start_method="spawn")
    assert spawned == read_steps(data, rules, batch=4, steps=4)


def test_two_ranks_of_torchrun_give_the_same(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", [30, 7, 25])
    rules = settings_of(seed=11)
    ranks = run_ranks(tmp_path, data, rules, batch=8, steps=9, workers=1)
    assert ranks.returncode == 0, ranks.stderr
    assert ranks.batches == read_steps(data, rules, batch=8, steps=9)[0]


def test_slots_are_fed_by_lanes(tmp_path: Path) -> None:
    """Four shards, four lanes: each slot of a batch of four, and so each of four ranks, has a shard of its own all epoch."""
    stream = Stream(open_blend(str(write_set(tmp_path / "set", [6] * 4))), settings_of(lanes=4))
    _, places = stream.locate(np.arange(24))
    lanes = [set(places.shards[lane::4].tolist()) for lane in range(4)]
    assert sorted(map(tuple, lanes)) == [(0,), (1,), (2,), (3,)]


def test_command_prints_the_same_for_every_layout(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", [20, 30])
    words = ("stream", data, "keys=true", "steps=4", "batch=12", "seed=5", f"frames={2}", "size=32")
    one = stillreel(*words, "workers=0")
    two = stillreel(*words, "ranks=2", "workers=1")
    later = stillreel(*words, "ranks=3", "workers=2", "start=2")
    assert [said.returncode for said in (one, two, later)] == [0, 0, 0], one.stderr + two.stderr + later.stderr
    lines = [[line for line in said.stdout.splitlines() if "\t" in line] for said in (one, two, later)]
    assert lines[0] == lines[1]
    assert lines[0][2:] == lines[2][:2]
    step, _, keys = lines[0][3].partition("\t")
    expected, _ = read_steps(data, settings_of(seed=5), batch=12, steps=4)
    assert (step, keys.split(" ")) == ("3", [clip.split()[0] for clip in expected[3]])


def test_batch_that_ranks_cannot_share_is_refused(tmp_path: Path) -> None:
    blend = open_blend(str(write_set(tmp_path / "set", [3])))
    with pytest.raises(RequestError, match="a batch of 7 cannot be shared evenly: rank 0 of 2"):
        ClipLoader(blend, settings_of(), Share(7, 0, 2))


def test_order_is_of_the_seed_the_lanes_and_the_window() -> None:
    names = set(OrderSettings.model_fields)
    assert names == {"seed", "lanes", "window"}
