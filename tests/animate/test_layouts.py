"""Corpora as they lie around, each drawn small: what a listing of them holds is what somebody who looked would count."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import queue
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillreel.animate.sources import Source, open_source
from stillreel.configs import DataError, RequestError
from stillreel.configs.build import SourceSettings
from stillreel.shards.commands.catalog import scan_samples
from stillreel.shards.stream.stream import open_blend
from tests.animate.layouts import Spoken, link, opened, stills
from tests.making import animate, check, jpeg, members_of_tars, rows_of, write_tar

# --- folders -----------------------------------------------------------------------------------------------------------


def test_pictures_beside_their_texts(tmp_path: Path) -> None:
    folder = stills(tmp_path / "s", "a.jpg", "deep/b.PNG", "c.webp", "lonely.jpg")
    (folder / "a.txt").write_text("a dog")
    (folder / "deep" / "b.json").write_text('{"caption": "a cat"}')
    (folder / "c.txt").write_text("one")
    (folder / "c.json").write_text('{"captions": ["one", "two"]}')
    source, sound, _ = opened(folder)
    assert sound == {"a.jpg": ("a dog",), "deep/b.PNG": ("a cat",), "c.webp": ("one", "two")}
    assert source.left_out == {"pictures without a text file or JSON beside them": 1}
    assert animate(folder, tmp_path / "out") == 0
    assert check(tmp_path / "out").problems == []


def img2dataset(folder: Path, layout: str) -> Path:
    """Two shards as img2dataset leaves them in each of its layouts; of five rows one failed, and a third shard is not done."""
    for shard, keys in ((0, ["000000000", "000000001"]), (1, ["000010000"]), (2, ["000020000"])):
        rows: list[dict[str, object]] = [{"key": key, "status": "success", "caption": f"picture {key}"} for key in keys]
        if layout == "webdataset":
            write_tar(
                folder / f"{shard:05d}.tar",
                [(f"{k}.{e}", d) for k in keys for e, d in (("jpg", jpeg(1)), ("txt", f"picture {k}".encode()))],
            )
        if layout == "files":
            stills(folder, *(f"{shard:05d}/{key}.jpg" for key in keys))
            for key in keys:
                (folder / f"{shard:05d}" / f"{key}.txt").write_text(f"picture {key}")
                (folder / f"{shard:05d}" / f"{key}.json").write_text(
                    json.dumps({"key": key, "caption": f"picture {key}"})
                )
        if layout == "parquet":
            rows = [row | {"jpg": jpeg(1)} for row in rows]
        if shard == 0:
            rows.append(
                {"key": "000000002", "status": "failed_to_download", "caption": "gone"}
                | ({"jpg": None} if layout == "parquet" else {})
            )
        folder.mkdir(exist_ok=True)
        if shard < 2 or layout == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05d}.parquet")
        if shard < 2:
            (folder / f"{shard:05d}_stats.json").write_text('{"successes": 1}')
    return folder


@pytest.mark.parametrize("layout", ["webdataset", "files", "parquet"])
def test_what_img2dataset_wrote(tmp_path: Path, layout: str) -> None:
    source, sound, wrong = opened(img2dataset(tmp_path / "i", layout))
    assert sorted(words[0] for words in sound.values()) == [
        f"picture {key}" for key in ("000000000", "000000001", "000010000")
    ]
    assert wrong == {}
    assert source.left_out["rows with status failed_to_download"] == 1
    assert sum(source.left_out.values()) == 2, source.left_out  # and what it has not finished


def test_splits_are_asked_for(tmp_path: Path) -> None:
    layouts: dict[str, Callable[[Path, str], object]] = {
        "imagefolder": lambda home, split: (
            stills(home, f"{split}/0.jpg"),
            (home / split / "metadata.jsonl").write_text(json.dumps({"file_name": "0.jpg", "text": split})),
        ),
        "parquet": lambda home, split: (
            (home / "data").mkdir(parents=True, exist_ok=True),
            pq.write_table(
                pa.table({"image": [{"bytes": jpeg(0), "path": "0.jpg"}], "text": [split]}),
                home / "data" / f"{split}-00000-of-00001.parquet",
            ),
        ),
        "tars": lambda home, split: write_tar(home / split / "0.tar", [("0.jpg", jpeg(0)), ("0.txt", split.encode())]),
    }
    for layout, write in layouts.items():
        write(tmp_path / layout, "train")
        assert list(opened(tmp_path / layout)[1].values()) == [("train",)], layout
        write(tmp_path / layout, "test")
        with pytest.raises(RequestError, match=r"holds 2 splits: .* Choose one with source.split=.*, or all"):
            opened(tmp_path / layout)
        assert list(opened(tmp_path / layout, split="test")[1].values()) == [("test",)], layout
        if layout != "imagefolder":
            assert len(list(opened(tmp_path / layout, split="all")[0].listing())) == 2
        with pytest.raises(RequestError, match=r"has no split 'dev'; there are test, train"):
            opened(tmp_path / layout, split="dev")


def test_a_dataset_saved_to_disk(tmp_path: Path) -> None:
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("caption", pa.list_(pa.string()))]
    )
    rows = [{"image": {"bytes": jpeg(n), "path": None}, "caption": [f"picture {n}", "again"]} for n in range(5)]
    (tmp_path / "d").mkdir()
    with (
        pa.OSFile(str(tmp_path / "d" / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, schema) as writer,
    ):
        for part in (rows[:2], rows[2:]):
            writer.write_batch(pa.RecordBatch.from_pylist(part, schema=schema))
    (tmp_path / "d" / "dataset_info.json").write_text("{}")
    (tmp_path / "d" / "state.json").write_text("{}")
    assert list(opened(tmp_path / "d")[1].values()) == [(f"picture {n}", "again") for n in range(5)]
    assert animate(tmp_path / "d", tmp_path / "out", shard_size=2) == 0
    assert [row["status"] for row in rows_of(tmp_path / "out")] == ["written"] * 5


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_rows_that_name_a_file_instead_of_its_bytes(tmp_path: Path, kind: str) -> None:
    folder = stills(tmp_path / "d", "data/img/0.jpg", "img/1.jpg", "data/IMG/2.JPG")
    given = [(None, "img/0.jpg"), (None, "img/1.jpg"), (None, "img/2.jpg"), (None, "img/3.jpg"), (jpeg(4), "4.jpg")]
    table = pa.table(
        {"image": [{"bytes": data, "path": path} for data, path in (*given, (None, None))], "caption": list("abcdef")}
    )
    if kind == "parquet":
        pq.write_table(table, folder / "data" / "0.parquet", row_group_size=3)
    else:
        with (
            pa.OSFile(str(folder / "data" / "0.arrow"), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as writer,
        ):
            writer.write_table(table, 2)
    table_key = f"data/0.{kind}#5"
    source = open_source(str(folder), SourceSettings(picture="image"))
    listed = list(source.listing())
    assert [one.source for one in listed[:3]] == ["d/data/img/0.jpg", "d/img/1.jpg", "d/data/IMG/2.JPG"]
    out = tmp_path / "out"
    assert animate(folder, out, max_rejects=1, ray="off") == 0
    assert [row["reason"] for row in rows_of(out)] == [None, None, None, "missing", None, "missing"]
    assert [row["source_key"] for row in rows_of(out)][-1] == table_key
    assert "data/img/3.jpg is not there" in rows_of(out)[3]["detail"]
    assert {name: data for name, data in members_of_tars(out).items() if name.endswith("jpg")} == {
        f"d_{position:09d}.jpg": jpeg(number) for position, number in ((0, 0), (1, 1), (2, 2), (4, 4))
    }
    (folder / "img" / "1.jpg").unlink()
    for path in out.glob("shards/*.json"):
        path.unlink()
    with pytest.raises(DataError, match=r"SourceError: d/img/1.jpg is not there; it was when it was planned"):
        animate(folder, out, max_rejects=1, ray="off", attempts=1)


def test_rows_that_show_one_picture_are_one_sample(tmp_path: Path) -> None:
    shown = [(0, "7"), (0, "7"), (1, "8"), (2, "7")]  # the last has a key that is taken, and another picture
    for name, columns in (
        ("keys", {"image": [jpeg(n) for n, _ in shown], "image_id": [key for _, key in shown]}),
        ("paths", {"image": [{"bytes": jpeg(n), "path": key} for n, key in shown]}),
    ):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table(columns | {"caption": list("abcd")}), tmp_path / name / "0.parquet")
        source = open_source(str(tmp_path / name), SourceSettings())
        assert [(one.offset, one.captions) for one in source.listing()] == [(0, ("a", "b")), (2, ("c",)), (3, ("d",))]


def test_links_are_the_files_that_they_lead_to_and_others_are_named(tmp_path: Path, caplog: Any) -> None:
    blobs = stills(tmp_path / "blobs", "x1", "x2")
    folder = tmp_path / "s"
    (folder / "sub").mkdir(parents=True)
    link(blobs / "x1", folder / "a.jpg")
    link(blobs, folder / "linked")
    link(tmp_path / "nowhere", folder / "dead.jpg")
    link(folder, folder / "sub" / "loop")
    link(folder / "c2", folder / "c1")
    link(folder / "c1", folder / "c2")
    (folder / "captions.tsv").write_text("file\tcaption\na.jpg\ta dog\nlinked/x2\ta cat\n")
    source, sound, _ = opened(folder)
    assert sound == {"a.jpg": ("a dog",), "linked/x2": ("a cat",)}
    assert source.left_out["files that are a link to nothing"] == 3
    assert source.left_out["files that are a link to a folder that it is in"] == 1
    assert "dead.jpg" in caplog.text and "sub/loop" in caplog.text
    assert animate(folder, tmp_path / "out", max_rejects=1) == 0


def test_a_linked_tar_counts_beside_a_plain_one(tmp_path: Path) -> None:
    write_tar(tmp_path / "elsewhere" / "1.tar", [("b.jpg", jpeg(1)), ("b.txt", b"b")])
    write_tar(tmp_path / "t" / "deep" / "0.tar", [("a.jpg", jpeg(1)), ("a.txt", b"a")])
    link(tmp_path / "elsewhere" / "1.tar", tmp_path / "t" / "1.tar")
    assert opened(tmp_path / "t")[1] == {"a": ("a",), "b": ("b",)}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.heic2": b"", "b.zip": b""}, r"1 \.heic2, 1 \.zip lie there; .*Known are"),
        ({"x/1.png": b"", "x/2.png": b""}, r"2 \.png lie there; .*have no captions: put a captions.tsv"),
        ({"0.tar.gz": b"", "1.tar.gz": b""}, r"0\.tar\.gz is compressed"),
        ({"part.tfrecord": b""}, r"TFRecord, which is not read"),
        ({}, "nothing lies there"),
    ],
)
def test_where_nothing_fits_it_is_said_what_lies_there(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    (tmp_path / "s").mkdir()
    for name, data in files.items():
        (tmp_path / "s" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "s" / name).write_bytes(data)
    with pytest.raises(RequestError, match=said):
        opened(tmp_path / "s")


# --- tars --------------------------------------------------------------------------------------------------------------


def archive(members: dict[str, bytes | tuple[bytes, str]], kind: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of files, and of links where a member is (type, target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, what in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(what, tuple):
                info.type, info.linkname = what
                tar.addfile(info)
            else:
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
    return buffer.getvalue()


def sample(key: str) -> dict[str, bytes | tuple[bytes, str]]:
    return {f"{key}.jpg": jpeg(1), f"{key}.txt": key.encode()}


def of_tar(tmp_path: Path, data: bytes, name: str = "0.tar") -> tuple[Source, Spoken, dict[str, str]]:
    (tmp_path / "t").mkdir(exist_ok=True)
    (tmp_path / "t" / name).write_bytes(data)
    return opened(tmp_path / "t")


def test_joined_archives_are_read_to_their_end(tmp_path: Path) -> None:
    data = archive(sample("a")) + archive(sample("b") | sample("c")) + archive(sample("d"))
    source, sound, _ = of_tar(tmp_path, data)
    assert list(sound) == ["a", "b", "c", "d"] and not source.left_out
    scan = scan_samples("0.tar", io.BytesIO(data))
    assert [entry.key for entry in scan.entries] == ["a", "b", "c", "d"] and scan.problems == []


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_in_tars(tmp_path: Path, kind: int) -> None:
    long = "x" * 150
    links = {
        "b.jpg": (tarfile.LNKTYPE, "a.jpg"), "b.txt": b"b",
        "dir/c.jpg": (tarfile.SYMTYPE, "../a.jpg"), "dir/c.txt": b"c",
        "d.jpg": (tarfile.LNKTYPE, "gone.jpg"), "d.txt": b"d",
        f"{long}.jpg": jpeg(2), f"{long}.txt": b"long",
        "e.jpg": (tarfile.LNKTYPE, f"{long}.jpg"), "e.txt": b"e",
    }  # fmt: skip
    _, sound, wrong = of_tar(tmp_path, archive(sample("a") | links, kind))
    assert sound == {"a": ("a",), "b": ("b",), "dir/c": ("c",), long: ("long",), "e": ("e",)}
    assert "a link to gone.jpg" in wrong["d"]
    assert animate(tmp_path / "t", tmp_path / "out", max_rejects=1) == 0
    scan = scan_samples("0.tar", io.BytesIO((tmp_path / "t" / "0.tar").read_bytes()))
    assert sorted(entry.key for entry in scan.entries) == sorted(["a", long])
    assert any("b.jpg is a link to a.jpg" in problem for problem in scan.problems)


def test_compressed_tars_are_named_whatever_they_are_called(tmp_path: Path, caplog: Any) -> None:
    of_tar(tmp_path, archive(sample("a")))
    source, sound, _ = of_tar(tmp_path, gzip.compress(archive(sample("b"))), "1.tar")
    assert list(sound) == ["a"] and any("1.tar: it is gzip" in what for what in source.left_out)
    source, sound, _ = of_tar(tmp_path, gzip.compress(archive(sample("b"))), "2.tar.gz")
    assert list(sound) == ["a"] and source.left_out["compressed tars, which cannot be read in part"] == 1
    assert "2.tar.gz" in caplog.text


def test_names_with_more_dots_are_explained(tmp_path: Path, caplog: Any) -> None:
    source, sound, _ = of_tar(tmp_path, archive(sample("a") | {"photo_22.01.jpg": jpeg(1), "photo_22.01.txt": b"dots"}))
    assert list(sound) == ["a"] and source.left_out == {"pictures whose ending has a dot": 1}
    assert "photo_22.01.jpg: by WebDataset's rule an ending begins at the first dot" in caplog.text


# --- where it goes, and what it was before -----------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["s/clips", "s", "."])
def test_out_in_or_around_its_source_is_refused_before_anything_is_written(tmp_path: Path, out: str) -> None:
    folder = stills(tmp_path / "s", "a.jpg")
    (folder / "a.txt").write_text("a dog")
    link(tmp_path, tmp_path / "s" / "link")
    before = sorted(tmp_path.rglob("*"))
    for way in (tmp_path / out, tmp_path / "s" / "link" / out):
        with pytest.raises(RequestError, match="lie in each other"):
            animate(folder, way)
    assert sorted(tmp_path.rglob("*")) == before


def test_corrected_captions_want_another_out(tmp_path: Path) -> None:
    folder = stills(tmp_path / "s", "a.jpg", "b.jpg", "c.jpg")
    table = folder / "captions.tsv"
    table.write_text("file\tcaption\na.jpg\ta dog\nb.jpg\ta cat\n")
    assert animate(folder, tmp_path / "out") == 0
    table.write_text("file\tcaption\na.jpg\ta dog\nb.jpg\ta cow\nc.jpg\tnew\n")
    for extend in ("no", "new"):
        with pytest.raises(RequestError, match=r"1 samples that OUT holds have other captions now.*another OUT"):
            animate(folder, tmp_path / "out", extend=extend)
    assert not (tmp_path / "out" / "plan-001.parquet").exists()
    table.write_text("file\tcaption\na.jpg\ta dog\nb.jpg\ta cat\nc.jpg\tnew\n")
    with pytest.raises(RequestError, match="1 samples are new"):
        animate(folder, tmp_path / "out")
    assert animate(folder, tmp_path / "out", extend="new") == 0
    assert len(rows_of(tmp_path / "out")) == 3


@pytest.mark.parametrize("name", ["a,b", "a*2", "a::b", "a, b*c::d [x] {0..1}"])
def test_a_folder_of_any_name_is_built_verified_and_streamed(tmp_path: Path, name: str) -> None:
    folder = stills(tmp_path / f"in {name}", "a.jpg", "b.jpg")
    for key in "ab":
        (folder / f"{key}.txt").write_text(key)
    out = tmp_path / name
    assert animate(folder, out) == 0
    assert check(out).problems == []
    assert open_blend(str(out)).corpora[0].samples == 2
    other = tmp_path / "plain"
    assert animate(folder, other) == 0
    assert [corpus.samples for corpus in open_blend(f"{out},{other}").corpora] == [2, 2]
    assert open_blend(f"{other}*3,{out}*1").weights == (3, 1)


def test_memory_of_a_process_is_no_place(tmp_path: Path) -> None:
    folder = stills(tmp_path / "s", "a.jpg")
    (folder / "a.txt").write_text("a")
    with pytest.raises(RequestError, match="memory of this process"):
        animate(folder, "memory://out")


def test_tars_of_a_web_server(tmp_path: Path) -> None:
    """By the URL of one, or of a folder whose index lists them."""
    web = pytest.importorskip("aiohttp.web", reason="fsspec reads http with aiohttp")
    write_tar(tmp_path / "web" / "0.tar", [("a.jpg", jpeg(1)), ("a.txt", b"a dog")])

    async def serve(ready: queue.Queue[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
        app = web.Application()
        app.router.add_static("/", tmp_path / "web", show_index=True)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        end = asyncio.Event()
        ready.put((runner.addresses[0][1], asyncio.get_running_loop(), end))
        await end.wait()
        await runner.cleanup()

    ready: queue.Queue[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()
    thread = threading.Thread(target=lambda: asyncio.run(serve(ready)), daemon=True)
    thread.start()
    port, loop, end = ready.get(timeout=30)
    try:
        for number, source in enumerate((f"http://127.0.0.1:{port}/0.tar", f"http://127.0.0.1:{port}/")):
            assert animate(source, tmp_path / f"out{number}") == 0
            assert [row["captions"] for row in rows_of(tmp_path / f"out{number}")] == [["a dog"]]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(30)
