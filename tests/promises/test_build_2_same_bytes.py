"""Promise 2 of a build: the bytes of every plan, tar, table and index are the same in one process and on Ray, with any
number of workers, in any order, after any crash (kills: see promise 3), given the library versions that the plan records;
a worker whose versions differ refuses.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from stillreel.animate.clips.clip import make_shard
from stillreel.configs import RequestError
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.executors import ShardTask
from stillreel.shards.format.plan import read_plans
from tests.making import animate, data_digests, members_of_tars, picture_folder, recipes_of, stillreel


@pytest.mark.parametrize(
    ("ray", "workers"), [pytest.param("local", 1, marks=pytest.mark.slow), ("local", 2), ("off", 2)]
)
def test_workers_make_what_one_process_makes(
    stills: Path, built: dict[str, Path], tmp_path: Path, ray: str, workers: int
) -> None:
    said = stillreel(
        "animate",
        stills,
        tmp_path,
        f"ray={ray}",
        f"workers={workers}",
        "store=frames",
        "shard_size=10",
        "frames=5",
        "size=64",
    )
    assert said.returncode == 0, said.stderr
    assert data_digests(tmp_path) == data_digests(built["frames"])


@pytest.mark.parametrize("store", ["recipe", "frames", "video"])
def test_shards_are_the_same_in_any_order(stills: Path, built: dict[str, Path], tmp_path: Path, store: str) -> None:
    """Each shard is a function of the plan alone, so shards can be made in any order, twice, and from anywhere."""
    expected = data_digests(built[store])
    shutil.copytree(built[store], tmp_path / "out")
    folder = Folder(str(tmp_path / "out"))
    plan = read_plans(folder)[0]
    shutil.rmtree(tmp_path / "out" / "shards")
    order = [*plan.shard_numbers, 1]
    random.Random(store).shuffle(order)
    for shard in order:
        make_shard(ShardTask(folder.url, 0, plan.digest, shard, attempt=1, max_rejected=0, job=str(stills)))
    assert data_digests(tmp_path / "out") == expected


def test_neither_the_clock_nor_the_place_is_in_the_bytes(stills: Path, built: dict[str, Path], tmp_path: Path) -> None:
    """Another copy of the source, touched, elsewhere: the data are the same. (The plan says where its source lay.)"""
    moved = Path(shutil.copytree(stills, tmp_path / "elsewhere" / "stills"))
    for path in moved.iterdir():
        os.utime(path, (1, 1))
    assert animate(moved, tmp_path / "out", shard_size=10, frames=5, size=64) == 0
    expected = data_digests(built["recipe"])
    expected.pop("plan-000.parquet")
    found = data_digests(tmp_path / "out")
    found.pop("plan-000.parquet")
    assert found == expected


@pytest.mark.parametrize(
    "change",
    ["seed=1", "grammar=zoom", "frames=6", "size=65", "quality=91", "shard_size=9", "max_side=200", "name=other"],
)
def test_resume_with_other_settings_is_refused(
    stills: Path, built: dict[str, Path], tmp_path: Path, change: str
) -> None:
    out = shutil.copytree(built["frames"], tmp_path / "out")
    words = {"store": "frames", "shard_size": "10", "frames": "5", "size": "64"}
    key, _, value = change.partition("=")
    words[key] = value
    said = stillreel("animate", stills, out, "ray=off", *(f"{name}={text}" for name, text in words.items()))
    assert said.returncode == 2
    assert f"{key}: planned" in said.stderr
    assert data_digests(Path(out)) == data_digests(built["frames"])


@pytest.mark.parametrize("words", [{"max_rejects": 1, "attempts": 1}, {"progress": "lines"}, {"check": "full"}])
def test_resume_may_change_how_it_is_run(
    stills: Path, built: dict[str, Path], tmp_path: Path, words: dict[str, object]
) -> None:
    out = Path(shutil.copytree(built["recipe"], tmp_path / "out"))
    (out / "shards" / "stills-000001.json").unlink()
    assert animate(stills, out, shard_size=10, frames=5, size=64, **words) == 0
    assert data_digests(out) == data_digests(built["recipe"])


def test_worker_with_other_versions_refuses(
    stills: Path, built: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(built["recipe"], tmp_path / "out"))
    (out / "shards" / "stills-000001.json").unlink()
    plan = read_plans(Folder(str(out)))[0]
    other = {**plan.header.libraries, "opencv-python-headless": "4.9.0.80"}
    monkeypatch.setattr("stillreel.shards.build.libraries.library_versions", lambda _names: other)
    with pytest.raises(RequestError, match=r"opencv-python-headless 4\.9\.0\.80, planned 4\."):
        animate(stills, out, shard_size=10, frames=5, size=64)
    with pytest.raises(RequestError, match="other library versions"):
        make_shard(ShardTask(str(out), 0, plan.digest, 1, attempt=1, max_rejected=0, job=str(stills)))


def test_adding_sources_redraws_nothing(tmp_path: Path) -> None:
    """Recipes are drawn by the source's own key: an extension changes no clip, and one still is filmed alike anywhere."""
    first, second = picture_folder(tmp_path / "first", 6), picture_folder(tmp_path / "second", 9)
    assert animate(first, tmp_path / "out", shard_size=4, name="both") == 0
    before = data_digests(tmp_path / "out")
    assert animate(second, tmp_path / "out", shard_size=4, name="both", extend="new") == 0
    after = data_digests(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    keys = {
        json.loads(data)["source_key"]: []
        for name, data in members_of_tars(tmp_path / "out").items()
        if name.endswith(".json")
    }
    recipes = recipes_of(tmp_path / "out")
    for name, data in members_of_tars(tmp_path / "out").items():
        if name.endswith(".json"):
            keys[json.loads(data)["source_key"]].append(recipes[name[:-5]])
    assert sorted(len(found) for found in keys.values()) == [1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert all(found[0] == found[-1] for found in keys.values())
