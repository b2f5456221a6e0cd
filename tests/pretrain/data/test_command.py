"""`stillreel stream`: what it says of a run before the run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from stillreel.configs.stream import OrderSettings
from stillreel.shards.stream.simulate import node_costs
from stillreel.shards.stream.stream import Stream, open_blend
from tests.making import stillreel
from tests.streaming import settings_of, write_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("simulated") / "set", [20] * 32)


def test_simulation_is_what_is_read(data: Path) -> None:
    """The cost of a node against a slow count over what the stream says of its positions."""
    blend, rules = open_blend(str(data)), settings_of(lanes=8, window=16)
    costs = node_costs(blend, rules.order(), batch=16, ranks=4, nodes=2, start=3, steps=30)
    positions = np.arange(48, 48 + 480)
    _, places = Stream(blend, rules).locate(positions)
    for node, cost in enumerate(costs):
        mine = [at for at in range(480) if positions[at] % 16 % 4 // 2 == node]
        used = [(int(places.epochs[at]), int(places.shards[at])) for at in mine]
        assert cost.samples == len(mine) == 240
        assert cost.shards == len(set(used))
        assert cost.bytes == sum(blend.corpora[0].shards[shard].bytes for _, shard in set(used))
        held = [
            sum(
                blend.corpora[0].shards[one[1]].bytes
                for one in set(used)
                if used.index(one) <= at <= len(used) - 1 - used[::-1].index(one)
            )
            for at in range(len(used))
        ]
        assert cost.cache == max(held)


def test_each_of_four_nodes_reads_a_quarter_of_the_shards(data: Path) -> None:
    rules = OrderSettings(lanes=32)
    costs = node_costs(open_blend(str(data)), rules, batch=32, ranks=4, nodes=4, start=0, steps=20)
    assert [cost.shards for cost in costs] == [8] * 4


def test_command_prints_the_cost(data: Path) -> None:
    said = stillreel("stream", data, "simulate=true", "batch=32", "ranks=4", "nodes=2", "frames=2", "size=32")
    assert said.returncode == 0, said.stderr
    assert "steps 0 to 19: 640 clips, 160 a rank" in said.stdout
    assert (
        len(
            re.findall(r"node \d: 320 samples; \d+ shard downloads, [\d.]+ [kM]B; a cache of [\d.]+ [kM]B", said.stdout)
        )
        == 2
    )
    assert re.search(r"shuffle quality of .*: [01]\.\d{3} ", said.stdout)
    assert re.search(r"loader rate here: [\d,]+ clips/s a worker", said.stdout)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("batch=7", "ranks=2"), "batch=7 cannot be shared evenly by ranks=2"),
        (("ranks=4", "nodes=3"), "ranks=4 cannot be spread evenly over nodes=3"),
        (("key=true",), "did you mean 'keys'?"),
        (("curriculum.x.frames=3",), "curriculum.x"),
        (("curriculum.5.frame=3",), "unknown setting 'curriculum.5.frame'"),
    ],
)
def test_wrong_requests_are_said(data: Path, words: tuple[str, ...], expected: str) -> None:
    said = stillreel("stream", data, *words)
    assert said.returncode == 2
    assert expected in said.stderr
    assert "Traceback" not in said.stderr


def test_blanks_in_foreign_keys_are_quoted() -> None:
    from stillreel.pretrain.commands.stream import _word

    assert _word("a b%20\tc/ü.x") == "a%20b%2520%09c/ü.x"
