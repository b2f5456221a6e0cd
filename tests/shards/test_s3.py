"""A build into a bucket and out of one: a real S3 server (moto) on this machine, through s3fs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillreel import shards
from stillreel.animate import SampleDecoder
from stillreel.animate.clips.clip import make_shard
from stillreel.animate.sources.base import SourceError
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.executors import ShardTask
from stillreel.shards.format.plan import read_plan
from tests.making import animate, check, data_digests, jpeg, picture_folder, s3_bucket, stillreel, write_tar


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket("clips") as url:
        yield url


def fetched(url: str, home: Path) -> Path:
    """A copy of a bucket's folder on the disk."""
    folder = Folder(url)
    for name in folder.listing().sizes:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(folder.read(name))
    return home


def test_samples_are_copied_out_of_a_bucket_and_into_one(bucket: str, built: dict[str, Path], tmp_path: Path) -> None:
    Folder(bucket).fs.put(str(built["recipe"]), f"{bucket}/whole", recursive=True)
    for clips, out in ((f"{bucket}/whole", f"{bucket}/some"), (built["recipe"], tmp_path / "some")):
        said = stillreel("select", clips, out, "where=fold < 0.6", "unique=exact", "shard_size=4")
        assert said.returncode == 0, said.stderr
    assert not check(f"{bucket}/some").problems
    there, here = data_digests(fetched(f"{bucket}/some", tmp_path / "fetched")), data_digests(tmp_path / "some")
    assert {name for name in there if there[name] != here.get(name)} == {"plan-000.parquet"}, (
        "which says where CLIPS lie"
    )


def test_build_into_a_bucket_and_resume_there(
    bucket: str, stills: Path, built: dict[str, Path], tmp_path: Path
) -> None:
    out = f"{bucket}/film"
    words = ("animate", stills, out, "shard_size=10", "frames=5", "size=64")
    said = stillreel(*words, "ray=local", "workers=2")
    assert said.returncode == 0, said.stderr
    assert data_digests(fetched(out, tmp_path / "first")) == data_digests(built["recipe"])
    assert stillreel("verify", out).returncode == 0
    # What a killed run leaves: a tar without its receipt, and no manifest.
    folder = Folder(out)
    kept = folder.read("shards/stills-000000.json")
    for name in ("shards/stills-000001.json", "shards/stills-000002.idx", "manifest.json"):
        folder.remove(name)
    assert stillreel("verify", out).returncode == 1
    again = stillreel(*words, "ray=off")
    assert again.returncode == 0, again.stderr
    assert "3 shards: 1 valid, 1 damaged, 0 stale, 1 missing" in again.stderr
    assert folder.read("shards/stills-000000.json") == kept
    assert data_digests(fetched(out, tmp_path / "second")) == data_digests(built["recipe"])
    assert not check(out).problems


def test_a_bucket_that_is_not_there_is_said_before_anything_is_planned(
    bucket: str, stills: Path, tmp_path: Path
) -> None:
    for source, out, named in (
        (stills, "s3://nowhere/out", "OUT s3://nowhere/out"),
        ("s3://nowhere/stills", tmp_path / "out", "SOURCE s3://nowhere/stills"),
    ):
        said = stillreel("animate", source, out)
        assert said.returncode == 2, said.stderr
        assert named in said.stderr and "Traceback" not in said.stderr and "planned" not in said.stderr, said.stderr
    assert not (tmp_path / "out").exists()


def test_page_and_figures_of_a_bucket(bucket: str, stills: Path) -> None:
    out = f"{bucket}/seen"
    assert animate(stills, out) == 0
    assert stillreel("preview", out, "samples=3").returncode == 0
    assert Folder(out).read("preview.html").count(b"<article") == 3
    assert "written 25" in stillreel("stats", out).stdout


def test_readers_of_a_bucket(bucket: str, stills: Path, built: dict[str, Path]) -> None:
    out = f"{bucket}/read"
    assert animate(stills, out, shard_size=10, frames=5, size=64) == 0
    here = {
        clip.key: clip.frames.tobytes() for clip in shards.as_webdataset(str(built["recipe"]), SampleDecoder(5, 64))
    }
    there = {clip.key: clip.frames.tobytes() for clip in shards.as_webdataset(out, SampleDecoder(5, 64))}
    assert there == here


@pytest.mark.parametrize("kind", ["tars", "pictures"])
def test_sources_in_a_bucket(bucket: str, tmp_path: Path, kind: str) -> None:
    local = tmp_path / "photos"
    if kind == "pictures":
        picture_folder(local, 70)
    else:
        for tar in range(2):
            members = [
                (f"{n:03d}.{e}", d)
                for n in range(tar * 40, tar * 40 + 40)
                for e, d in (("jpg", jpeg(n)), ("txt", b"a dog"))
            ]
            write_tar(local / f"{tar}.tar", members)
    remote = Folder(f"{bucket}/{kind}/photos")
    for path in local.iterdir():
        remote.publish(path.name, path.read_bytes())
    assert animate(local, tmp_path / "here", shard_size=30) == 0
    assert animate(remote.url, tmp_path / "there", shard_size=30) == 0
    here, there = data_digests(tmp_path / "here"), data_digests(tmp_path / "there")
    here.pop("plan-000.parquet"), there.pop("plan-000.parquet")  # it says where its source lay
    assert here == there


@pytest.mark.parametrize("change", ["gone", "longer", "shorter"])
@pytest.mark.parametrize("kind", ["tars", "pictures", "parquet"])
def test_source_in_a_bucket_that_is_not_as_planned_rejects_nothing(
    bucket: str, tmp_path: Path, kind: str, change: str
) -> None:
    remote = Folder(f"{bucket}/{kind}-{change}/photos")
    if kind == "pictures":
        picture_folder(tmp_path / "photos", 6)
    elif kind == "tars":
        members = [(f"{n}.{e}", d) for n in range(6) for e, d in (("jpg", jpeg(n)), ("txt", b"a dog"))]
        write_tar(tmp_path / "photos" / "0.tar", members)
    else:
        (tmp_path / "photos").mkdir()
        rows = [{"image": jpeg(number), "caption": "a dog"} for number in range(6)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "photos" / "0.parquet")
    for path in (tmp_path / "photos").iterdir():
        remote.publish(path.name, path.read_bytes())
    out = tmp_path / "out"
    assert animate(remote.url, out, shard_size=3) == 0
    expected = data_digests(out)
    for path in out.glob("shards/photos-000001.*"):
        path.unlink()
    victim = "00004.jpg" if kind == "pictures" else next(iter(remote.sizes()))
    whole = remote.read(victim)
    if change == "gone":
        remote.remove(victim)
    else:
        remote.publish(victim, whole + b"more" if change == "longer" else whole[:-100])
    task = ShardTask(str(out), 0, read_plan(Folder(str(out)), 0).digest, 1, attempt=1, max_rejected=9, job=remote.url)
    with pytest.raises(SourceError, match=f"^photos/{victim} (is not there|has .* bytes); it was"):
        make_shard(task)
    remote.publish(victim, whole)
    assert animate(remote.url, out, shard_size=3) == 0
    assert data_digests(out) == expected
