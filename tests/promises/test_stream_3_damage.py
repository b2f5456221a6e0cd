"""Promise 3 of the stream: a truncated tar, a missing member, a flipped byte, a missing shard are seen, counted and named;
over the budget they are fatal on all ranks together.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stillreel.configs import DataError
from stillreel.pretrain.data import ClipLoader, Share
from stillreel.shards.format.index import decode_index, encode_index
from stillreel.shards.format.tar import BLOCK
from stillreel.shards.stream.faults import Budget, StorageFailure, patiently
from stillreel.shards.stream.stream import STAND_IN_TURNS, Stream, open_blend
from tests.making import stillreel
from tests.pretrain.data.rank_reader import run_ranks
from tests.streaming import read_steps, settings_of, write_set

SIZES = [10, 10, 10, 10]
SHARD = "clips-000002"
FORGIVING = {"max_bad": 1, "max_bad_run": 1000}

Fault = Callable[[Path], set[int]]


def tar_of(data: Path) -> Path:
    return data / "shards" / f"{SHARD}.tar"


def entry_of(data: Path, number: int) -> tuple[int, int]:
    entry = decode_index(tar_of(data).with_suffix(".idx").read_bytes())[number]
    return entry.offset, entry.length


def flip(data: Path) -> set[int]:
    offset, length = entry_of(data, 4)
    blob = bytearray(tar_of(data).read_bytes())
    blob[offset + length - 700] ^= 1
    tar_of(data).write_bytes(blob)
    return {4}


def cut(where: int) -> Fault:
    def fault(data: Path) -> set[int]:
        offset, _ = entry_of(data, 7)
        tar_of(data).write_bytes(tar_of(data).read_bytes()[: offset + where])
        return {7, 8, 9}

    return fault


def cut_at_a_member(data: Path) -> set[int]:
    """After the picture of sample 7, so that it lacks its JSON and text: the first member fills all but the last blocks."""
    offset, length = entry_of(data, 7)
    blob = tar_of(data).read_bytes()
    size = int(blob[offset + 124 : offset + 135], 8)
    tar_of(data).write_bytes(blob[: offset + BLOCK + size + -size % BLOCK])
    assert length > BLOCK + size + -size % BLOCK
    return {7, 8, 9}


def hole(data: Path) -> set[int]:
    offset, _ = entry_of(data, 3)
    blob = bytearray(tar_of(data).read_bytes())
    blob[offset : offset + 2 * BLOCK] = bytes(2 * BLOCK)
    tar_of(data).write_bytes(blob)
    return {3}


def missing_tar(data: Path) -> set[int]:
    tar_of(data).unlink()
    return set(range(10))


def missing_index(data: Path) -> set[int]:
    tar_of(data).with_suffix(".idx").unlink()
    return set(range(10))


def damaged_index(data: Path) -> set[int]:
    path = tar_of(data).with_suffix(".idx")
    path.write_bytes(path.read_bytes()[:100])
    return set(range(10))


def short_index(data: Path) -> set[int]:
    path = tar_of(data).with_suffix(".idx")
    path.write_bytes(encode_index(decode_index(path.read_bytes())[:-1]))
    return set(range(10))


FAULTS: dict[str, tuple[Fault, str]] = {
    "flipped byte": (flip, "not the bytes that were written"),
    "cut at a sample": (cut(0), "the tar is cut: 0 of the sample's"),
    "cut at a member": (cut_at_a_member, "the tar is cut: "),
    "cut inside a header": (cut(100), "the tar is cut: 100 of the sample's"),
    "zeroed hole": (hole, "not the bytes that were written (no tar header at byte 0)"),
    "missing tar": (missing_tar, "the tar is missing"),
    "missing index": (missing_index, "missing"),
    "damaged index": (damaged_index, "no index"),
    "short index": (short_index, "lists 9 samples; the data set has 10 in this shard"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_seen_named_and_counted_and_every_other_slot_keeps_its_sample(name: str, tmp_path: Path) -> None:
    fault, words = FAULTS[name]
    data = write_set(tmp_path / "set", SIZES)
    whole, _ = read_steps(data, settings_of(), batch=8, steps=5)
    lost = {f"clips_{20 + number:09d}" for number in fault(data)}
    loader = ClipLoader(open_blend(str(data)), settings_of(**FORGIVING), Share(8), steps=5)
    found = [key for batch in loader for key in batch.keys]
    original = [clip.split()[0] for step in whole for clip in step]
    assert [a for a, b in zip(found, original, strict=True) if b not in lost] == [
        key for key in original if key not in lost
    ]
    assert not lost & set(found)
    assert loader.budget.bad == len(lost)
    assert any(words in one for one in loader.damage), loader.damage
    assert all("the tar is cut: " in one or words in one for one in loader.damage), loader.damage
    assert all(f"/shards/{SHARD}" in one for one in loader.damage)
    if "index" not in name:  # an index that cannot be read hides its samples' names: the shard's stands for them
        assert all(any(key in one for one in loader.damage) for key in lost)


def test_stand_ins_are_the_same_for_every_layout(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", SIZES)
    missing_tar(data)
    rules = settings_of(**FORGIVING)
    first, _ = read_steps(data, rules, batch=8, steps=10)
    for ranks, workers in ((1, 3), (2, 1), (4, 0), (8, 2)):
        assert read_steps(data, rules, batch=8, steps=10, ranks=ranks, workers=workers)[0] == first
    half, state = read_steps(data, rules, batch=8, steps=6, ranks=2, workers=1)
    assert half + read_steps(data, rules, batch=8, steps=4, workers=2, state=state)[0] == first


def test_stand_in_is_what_its_lane_has_later(tmp_path: Path) -> None:
    """A stand-in comes from a position of the same lane, never from its neighbor's."""
    data = write_set(tmp_path / "set", [40, 40])
    rules = settings_of(lanes=2, window=8, **FORGIVING)
    stream = Stream(open_blend(str(data)), rules)
    _, places = stream.locate(np.arange(80))
    later = stream.locate(np.arange(80) + 2 * STAND_IN_TURNS)[1]
    bad = int(np.flatnonzero((places.shards == 1) & (places.samples == 5))[0])
    tar = data / "shards" / "clips-000001.tar"
    blob = bytearray(tar.read_bytes())
    blob[decode_index(tar.with_suffix(".idx").read_bytes())[5].offset + 600] ^= 1
    tar.write_bytes(blob)
    slots = stream.read(np.array([bad]), lambda sample, _: sample.key)
    number = int(40 * later.shards[bad] + later.samples[bad])
    assert [slot.key for slot in slots] == [f"clips_{number:09d}"]
    assert len(slots[0].passed) == 1


def test_nothing_whole_is_said(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", [3])
    (data / "shards" / "clips-000000.tar").unlink()
    with pytest.raises(
        DataError, match=r"17 samples that were tried for one slot are damaged, the first of them .*clips-000000\.tar"
    ):
        read_steps(data, settings_of(**FORGIVING), batch=2, steps=1)


@pytest.mark.parametrize(
    ("fraction", "read", "bad", "stops"),
    [
        (0.01, 50, 10, False),  # too early to judge: 1 % of a thousand
        (0.01, 50, 11, True),
        (0.01, 5000, 50, False),
        (0.01, 5000, 51, True),
        (0.0, 5000, 1, True),
        (1.0, 5000, 5000, False),
    ],
)
def test_budget_is_a_fraction(fraction: float, read: int, bad: int, stops: bool) -> None:
    budget = Budget(fraction, 100)
    if stops:
        with pytest.raises(DataError, match=r"more than max_bad=[0-9.]+ allows\. Fix the data"):
            budget.count(read, bad)
    else:
        budget.count(read, bad)


def test_budget_is_a_run() -> None:
    """Three bad, one whole, three bad: no run of four. One more is."""
    budget = Budget(1.0, 3)
    budget.follow([True, False, False, False, True, False])
    budget.follow([False, False])
    with pytest.raises(DataError, match="4 damaged samples in a row are more than max_bad_run=3"):
        budget.follow([False])


def test_storage_that_does_not_answer_is_tried_again_and_then_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing about the data: a run that went on without would read other samples than its neighbor."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    calls: list[int] = []

    def fails(times: int) -> str:
        calls.append(1)
        if len(calls) <= times:
            raise ConnectionError("cut")
        return "here"

    assert patiently("disk", 4, lambda: fails(3)) == "here"
    assert pauses == [0.2, 0.4, 0.8]
    calls.clear()
    with pytest.raises(StorageFailure, match="disk: no answer after 4 attempts: ConnectionError: cut"):
        patiently("disk", 4, lambda: fails(9))
    assert len(calls) == 4
    with pytest.raises(FileNotFoundError):
        patiently("disk", 4, lambda: open("/nowhere"))  # type: ignore[arg-type,return-value]  # noqa: SIM115


def test_over_the_budget_all_ranks_stop_together(tmp_path: Path) -> None:
    """One shard of four is missing, and 2 % are forgiven: both ranks end, with the same reason, within ten seconds."""
    data = write_set(tmp_path / "set", [100, 100, 100, 100])
    missing_tar(data)
    ranks = run_ranks(tmp_path, data, settings_of(max_bad=0.02), batch=8, steps=1000, workers=1)
    assert ranks.returncode != 0
    assert ranks.codes == [1, 1]
    assert abs(ranks.ended[0] - ranks.ended[1]) < 10
    assert ranks.stderr.count("stops: stopped: ") == 2
    assert len({line for line in ranks.stderr.splitlines() if "damaged of" in line and "rank 0" in line}) == 1
    assert len(ranks.batches) < 100


def test_a_failure_of_one_rank_stops_the_others(tmp_path: Path) -> None:
    """Two lanes, two shards, and the one that lane 1 has this epoch is empty: rank 1, whose lane it is, is over its run,
    while rank 0 has all that it wants."""
    data = write_set(tmp_path / "set", [40, 40])
    rules = settings_of(lanes=2, max_bad=1, max_bad_run=1)
    _, places = Stream(open_blend(str(data)), rules).locate(np.array([1]))
    (data / "shards" / f"clips-{places.shards[0]:06d}.tar").write_bytes(b"")
    ranks = run_ranks(tmp_path, data, rules, batch=4, steps=50, workers=0)
    assert ranks.codes == [1, 1]
    assert abs(ranks.ended[0] - ranks.ended[1]) < 10
    assert "rank 0 stops: rank 1: stopped: 2 damaged samples in a row" in ranks.stderr
    assert "rank 1 stops: stopped: 2 damaged samples in a row" in ranks.stderr


def test_a_worker_that_is_killed_is_an_error_not_a_hang(tmp_path: Path) -> None:
    """In a process of its own: torch raises from its SIGCHLD handler, wherever the process then is."""
    script = (
        "import multiprocessing, sys\n"
        "from tests.streaming import ClipLoader, Share, open_blend, settings_of\n"
        "batches = iter(ClipLoader(open_blend(sys.argv[1]), settings_of(), Share(8), workers=1))\n"
        "next(batches)\n"
        "multiprocessing.active_children()[0].kill()\n"
        "for _ in batches: pass\n"
    )
    words = [sys.executable, "-c", script, str(write_set(tmp_path / "set", SIZES))]
    root = Path(__file__).resolve().parents[2]
    said = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=240, check=False)
    assert said.returncode == 1
    assert "a loader worker failed or was killed" in said.stderr or "killed by signal" in said.stderr


def test_command_says_what_is_damaged(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", SIZES)
    flip(data)
    words = ("stream", data, "steps=5", "batch=8", "frames=2", "size=32", "workers=1")
    said = stillreel(*words)
    assert said.returncode == 1
    assert "WARNING: damaged, passed over: " in said.stderr
    assert "clips_000000024: not the bytes that were written" in said.stderr
    assert "1 damaged samples were passed over" in said.stderr
    said = stillreel(*words, "max_bad=0")
    assert said.returncode == 1
    assert "stillreel stream: stopped: 1 damaged of" in said.stderr
    assert "Traceback" not in said.stderr
