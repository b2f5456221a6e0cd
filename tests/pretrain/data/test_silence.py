"""A ClipLoader in someone's trainer says nothing by itself; what it has to tell is in the log."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stillreel.shards.format.index import decode_index
from tests.streaming import write_set
from tests.warm import Warm

SCRIPT = """
import logging, sys
from stillreel import ClipLoader, DataSettings, Share, open_blend
data, workers, level = sys.argv[1:]
if level:
    logging.basicConfig(format="%(name)s|%(levelname)s|%(message)s", level=level)
settings = DataSettings(frames=2, size=32, max_bad=1, max_bad_run=100)
loader = ClipLoader(open_blend(data), settings, Share(4), steps=5, workers=int(workers))
assert sum(batch.whole.count(False) for batch in loader) == 3 and len(loader.damage) == 3
"""


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Twenty samples, of which a byte of one is another and two are cut off."""
    data = write_set(tmp_path / "set", [10, 10])
    tar = data / "shards" / "clips-000001.tar"
    entries = decode_index(tar.with_suffix(".idx").read_bytes())
    blob = bytearray(tar.read_bytes())
    blob[entries[3].offset + entries[3].length - 700] ^= 1
    tar.write_bytes(blob[: entries[8].offset + 100])
    return data


def run(data: Path, workers: int, level: str) -> subprocess.CompletedProcess[str]:
    said = Warm("-c", [SCRIPT, str(data), str(workers), level]).finish(timeout=300)
    assert said.returncode == 0, said.stderr
    return said


@pytest.mark.parametrize("workers", [0, 1])
def test_it_is_silent_over_damaged_data(damaged: Path, workers: int) -> None:
    said = run(damaged, workers, "")
    assert (said.stdout, said.stderr) == ("", "")


@pytest.mark.parametrize("workers", [0, 1])
def test_whoever_sets_up_a_log_sees_what_is_damaged(damaged: Path, workers: int) -> None:
    said = run(damaged, workers, "INFO")
    lines = said.stderr.splitlines()
    assert said.stdout == ""
    assert len(lines) == 3
    assert all(line.startswith("stillreel.pretrain.data.loader|WARNING|damaged, passed over: ") for line in lines)
    assert sorted(name for line in lines for name in (13, 18, 19) if f"clips_{name:09d}" in line) == [13, 18, 19]
