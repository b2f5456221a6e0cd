"""`stillreel repair OUT`: what is damaged comes back as it was, from OUT's own plans."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stillreel.animate.commands import repair as command
from stillreel.configs import RequestError
from stillreel.configs.build import RepairSettings
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.manifest import read_manifest
from tests.making import animate, check, data_digests, jpeg, picture_folder, stillreel


def repair(out: Path, **settings: object) -> int:
    return command.run(str(out), RepairSettings.resolve({"ray": "inline", "progress": "off", **settings}))


@pytest.fixture
def out(built: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(built["recipe"], tmp_path / "out"))


def times(out: Path, shard: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob(f"shards/{shard}.*")}


def test_damaged_and_missing_shards_come_back_and_others_are_left(built: dict[str, Path], out: Path) -> None:
    tar = out / "shards" / "stills-000001.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 3] ^= 1  # as long as before: only its bytes show it
    tar.write_bytes(data)
    (out / "shards" / "stills-000002.json").unlink()
    (out / "manifest.json").unlink()
    before = times(out, "stills-000000")
    assert check(out).problems
    assert repair(out) == 0
    assert data_digests(out) == data_digests(built["recipe"])
    assert not check(out).problems
    assert times(out, "stills-000000") == before


def test_sizes_alone_do_not_show_a_flipped_bit(out: Path) -> None:
    tar = out / "shards" / "stills-000001.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 3] ^= 1
    tar.write_bytes(data)
    assert repair(out, check="sizes") == 0
    assert tar.read_bytes() == bytes(data)


def test_a_source_that_moved_and_one_that_grew(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "then" / "photos", 9)
    assert animate(source, tmp_path / "out", shard_size=3) == 0
    expected = data_digests(tmp_path / "out")
    (tmp_path / "now").mkdir()
    moved = source.rename(tmp_path / "now" / "photos")
    (moved / "more.jpg").write_bytes(jpeg(77))
    (tmp_path / "out" / "shards" / "photos-000001.tar").unlink()
    assert repair(tmp_path / "out", source=str(moved)) == 0
    assert data_digests(tmp_path / "out") == expected


def test_rejects_are_tried_again_as_an_extension(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "photos", 8)
    whole = (source / "00003.jpg").read_bytes()
    (source / "00003.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert animate(source, out, shard_size=4, max_rejects=1, seed=5, frames=7) == 0
    before = data_digests(out)
    (source / "00003.jpg").write_bytes(whole)
    assert repair(out) == 0
    assert data_digests(out) == before, "rejects are left as they are unless they are asked for"
    assert repair(out, retry_rejects=True) == 0
    manifest = read_manifest(Folder(str(out)))
    assert (len(manifest.plans), manifest.totals.written, manifest.totals.planned) == (2, 8, 9)
    assert {name: digest for name, digest in data_digests(out).items() if name in before} == before
    assert manifest.plans[1].settings == manifest.plans[0].settings
    assert not check(out).problems
    assert repair(out, retry_rejects=True) == 0
    assert len(read_manifest(Folder(str(out))).plans) == 2, "nothing is left to try"


def test_a_plan_that_was_edited_is_not_built_from(out: Path, tmp_path: Path) -> None:
    other = picture_folder(tmp_path / "stills", 12)
    assert animate(other, tmp_path / "other", shard_size=10) == 0
    shutil.copy(tmp_path / "other" / "plan-000.parquet", out)
    with pytest.raises(RequestError, match=r"plan-000\.parquet is not the plan that was built"):
        repair(out)


def test_what_is_not_of_animate_says_what_to_run(out: Path, tmp_path: Path) -> None:
    assert stillreel("select", out, tmp_path / "some", "where=fold < 0.6").returncode == 0
    with pytest.raises(RequestError, match=r"copied from .*/out: run the `stillreel select` or `reshard` that made it"):
        repair(tmp_path / "some")
    said = stillreel("repair", tmp_path / "nothing")
    assert said.returncode == 1 and "holds no plan" in said.stderr
