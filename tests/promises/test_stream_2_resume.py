"""Promise 2 of the stream: state is a few integers. Stop at step k, resume with other ranks and workers: the global batches
k+1, k+2, ... are the same. Batches run across the end of an epoch; a changed batch size goes on at the same sample count.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillreel.configs import RequestError
from stillreel.configs.stream import DataSettings
from stillreel.pretrain.data import ClipLoader, Share
from stillreel.shards.format.index import open_index
from stillreel.shards.stream import reader
from stillreel.shards.stream.stream import State, open_blend
from tests.pretrain.data.rank_reader import run_ranks
from tests.pretrain.data.video_tars import write_videos
from tests.streaming import batches_of, digest_of, read_steps, settings_of, write_set
from tests.warm import Warm


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("resume") / "set", [11, 3, 0, 17])


@pytest.fixture(scope="module")
def mixture(data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Stills and real videos."""
    return f"{data}*3,{write_videos(tmp_path_factory.mktemp('mixture'), [5, 3, 4])}*1"


@given(
    stop=st.integers(0, 12),
    before=st.sampled_from([1, 2, 4]),
    after=st.sampled_from([1, 2, 4]),
    workers=st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_stop_anywhere_and_go_on_with_another_layout(
    data: Path, stop: int, before: int, after: int, workers: int
) -> None:
    blend, rules, steps = open_blend(str(data)), settings_of(seed=1), 14
    start = blend.start(rules.order(), 0, 4)
    never = list(islice(batches_of(blend, rules, batch=4, ranks=1, workers=0, state=start), steps))
    first = list(islice(batches_of(blend, rules, batch=4, ranks=before, workers=0, state=start), stop))
    state = State.from_dict(json.loads(json.dumps(blend.start(rules.order(), stop, 4).to_dict())))
    rest = batches_of(blend, rules, batch=4, ranks=after, workers=workers, state=state)
    assert first + list(islice(rest, steps - stop)) == never


@pytest.mark.parametrize("what", ["data", "mixture"])
def test_real_loaders_resume_in_keys_and_bytes(what: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(what)
    rules = settings_of(seed=2, video={"sampler": "segments"})
    never, end = read_steps(data, rules, batch=8, steps=10)
    for stop, (ranks, workers), (more_ranks, more_workers) in (
        (3, (1, 3), (4, 1)),
        (7, (4, 0), (2, 3)),
        (5, (2, 1), (1, 0)),
    ):
        first, state = read_steps(data, rules, batch=8, steps=stop, ranks=ranks, workers=workers)
        rest, last = read_steps(
            data, rules, batch=8, steps=10 - stop, ranks=more_ranks, workers=more_workers, state=state
        )
        assert first + rest == never
        assert last == end == State(80, 10, end.fingerprint)


@pytest.mark.parametrize("what", ["data", pytest.param("mixture", marks=pytest.mark.slow)])
def test_ranks_of_torchrun_resume(what: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    data = request.getfixturevalue(what)
    rules = settings_of(seed=2)
    never, _ = read_steps(data, rules, batch=8, steps=9)
    _, state = read_steps(data, rules, batch=8, steps=4, workers=2)
    ranks = run_ranks(tmp_path, data, rules, batch=8, steps=5, workers=2, state=state)
    assert ranks.returncode == 0, ranks.stderr
    assert ranks.batches == never[4:]
    assert ranks.states == [[72, 9, state.fingerprint]] * 2


def test_loaders_that_are_killed_go_on_in_keys_and_bytes(mixture: str, tmp_path: Path) -> None:
    """Each process reads until it is killed, at any moment, and says what it was handed; the next goes on from there."""
    rules = settings_of(seed=2, video={"sampler": "segments"})
    never, _ = read_steps(mixture, rules, batch=8, steps=12)
    found: list[list[str]] = []
    for workers, lines in ((1, 3), (3, 4), (0, 3)):
        found += read_until_killed(mixture, rules, batch=8, start=len(found), workers=workers, lines=lines)
    blend = open_blend(mixture)
    rest, _ = read_steps(
        mixture, rules, batch=8, steps=12 - len(found), ranks=2, state=blend.start(rules.order(), len(found), 8)
    )
    assert found + rest == never


_READER = """
import json, sys
from stillreel.configs.stream import DataSettings
from stillreel.pretrain.data import ClipLoader, Share
from stillreel.shards.stream.stream import open_blend
from tests.streaming import digest_of

data, settings, batch, start, workers = json.loads(sys.argv[1])
blend, rules = open_blend(data), DataSettings.resolve(settings)
loader = ClipLoader(blend, rules, Share(batch), workers=workers, state=blend.start(rules.order(), start, batch))
for one in loader:
    print(json.dumps(digest_of(one)), flush=True)
"""


def read_until_killed(
    data: str, rules: DataSettings, *, batch: int, start: int, workers: int, lines: int
) -> list[list[str]]:
    """The batches that a process has told of, which is killed when it has told of this many."""
    words = json.dumps([data, rules.model_dump(mode="json"), batch, start, workers])
    with Warm("-c", [_READER, words]) as process:
        while len(told := process.said()) < lines:
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    return [json.loads(line) for line in told[:lines]]


def test_state_counts_what_was_handed_out_not_what_was_prefetched(data: Path) -> None:
    blend, rules = open_blend(str(data)), settings_of()
    loader = ClipLoader(blend, rules, Share(4), workers=3, prefetch=4)
    assert loader.state.samples == 0
    for number, _ in enumerate(islice(loader, 5), 1):
        time.sleep(0.05)  # time for workers to run ahead
        assert (loader.state.samples, loader.state.steps) == (4 * number, number)


def test_batches_run_across_the_end_of_an_epoch(data: Path) -> None:
    """31 samples in batches of 8: nothing is dropped or padded in four epochs of 15.5 steps together."""
    found, _ = read_steps(data, settings_of(), batch=8, steps=31, workers=1)
    assert all(len(step) == 8 for step in found)
    counts = Counter(clip.split()[0] for step in found for clip in step)
    assert len(counts) == 31 and set(counts.values()) == {8}


def test_another_batch_size_goes_on_at_the_same_sample(data: Path) -> None:
    rules = settings_of(seed=4)
    never, _ = read_steps(data, rules, batch=4, steps=12)
    first, state = read_steps(data, rules, batch=4, steps=3)
    rest, _ = read_steps(data, rules, batch=6, steps=6, ranks=2, workers=1, state=state)
    assert [clip for step in first + rest for clip in step] == [clip for step in never for clip in step]


@pytest.mark.parametrize("change", [{"seed": 1}, {"lanes": 32}, {"window": 100}])
def test_state_of_another_order_is_refused(data: Path, change: dict[str, int]) -> None:
    blend = open_blend(str(data))
    state = blend.start(settings_of().order(), 5, 8)
    ClipLoader(blend, settings_of(frames=3), Share(8), state=state)  # what a clip looks like is no part of the order
    with pytest.raises(RequestError, match="this state is of other data or another order"):
        ClipLoader(blend, settings_of(**change), Share(8), state=state)


def test_state_of_other_data_is_refused_and_of_a_copy_is_not(data: Path, tmp_path: Path) -> None:
    state = open_blend(str(data)).start(settings_of().order(), 5, 8)
    copy = write_set(tmp_path / "copy", [11, 3, 0, 17])
    ClipLoader(open_blend(str(copy)), settings_of(), Share(8), state=state)
    other = write_set(tmp_path / "other", [11, 3, 17])
    for wrong in (str(other), f"{data},{copy}"):
        with pytest.raises(RequestError, match="Resume with the data sets, weights, seed, lanes and window"):
            ClipLoader(open_blend(wrong), settings_of(), Share(8), state=state)


def test_first_batch_costs_the_same_anywhere_in_a_thousand_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is skipped through: a batch of 64 opens the shards that it reads and no other, at the start as at 90 %."""
    data = write_set(tmp_path / "set", [20] * 1000)
    opened: list[bytes] = []
    monkeypatch.setattr(reader, "open_index", lambda blob: opened.append(blob) or open_index(blob))
    blend, rules = open_blend(str(data)), settings_of()
    for done in (0.0, 0.9):
        opened.clear()
        state = blend.start(rules.order(), int(done * 20_000 / 64), 64)
        batch = next(iter(ClipLoader(blend, rules, Share(64), state=state)))
        assert len(digest_of(batch)) == 64
        assert 1 < len(opened) <= 64
