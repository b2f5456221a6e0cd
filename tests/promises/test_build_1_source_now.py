"""Promise 1 of a build: what the plan saw and cannot be read now is no reject. The attempt fails, after the last one the shard
is named with the file, and when the file is back a rerun ends with the bytes of a build that was never disturbed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillreel.animate.clips.clip import make_shard
from stillreel.animate.sources.base import SourceError
from stillreel.configs import DataError
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.executors import ShardTask
from stillreel.shards.format.plan import Listed, read_plan, write_plan
from tests.making import (
    animate,
    check,
    data_digests,
    jpeg,
    members_of_tars,
    picture_folder,
    rows_of,
    stillreel,
    write_tar,
)


def tars(folder: Path, count: int, each: int, width: int = 64, height: int = 48) -> Path:
    for tar in range(count):
        members = [
            (f"{number:04d}.{ending}", data)
            for number in range(tar * each, tar * each + each)
            for ending, data in (("jpg", jpeg(number, width, height)), ("txt", b"a dog"))
        ]
        write_tar(folder / f"{tar:05d}.tar", members)
    return folder


def tables(folder: Path) -> Path:
    folder.mkdir()
    for file in range(2):
        rows = [{"image": jpeg(file * 6 + row, 64, 48), "caption": "a dog"} for row in range(6)]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{file}.parquet")
    return folder


MAKE: dict[str, Callable[[Path], Path]] = {
    "tars": lambda folder: tars(folder, 2, 6),
    "parquet": tables,
    "pictures": lambda folder: picture_folder(folder, 12, width=64, height=48),
}


def vanish(path: Path) -> None:
    path.unlink()


def be_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def be_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def refuse(path: Path) -> None:
    """Even root cannot open it, and not because it is not there."""
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("kind", list(MAKE))
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (vanish, "is not there; it was when it was planned"),
        (be_cut, r"has [\d,]+ bytes; it was planned with [\d,]+"),
        (grow, r"has [\d,]+ bytes; it was planned with [\d,]+"),
        (be_a_folder, "is not there; it was when it was planned"),
        (refuse, "is not there|cannot be read now"),
    ],
)
def test_a_file_that_is_not_as_planned_fails_its_shard(
    tmp_path: Path, kind: str, change: Callable[[Path], None], said: str
) -> None:
    source = MAKE[kind](tmp_path / "stills")
    out = tmp_path / "out"
    assert animate(source, out, shard_size=6) == 0
    expected = data_digests(out)
    plan = read_plan(Folder(str(out)), 0)
    for path in out.glob("shards/stills-000001.*"):
        path.unlink()
    victim = sorted(path for path in source.iterdir() if path.suffix != ".tsv")[-1]
    whole = victim.read_bytes()
    change(victim)
    with pytest.raises(SourceError, match=f"^stills/{victim.name} ({said})"):
        make_shard(ShardTask(str(out), 0, plan.digest, 1, attempt=1, max_rejected=99, job=str(source)))
    assert not list(out.glob("shards/*000001*")), "not published, and nothing is left of it"
    if victim.is_dir():
        victim.rmdir()
    victim.unlink(missing_ok=True)
    victim.write_bytes(whole)
    assert animate(source, out, shard_size=6) == 0
    assert data_digests(out) == expected


def test_the_shard_is_named_with_the_file_and_the_rest_is_built(tmp_path: Path) -> None:
    source, out = MAKE["pictures"](tmp_path / "stills"), tmp_path / "out"
    assert animate(source, out, shard_size=4) == 0
    expected = data_digests(out)
    for path in [*out.glob("shards/*.json"), out / "manifest.json"]:
        path.unlink()
    whole = (source / "00005.jpg").read_bytes()
    (source / "00005.jpg").unlink()
    said = stillreel("animate", source, out, "shard_size=4", "attempts=2", "ray=off")
    assert said.returncode == 1
    reason = "SourceError: stills/00005.jpg is not there; it was when it was planned"
    assert f"1 of 3 shards failed after 2 attempts: stills-000001 ({reason}, on " in said.stderr
    assert sorted(path.stem for path in out.glob("shards/*.json")) == ["stills-000000", "stills-000002"]
    (source / "00005.jpg").write_bytes(whole)
    assert animate(source, out, shard_size=4) == 0
    assert data_digests(out) == expected


def test_a_tar_renamed_in_the_middle_of_a_build_loses_nothing(tmp_path: Path) -> None:
    source = tars(tmp_path / "stills", 3, 20, width=320, height=240)
    settings = {"store": "frames", "frames": 24, "shard_size": 10}
    assert animate(source, tmp_path / "whole", **settings) == 0
    out = tmp_path / "out"
    words = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "stillreel", "animate", str(source), str(out), "ray=off", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
        end = time.monotonic() + 120
        while not list(out.glob("shards/*.json")):
            assert driver.poll() is None and time.monotonic() < end, "nothing came"
            time.sleep(0.002)
        (source / "00002.tar").rename(tmp_path / "elsewhere.tar")
        assert driver.stderr is not None
        said = driver.stderr.read()
    assert driver.returncode == 1, said
    assert "2 of 6 shards failed after 3 attempts: stills-000004, stills-000005 (SourceError: stills/00002.tar" in said
    assert not (out / "manifest.json").exists()
    again = stillreel("animate", source, out, "ray=off", *words)
    assert again.returncode == 2
    assert "has changed since it was planned: 00002.tar is gone or of another length" in again.stderr
    (tmp_path / "elsewhere.tar").rename(source / "00002.tar")
    assert animate(source, out, **settings) == 0
    assert data_digests(out) == data_digests(tmp_path / "whole")
    assert check(out).written == 60


def test_a_tar_that_was_cut_when_it_was_planned_stays_what_it_was(tmp_path: Path) -> None:
    source = tars(tmp_path / "stills", 1, 6)
    path = source / "00000.tar"
    with path.open("rb") as file:
        data = file.read()
    path.write_bytes(data[: data.rindex(b"\xff\xd8") + 600])  # inside the last picture
    assert animate(source, tmp_path / "out", max_rejects=1) == 0
    assert check(tmp_path / "out").problems == []
    assert sum(row["status"] == "written" for row in rows_of(tmp_path / "out")) == 5


def test_missing_is_what_the_plan_did_not_see(tmp_path: Path) -> None:
    source, out = picture_folder(tmp_path / "stills", 6), tmp_path / "out"
    whole = (source / "00003.jpg").read_bytes()
    (source / "00003.jpg").unlink()
    assert animate(source, out, max_rejects=1) == 0
    row = read_plan(Folder(str(out)), 0).read_shard(0)[3]
    assert row.problem is not None and row.problem.startswith("missing: stills/00003.jpg is not there")
    assert row.length == -1
    (source / "00003.jpg").write_bytes(whole)
    expected = data_digests(out)
    for path in out.glob("shards/*"):
        path.unlink()
    assert animate(source, out, max_rejects=1) == 0
    assert data_digests(out) == expected, "as planned, though it is there now"
    assert animate(source, out, max_rejects=1, extend="rejects") == 0
    assert check(out).written == 6


def test_pictures_behind_links_and_hidden_ones_are_seen(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "stills", 4, width=64, height=48)
    (source / "00001.jpg").rename(tmp_path / "there.jpg")
    (source / "00001.jpg").symlink_to(tmp_path / "there.jpg")
    (source / "00002.jpg").rename(source / ".hidden.jpg")
    with (source / "captions.tsv").open("a") as table:
        table.write(f".hidden.jpg\ta cat\n{'long' * 99}.jpg\ta cow\n")
    assert animate(source, tmp_path / "out", max_rejects=1) == 0
    states = {str(row["source_key"])[:9]: row["reason"] for row in rows_of(tmp_path / "out")}
    expected = {"00002.jpg": "missing", "longlongl": "missing"}
    assert states == {**dict.fromkeys(("00000.jpg", "00001.jpg", "00003.jpg", ".hidden.j")), **expected}


def as_planned_before_lengths(out: Path) -> None:
    """Take from a plan what plans have only had since this promise is kept."""
    plan = read_plan(Folder(str(out)), 0)
    source = {name: value for name, value in plan.header.source.items() if name != "files"}
    whole_files = source["kind"] == "pictures"
    listed = [
        Listed(
            one.source,
            one.source_key,
            one.offset,
            -1 if whole_files else one.length,
            one.captions,
            None if whole_files else one.problem,
        )
        for rows in plan.read_all()
        for one in rows
    ]
    write_plan(plan.folder, replace(plan.header, source=source), listed, plan.header.left_out)


@pytest.mark.parametrize("kind", list(MAKE))
def test_a_plan_without_lengths_is_built_as_it_was(tmp_path: Path, kind: str) -> None:
    source, out = MAKE[kind](tmp_path / "stills"), tmp_path / "out"
    if kind == "pictures":
        (source / "00004.jpg").unlink()
    assert animate(source, out, shard_size=4, max_rejects=1) == 0
    expected = members_of_tars(out), [(row["source_key"], row["reason"]) for row in rows_of(out)]
    as_planned_before_lengths(out)
    for path in out.glob("shards/*"):
        path.unlink()
    assert animate(source, out, shard_size=4, max_rejects=1) == 0
    assert (members_of_tars(out), [(row["source_key"], row["reason"]) for row in rows_of(out)]) == expected
    assert check(out).problems == []


@pytest.mark.parametrize("kind", list(MAKE))
def test_nothing_is_rejected_where_there_is_no_source(tmp_path: Path, kind: str) -> None:
    """As on a machine of a cluster that lacks the mount, for plans of any age."""
    source, out = MAKE[kind](tmp_path / "stills"), tmp_path / "out"
    assert animate(source, out, shard_size=4) == 0
    shutil.rmtree(source)
    for _ in range(2):
        plan = read_plan(Folder(str(out)), 0)
        with pytest.raises(SourceError):
            make_shard(ShardTask(str(out), 0, plan.digest, 1, attempt=1, max_rejected=99, job=str(source)))
        as_planned_before_lengths(out)


def test_new_samples_are_added_while_a_planned_file_is_gone(tmp_path: Path) -> None:
    source, out = tars(tmp_path / "stills", 2, 6), tmp_path / "out"
    assert animate(source, out, shard_size=6) == 0
    for path in out.glob("shards/stills-000001.*"):
        path.unlink()
    (source / "00001.tar").rename(tmp_path / "kept.tar")
    write_tar(source / "00002.tar", [("new.jpg", jpeg(50)), ("new.txt", b"a cat")])
    with pytest.raises(DataError, match=r"1 of 3 shards failed .* stills-000001 \(SourceError: stills/00001.tar"):
        animate(source, out, shard_size=6, extend="new")
    (tmp_path / "kept.tar").rename(source / "00001.tar")
    assert animate(source, out, shard_size=6, extend="new") == 0
    assert check(out).written == 13
