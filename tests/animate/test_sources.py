"""Every kind of source, through the whole build: what is planned, what is read, what is said of the rest."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillreel.animate.sources import open_source
from stillreel.configs import RequestError
from stillreel.configs.build import SourceSettings
from stillreel.shards.format.plan import Listed
from tests.making import SHARED, animate, check, jpeg, members_of_tars, needs_shared, picture_folder, rows_of, write_tar


def listing(path: Path | str, **settings: str) -> list[Listed]:
    return list(open_source(str(path), SourceSettings(**settings)).listing())


def captions(path: Path | str, **settings: str) -> dict[str, tuple[str, ...]]:
    return {one.source_key: one.captions for one in listing(path, **settings)}


# --- a folder of pictures with a table ---------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg", "c.jpg"):
        (folder / name).write_bytes(jpeg(len(name)))
    return folder


EXPECTED = {"a.jpg": ("a dog", "ein Hund"), "sub/b.jpg": ('"quoted" cat',), "c.jpg": ("x, y",)}


def test_tsv_quotes_nothing(pictures: Path) -> None:
    (pictures / "captions.tsv").write_text(
        'file\tcaption\na.jpg\ta dog\nsub/b.jpg\t"quoted" cat\na.jpg\tein Hund\nc.jpg\tx, y\n'
    )
    assert captions(pictures) == EXPECTED


def test_csv_quotes(pictures: Path) -> None:
    with open(pictures / "captions.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("image", "text"),
                ("a.jpg", "a dog"),
                ("sub/b.jpg", '"quoted" cat'),
                ("a.jpg", "ein Hund"),
                ("c.jpg", "x, y"),
            ]
        )
    assert captions(pictures) == EXPECTED


def test_json_lines_and_parquet_with_lists_of_captions(pictures: Path) -> None:
    rows = [{"file_name": name, "captions": list(spoken)} for name, spoken in EXPECTED.items()]
    (pictures / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert captions(pictures) == EXPECTED
    (pictures / "metadata.jsonl").unlink()
    pq.write_table(pa.Table.from_pylist(rows), pictures / "metadata.parquet")
    assert captions(pictures) == EXPECTED


def test_coco_captions_stay_one_sample_with_all_of_them(pictures: Path) -> None:
    coco = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 3, "file_name": "c.jpg"}],
        "annotations": [
            {"image_id": 7, "id": 1, "caption": "a dog"},
            {"image_id": 3, "id": 2, "caption": "a cow\n"},
            {"image_id": 7, "id": 3, "caption": "ein Hund"},
        ],
    }
    (pictures / "captions_val2017.json").write_text(json.dumps(coco))
    assert captions(pictures) == {"a.jpg": ("a dog", "ein Hund"), "c.jpg": ("a cow",)}


def test_table_elsewhere_and_other_columns(pictures: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("id,where,what\n1,a.jpg,a dog\n")
    assert captions(pictures, captions=str(table), picture="where", caption="what") == {"a.jpg": ("a dog",)}
    with pytest.raises(RequestError, match=r"no column 'wher'; it has id, where, what"):
        listing(pictures, captions=str(table), picture="wher", caption="what")
    with pytest.raises(
        RequestError, match=r"no column named file, .* it has id, where, what. Name one with source.picture="
    ):
        listing(pictures, captions=str(table))


def test_source_may_be_the_table_itself(pictures: Path) -> None:
    (pictures / "captions.tsv").write_text("file\tcaption\na.jpg\ta dog\n")
    assert captions(pictures / "captions.tsv") == {"a.jpg": ("a dog",)}


def test_odd_rows_become_rejections_that_say_why(pictures: Path, tmp_path: Path) -> None:
    rows = b"file\tcaption\na.jpg\t  \nsub/b.jpg\tcaf\xe9\nc.jpg\tf\xc3\xafn\xc3\xab\nnone.jpg\tnot there\n../up.jpg\toutside\n"
    rows += b"b\xff.jpg\tbytes\n"
    (pictures / "captions.tsv").write_bytes(rows)
    assert animate(pictures, tmp_path / "out", max_rejects=1) == 0
    found = {row["source_key"]: (row["reason"], row["detail"]) for row in rows_of(tmp_path / "out")}
    assert found == {
        "a.jpg": ("no_caption", "only blanks"),
        "sub/b.jpg": ("bad_caption", "not UTF-8 at character 3"),
        "c.jpg": (None, None),
        "none.jpg": ("missing", "photos/none.jpg is not there"),
        "../up.jpg": ("missing", "'../up.jpg' is no path within the source's folder"),
        "b\\udcff.jpg": ("missing", "the name 'b\\\\udcff.jpg' is not UTF-8"),
    }


def test_pictures_without_a_caption_are_counted(pictures: Path) -> None:
    (pictures / "captions.tsv").write_text("file\tcaption\na.jpg\ta dog\n")
    source = open_source(str(pictures), SourceSettings())
    assert len(list(source.listing())) == 1
    assert source.left_out == {"pictures in the folder that the table does not name": 2}


def test_missing_or_several_tables_are_said(pictures: Path) -> None:
    with pytest.raises(RequestError, match="no captions table"):
        listing(pictures)
    for name in ("captions.tsv", "captions.csv"):
        (pictures / name).write_text("file\tcaption\n")
    with pytest.raises(
        RequestError, match=r"has 2 tables: captions.csv, captions.tsv; choose one with source.captions="
    ):
        listing(pictures)


def test_no_such_source(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file or folder"):
        listing(tmp_path / "none")
    (tmp_path / "notes.doc").write_bytes(b"")
    with pytest.raises(RequestError, match=r"expected a folder, a .tar, a .parquet or a captions table"):
        listing(tmp_path / "notes.doc")


# --- tars --------------------------------------------------------------------------------------------------------------


def test_plain_webdataset_shards(tmp_path: Path) -> None:
    members = [
        ("b.jpg", jpeg(1)),
        ("b.txt", b"second"),
        ("a.png", jpeg(2)),
        ("a.json", b'{"caption": "first"}'),
        ("dir/c.JPG", jpeg(3)),
        ("dir/c.txt", b"third "),
    ]
    write_tar(tmp_path / "wds" / "x-0001.tar", members)
    write_tar(tmp_path / "wds" / "x-0000.tar", [("b.jpg", jpeg(4)), ("b.txt", b"of another tar")])
    found = listing(tmp_path / "wds")
    assert [(one.source, one.source_key, one.captions) for one in found] == [
        ("wds/x-0000.tar", "b", ("of another tar",)),
        ("wds/x-0001.tar", "a", ("first",)),
        ("wds/x-0001.tar", "b", ("second",)),
        ("wds/x-0001.tar", "dir/c", ("third",)),
    ]
    assert animate(tmp_path / "wds", tmp_path / "out") == 0
    assert members_of_tars(tmp_path / "out")["wds_000000002.jpg"] == jpeg(1)
    assert captions(tmp_path / "wds" / "x-0000.tar") == {"b": ("of another tar",)}


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_any_format_with_long_names(tmp_path: Path, kind: int) -> None:
    long = "deep/" * 15 + "é" * (20 if kind == tarfile.USTAR_FORMAT else 60)
    write_tar(
        tmp_path / "t" / "a.tar",
        [(f"{long}.jpg", jpeg(1)), (f"{long}.txt", b"a dog"), ("z.jpg", jpeg(2)), ("z.txt", b"a cat")],
        kind,
    )
    assert captions(tmp_path / "t") == {long: ("a dog",), "z": ("a cat",)}
    assert animate(tmp_path / "t", tmp_path / "out") == 0
    assert members_of_tars(tmp_path / "out")["t_000000000.jpg"] == jpeg(1)


def test_folders_and_links_in_a_tar_are_passed_over(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t" / "a.tar", [("a.jpg", jpeg(1)), ("a.txt", b"a dog")])
    with tarfile.open(path, "a") as tar:
        for name, kind in (("folder", tarfile.DIRTYPE), ("link", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.jpg" if kind == tarfile.SYMTYPE else ""
            tar.addfile(info)
    assert captions(tmp_path / "t") == {"a": ("a dog",)}


def test_caption_of_a_sample_with_json_and_text(tmp_path: Path) -> None:
    members = [
        ("all.jpg", jpeg(1)), ("all.txt", b"one"), ("all.json", b'{"captions": ["one", "two", ""]}'),
        ("broken.jpg", jpeg(1)), ("broken.txt", b"kept"), ("broken.json", b"{"),
        ("none.jpg", jpeg(1)),
        ("bad.jpg", jpeg(1)), ("bad.txt", b"\xff\xfe"),
        ("two.jpg", jpeg(1)), ("two.png", jpeg(1)), ("two.txt", b"which?"),
        ("words.txt", b"no picture"),
    ]  # fmt: skip
    write_tar(tmp_path / "t" / "a.tar", members)
    source = open_source(str(tmp_path / "t"), SourceSettings())
    found = {one.source_key: (one.captions, one.problem) for one in source.listing()}
    assert found == {
        "all": (("one", "two"), None),
        "broken": (("kept",), None),
        "none": ((), "no_caption: neither .txt nor .json has one"),
        "bad": ((), "bad_caption: not UTF-8 at byte 0"),
        "two": (("which?",), "ambiguous: 2 pictures: .jpg, .png"),
    }
    assert source.left_out == {"samples without a picture": 1}


@pytest.mark.parametrize("cut", [1500, 512, 700])
def test_cut_tar_gives_what_it_holds_and_says_the_rest(tmp_path: Path, cut: int) -> None:
    path = write_tar(
        tmp_path / "t" / "a.tar", [("a.jpg", jpeg(1)), ("a.txt", b"a dog"), ("b.jpg", jpeg(2)), ("b.txt", b"a cat")]
    )
    with tarfile.open(path) as tar:
        second = tar.getmember("b.jpg").offset
    path.write_bytes(path.read_bytes()[: second + cut])
    source = open_source(str(tmp_path / "t"), SourceSettings())
    found = {one.source_key: one for one in source.listing()}
    assert found["a"].captions == ("a dog",)
    assert any("damages in tars" in what for what in source.left_out)
    assert animate(tmp_path / "t", tmp_path / "out", max_rejects=1) == 0
    assert check(tmp_path / "out").problems == []
    assert {row["source_key"]: row["reason"] for row in rows_of(tmp_path / "out")}["a"] is None


def test_garbage_named_tar_is_said(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.tar").write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(RequestError, match="lists no samples; left out: damages in tars"):
        animate(tmp_path / "t", tmp_path / "out")
    with pytest.raises(RequestError, match="no captions table"):
        animate(shutil.copytree(tmp_path / "t", tmp_path / "u", ignore=lambda *_: ["a.tar"]), tmp_path / "out")


def img2dataset_shard(
    folder: Path, shard: int, keys: list[str], failed: list[str], *, done: bool = True, lost: str = ""
) -> None:
    """A shard as img2dataset leaves it: members in completion order, a row for each failure, stats last."""
    members = [
        (f"{key}.{ending}", data)
        for key in keys
        for ending, data in (
            ("jpg", jpeg(int(key))),
            ("json", json.dumps({"caption": f"picture {key}", "key": key}).encode()),
            ("txt", f"picture {key}".encode()),
        )
    ]
    write_tar(folder / f"{shard:05d}.tar", members)
    if done:
        rows = [
            {"key": key, "status": "success", "caption": f"picture {key}"} for key in [*keys, *([lost] if lost else [])]
        ]
        rows += [{"key": key, "status": "failed_to_download", "caption": "gone"} for key in failed]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05d}.parquet")
        (folder / f"{shard:05d}_stats.json").write_text(json.dumps({"count": len(rows), "successes": len(keys)}))


def test_img2dataset_folder_with_all_its_quirks(tmp_path: Path) -> None:
    folder = tmp_path / "cc3m"
    folder.mkdir()
    img2dataset_shard(folder, 0, ["000000003", "000000001", "000000000"], ["000000002"], lost="000000004")
    img2dataset_shard(folder, 1, ["000010000"], ["000010001", "000010002"])
    img2dataset_shard(folder, 2, ["000020000"], [], done=False)
    source = open_source(str(folder), SourceSettings())
    found = list(source.listing())
    assert [one.source_key for one in found] == ["000000000", "000000001", "000000003", "000000004", "000010000"], (
        "by key"
    )
    assert found[3].problem == "missing: its table has it as downloaded, the tar does not hold it"
    assert source.left_out == {"rows with status failed_to_download": 3, "tars that img2dataset has not finished": 1}
    assert animate(folder, tmp_path / "out", max_rejects=1) == 0
    assert members_of_tars(tmp_path / "out")["cc3m_000000002.jpg"] == jpeg(3)
    # When it has finished the third tar, its samples are an extension.
    img2dataset_shard(folder, 2, ["000020000"], [])
    with pytest.raises(RequestError, match=r"has changed since it was planned.*extend=new"):
        animate(folder, tmp_path / "out", max_rejects=1)
    assert animate(folder, tmp_path / "out", max_rejects=1, extend="new") == 0
    verdict = check(tmp_path / "out")
    assert verdict.problems == []
    assert (verdict.planned, verdict.written, dict(verdict.rejected)) == (6, 5, {"missing": 1})


# --- Parquet -----------------------------------------------------------------------------------------------------------


def test_parquet_with_picture_bytes(tmp_path: Path) -> None:
    rows = [
        {"image": {"bytes": jpeg(number), "path": None}, "text": f"picture {number}", "id": number * 10}
        for number in range(70)
    ]
    (tmp_path / "hf").mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:40]), tmp_path / "hf" / "0.parquet", row_group_size=7)
    pq.write_table(pa.Table.from_pylist(rows[40:]), tmp_path / "hf" / "1.parquet", row_group_size=1000)
    assert animate(tmp_path / "hf", tmp_path / "out", shard_size=30) == 0
    members = members_of_tars(tmp_path / "out")
    assert all(members[f"hf_{number:09d}.jpg"] == jpeg(number) for number in range(70))
    assert rows_of(tmp_path / "out")[41]["source_key"] == "410"


def test_parquet_with_plain_bytes_and_holes(tmp_path: Path) -> None:
    table = pa.table({"jpg": pa.array([jpeg(1), None, b"junk"], pa.binary()), "caption": ["a dog", "a cat", "a cow"]})
    (tmp_path / "p").mkdir()
    pq.write_table(table, tmp_path / "p" / "x.parquet")
    assert animate(tmp_path / "p" / "x.parquet", tmp_path / "out", max_rejects=1) == 0
    assert [(row["source_key"], row["reason"]) for row in rows_of(tmp_path / "out")] == [
        ("x.parquet#0", None), ("x.parquet#1", "missing"), ("x.parquet#2", "not_an_image"),
    ]  # fmt: skip


# --- real ones ---------------------------------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize("store", ["recipe", "frames", "video"])
@pytest.mark.parametrize(
    ("name", "count", "spoken"),
    [("cc12m_shard", 32, 1), ("cc3m_val", 50, 1), ("coco_mini", 169, 5), ("openstax", 123, 1)],
)
def test_real_pictures_in_all_stores(tmp_path: Path, store: str, name: str, count: int, spoken: int) -> None:
    assert animate(SHARED / "data" / "images" / name, tmp_path, store=store, frames=4, size=64) == 0
    verdict = check(tmp_path)
    assert verdict.problems == []
    assert (verdict.planned, verdict.written) == (count, count)
    assert {len(row["captions"]) for row in rows_of(tmp_path)} == {spoken}  # type: ignore[arg-type]


def test_extension_with_a_namesake_is_refused(tmp_path: Path) -> None:
    first, second = picture_folder(tmp_path / "a" / "photos", 3), picture_folder(tmp_path / "b" / "photos", 4)
    assert animate(first, tmp_path / "out") == 0
    with pytest.raises(RequestError, match=r"holds clips of .*a/photos, not of .*b/photos. To add this source"):
        animate(second, tmp_path / "out")
    with pytest.raises(RequestError, match=r"has the name of .* but other contents"):
        animate(second, tmp_path / "out", extend="new")


def test_moved_source_is_still_itself(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "a" / "photos", 5)
    assert animate(source, tmp_path / "out", shard_size=2) == 0
    moved = shutil.move(source, tmp_path / "elsewhere")
    for path in (tmp_path / "out" / "shards").glob("photos-000001.*"):
        path.unlink()
    Path(moved).rename(tmp_path / "photos")
    assert animate(tmp_path / "photos", tmp_path / "out", shard_size=2) == 0
    assert check(tmp_path / "out").problems == []


def test_mended_rejects_are_an_extension(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "photos", 6)
    whole = (source / "00002.jpg").read_bytes()
    (source / "00002.jpg").write_bytes(whole[:300])
    (source / "00004.jpg").write_bytes(b"junk")
    assert animate(source, tmp_path / "out", max_rejects=1) == 0
    (source / "00002.jpg").write_bytes(whole)
    assert animate(source, tmp_path / "out", max_rejects=1, extend="rejects") == 0
    verdict = check(tmp_path / "out")
    assert verdict.problems == []
    assert (verdict.planned, verdict.written) == (8, 5)
    written = [row["source_key"] for row in rows_of(tmp_path / "out") if row["status"] == "written"]
    assert sorted(written) == ["00000.jpg", "00001.jpg", "00002.jpg", "00003.jpg", "00005.jpg"], "each once"
    assert animate(source, tmp_path / "out", max_rejects=1, extend="rejects") == 0
    assert check(tmp_path / "out").planned == 9, "the one that is still junk is tried again, and only that"
