"""The catalog: tars that we did not write become a data set of the stream, and what is wrong with them is said."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import webdataset as wds

from stillreel.configs import DataError, RequestError
from stillreel.configs.stream import CatalogSettings
from stillreel.pretrain.data import ClipLoader, Share
from stillreel.shards.commands.catalog import run
from stillreel.shards.format.index import decode_index
from stillreel.shards.stream.stream import open_blend
from tests.making import SHARED, encoded, jpeg, needs_shared, picture, stillreel, write_tar
from tests.streaming import read_steps, settings_of

Members = list[tuple[str, bytes]]


def catalog(tars: Path, out: Path) -> int:
    return run(str(tars), str(out), CatalogSettings(progress="off"))


def members(first: int, count: int, folder: str = "") -> Members:
    return [
        (f"{folder}{number:04d}.{ending}", data)
        for number in range(first, first + count)
        for ending, data in (("jpg", jpeg(number)), ("txt", f"dog {number}".encode()))
    ]


def keys_of(found: list[list[str]]) -> set[str]:
    return {clip.split()[0] for step in found for clip in step}


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["", "./train/", "Fotos für alle/" + "langer Name " * 12 + "/"])
def test_any_tar_is_read_as_webdataset_splits_it(kind: int, folder: str, tmp_path: Path) -> None:
    if kind == tarfile.USTAR_FORMAT and not folder.isascii():
        folder = "a/"
    tars = tmp_path / "tars"
    write_tar(tars / "00000.tar", members(0, 5, folder), kind)
    write_tar(tars / "deep" / "00001.tar", members(5, 3, folder), kind)
    assert catalog(tars, tmp_path / "out") == 0
    peers = wds.WebDataset([str(path) for path in sorted(tars.rglob("*.tar"))], shardshuffle=False)
    blend = open_blend(str(tmp_path / "out"))
    keys = {key for batch in ClipLoader(blend, settings_of(), Share(4), steps=2) for key in batch.keys}
    assert keys == {sample["__key__"] for sample in peers}


def test_on_ray_it_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tars = tmp_path / "tars"
    for number in range(4):
        write_tar(tars / f"{number}.tar", members(5 * number, 5))
    (tars / "2.tar").write_bytes((tars / "2.tar").read_bytes()[:9000])
    said, found = [], []
    for ray in ("off", "local"):
        out = tmp_path / ray
        assert run(str(tars), str(out), CatalogSettings(progress="off", ray=ray, workers=2)) == 1
        said.append(capsys.readouterr().out)
        found.append({str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert said[0] == said[1] and "2.tar" in said[0]
    assert found[0] == found[1] and len(found[0]) == 5


def test_webdataset_s_own_writer(tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    with wds.TarWriter(str(tmp_path / "tars" / "0.tar")) as tar:
        for number in range(6):
            tar.write({"__key__": f"k{number}", "jpg": jpeg(number), "json": {"caption": f"dog {number}"}})
    assert catalog(tmp_path / "tars", tmp_path / "out") == 0
    batch = next(iter(ClipLoader(open_blend(str(tmp_path / "out")), settings_of(), Share(6))))
    assert sorted(batch.captions) == [f"dog {number}" for number in range(6)]


@needs_shared
def test_img2dataset_shard_of_real_pictures(tmp_path: Path) -> None:
    assert catalog(SHARED / "data" / "images" / "cc12m_shard", tmp_path / "out") == 0
    found, _ = read_steps(tmp_path / "out", settings_of(size=64), batch=8, steps=4, workers=1)
    assert len(keys_of(found)) == 32


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_pictures_of_any_kind(kind: str, tmp_path: Path) -> None:
    ending = {"TIFF": "tif"}.get(kind, kind.lower())
    write_tar(tmp_path / "tars" / "0.tar", [(f"a.{ending}", encoded(picture(1), kind)), ("a.txt", b"a dog")])
    assert catalog(tmp_path / "tars", tmp_path / "out") == 0
    for render in ("loader", "device"):
        found, _ = read_steps(tmp_path / "out", settings_of(render=render), batch=2, steps=1)
        assert keys_of(found) == {"a"}


def test_what_is_wrong_is_said_and_what_is_whole_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tars = tmp_path / "tars"
    whole = write_tar(tars / "0.tar", members(0, 4)).read_bytes()
    (tars / "1.tar").write_bytes(whole[:20_000])
    hole = bytearray(whole)
    at = whole.index(b"0002.jpg")
    hole[at : at + 1024] = bytes(1024)
    (tars / "2.tar").write_bytes(hole)
    (tars / "3.tar").write_bytes(b"this is no tar" * 100)
    write_tar(tars / "4.tar", [*members(0, 2), ("0000.json", b"{}"), *members(7, 1), ("0007.jpg", jpeg())])
    assert catalog(tars, tmp_path / "out") == 1
    said = capsys.readouterr().out
    assert "PROBLEM 1.tar: 0002.jpg: cut at byte 20000, of the 5,656 bytes that it claims" in said
    assert "PROBLEM 2.tar: zeroed hole at byte " in said
    assert "PROBLEM 2.tar: 0001: left out: the last before the damage, and maybe not whole" in said
    assert "PROBLEM 3.tar: damaged at byte 0: " in said
    assert "PROBLEM 4.tar: 0000: left out: stands in 2 places" in said
    assert "PROBLEM 4.tar: 0007: left out: two members of one ending" in said
    lines = json.loads((tmp_path / "out" / "catalog.json").read_text())["shards"]
    counts = [line["samples"] for line in lines]
    assert (counts[0], counts[3], counts[4]) == (4, 0, 1)
    found, _ = read_steps(tmp_path / "out", settings_of(), batch=4, steps=4)
    assert "0001" in keys_of(found)


def test_tars_that_img2dataset_has_not_finished_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tars = tmp_path / "tars"
    for number in range(3):
        write_tar(tars / f"{number:05d}.tar", members(4 * number, 4))
    for number, successes in ((0, 4), (1, 5)):
        (tars / f"{number:05d}_stats.json").write_text(json.dumps({"successes": successes}))
    assert catalog(tars, tmp_path / "out") == 1
    said = capsys.readouterr().out
    assert "PROBLEM 00002.tar: left out: img2dataset has not finished it" in said
    assert "PROBLEM 00001.tar: holds 4 samples; img2dataset counted 5" in said
    assert "2 tars, 8 samples (jpg+txt 8)" in said


def test_later_damage_is_seen(tmp_path: Path) -> None:
    tars = tmp_path / "tars"
    path = write_tar(tars / "0.tar", members(0, 4))
    assert catalog(tars, tmp_path / "out") == 0
    blob = bytearray(path.read_bytes())
    blob[2000] ^= 1
    path.write_bytes(blob)
    loader = ClipLoader(open_blend(str(tmp_path / "out")), settings_of(), Share(4), steps=1)
    (batch,) = loader
    assert "0000" not in batch.keys
    assert [one.rpartition("/")[2] for one in loader.damage] == ["0.tar, 0000: not the bytes that were written"]


def test_index_of_another_catalog_is_seen(tmp_path: Path) -> None:
    tars = tmp_path / "tars"
    write_tar(tars / "0.tar", members(0, 4))
    write_tar(tars / "1.tar", members(4, 4))
    assert catalog(tars, tmp_path / "out") == 0
    index = tmp_path / "out" / "index"
    assert len(decode_index((index / "0.idx").read_bytes())) == 4
    (index / "0.idx").write_bytes((index / "1.idx").read_bytes())
    loader = ClipLoader(open_blend(str(tmp_path / "out")), settings_of(), Share(8), steps=1)
    list(loader)
    assert len(loader.damage) == 1 and "is not the index that the catalog speaks of" in next(iter(loader.damage))


@pytest.mark.parametrize("where", ["", "catalog", "deep/er"])
def test_catalog_among_the_tars_is_refused(where: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "tars" / "0.tar", members(0, 2))
    with pytest.raises(RequestError, match="lie in each other"):
        catalog(tmp_path / "tars", tmp_path / "tars" / where)
    assert sorted(path.name for path in (tmp_path / "tars").iterdir()) == ["0.tar"]


def test_command_lines_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    said = stillreel("catalog", tmp_path / "none", tmp_path / "out")
    assert (said.returncode, "holds no .tar" in said.stderr) == (2, True)
    said = stillreel("stream", tmp_path / "none")
    assert said.returncode == 2
    assert "holds neither manifest.json (a finished build) nor catalog.json" in said.stderr
    write_tar(tmp_path / "empty" / "0.tar", [])
    with pytest.raises(DataError, match="holds no samples"):
        catalog(tmp_path / "empty", tmp_path / "out")
