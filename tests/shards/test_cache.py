"""The cache of shards: by contents, within its limit, shared by processes, and never holding what is damaged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stillreel.configs import RequestError
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.index import Index, open_index
from stillreel.shards.stream.cache import ShardCache
from tests.streaming import write_set


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set", [5, 5, 5])


def index_of(data: Path, number: int) -> Index:
    return open_index((data / "shards" / f"clips-{number:06d}.idx").read_bytes())


def tar_of(number: int) -> str:
    return f"shards/clips-{number:06d}.tar"


def fetch(cache: ShardCache, data: Path, number: int) -> str | None:
    return cache.fetch(Folder(str(data)), tar_of(number), index_of(data, number))


def test_tar_is_kept_under_its_digest_and_fetched_once(data: Path, tmp_path: Path) -> None:
    cache = ShardCache(str(tmp_path / "cache"), 1 << 30, 1)
    name = fetch(cache, data, 0)
    assert name == f"{index_of(data, 0).digest}.tar"
    assert (tmp_path / "cache" / name).read_bytes() == (data / tar_of(0)).read_bytes()
    (data / tar_of(0)).unlink()
    assert fetch(cache, data, 0) == name


def test_shards_of_one_name_in_two_data_sets_do_not_meet(data: Path, tmp_path: Path) -> None:
    """webdataset's cache, which goes by names, serves one for the other."""
    other = write_set(tmp_path / "elsewhere" / "set", [5, 5, 5], seed=1)
    cache = ShardCache(str(tmp_path / "cache"), 1 << 30, 1)
    assert fetch(cache, data, 0) != fetch(cache, other, 0)


def test_what_was_used_longest_ago_goes_first(data: Path, tmp_path: Path) -> None:
    size = (data / tar_of(0)).stat().st_size
    assert all((data / tar_of(number)).stat().st_size == size for number in range(3))
    cache = ShardCache(str(tmp_path / "cache"), 2 * size, 1)
    first, second = fetch(cache, data, 0), fetch(cache, data, 1)
    for age, name in ((50, second), (100, first)):
        os.utime(tmp_path / "cache" / str(name), (time.time() - age,) * 2)
    fetch(cache, data, 0)
    third = fetch(cache, data, 2)
    assert {path.name for path in (tmp_path / "cache").glob("*.tar")} == {first, third}


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "large"])
def test_what_cannot_be_kept_is_read_where_it_lies(damage: str, data: Path, tmp_path: Path) -> None:
    tar = data / tar_of(0)
    blob = bytearray(tar.read_bytes())
    blob[700] ^= 1
    if damage == "missing":
        tar.unlink()
    elif damage != "large":
        tar.write_bytes(blob if damage == "flip" else blob[:3000])
    cache = ShardCache(str(tmp_path / "cache"), 1000 if damage == "large" else 1 << 30, 1)
    assert fetch(cache, data, 0) is None
    assert not list((tmp_path / "cache").glob("*.tar")) and not list((tmp_path / "cache").glob(".*.part"))


def test_processes_fetch_a_shard_once(data: Path, tmp_path: Path) -> None:
    """Four at once, and each of three shards is copied by one of them."""
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from stillreel.shards.stream.cache import ShardCache, Folder\n"
        "from stillreel.shards.format.index import open_index\n"
        "home, data = sys.argv[1:]\n"
        "cache, copied = ShardCache(home, 1 << 30, 1), []\n"
        "download = cache._download\n"
        "cache._download = lambda *given: (copied.append(given), time.sleep(0.2), download(*given))[2]\n"
        "for number in range(3):\n"
        "    index = open_index(Path(f'{data}/shards/clips-{number:06d}.idx').read_bytes())\n"
        "    assert cache.fetch(Folder(data), f'shards/clips-{number:06d}.tar', index)\n"
        "print(len(copied))"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "cache"), str(data)]
    root = Path(__file__).resolve().parents[2]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(4)]
    counts = [int(one.communicate(timeout=120)[0]) for one in running]
    assert [one.returncode for one in running] == [0] * 4
    assert sum(counts) == 3


def test_what_killed_processes_left_is_removed_in_time(data: Path, tmp_path: Path) -> None:
    cache = ShardCache(str(tmp_path / "cache"), 1 << 30, 1)
    old, young = tmp_path / "cache" / ".x.tar.1.aa.part", tmp_path / "cache" / ".y.tar.2.bb.part"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    fetch(cache, data, 0)
    assert not old.exists() and young.exists()


def test_cache_in_a_bucket_is_refused() -> None:
    with pytest.raises(RequestError, match="expected a folder on a disk"):
        ShardCache("memory://cache", 1, 1)
