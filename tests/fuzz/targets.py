"""What is fuzzed: small whole files of every kind that is read, made by code, and what reads them.

A reader is given a folder in which one file was changed. It may return, or raise a StillreelError, or reject; it returns True
only where the product says that all is as it was written, which would be wrong.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from stillreel.animate.download.urls import convert_table
from stillreel.animate.pictures.picture import PictureReader
from stillreel.animate.sources import open_source
from stillreel.configs.build import ClipSettings, DownloadSettings, SourceSettings, StatsSettings
from stillreel.configs.stream import CatalogSettings
from stillreel.configs.system.storage import Folder
from stillreel.configs.video import VideoSettings
from stillreel.finetune.report.history import read_history
from stillreel.finetune.search.store import Entry, IndexWriter, open_index
from stillreel.pretrain.model.files import read_checkpoint
from stillreel.pretrain.run.checkpoint import open_checkpoint
from stillreel.pretrain.video import VideoReader
from stillreel.shards.build.survey import survey
from stillreel.shards.commands import catalog, stats
from stillreel.shards.format.plan import PlannedSample, read_plans
from stillreel.shards.format.record import Rejection
from stillreel.shards.stream.stream import open_blend
from tests.fuzz.mutate import mutated, mutated_json, mutated_tar
from tests.making import animate, check, encoded, jpeg, picture, picture_folder, write_tar
from tests.pretrain.containers import write_legacy, write_safetensors, write_torch, write_torchscript
from tests.pretrain.run.making import run_to
from tests.pretrain.video.making import write_video
from tests.streaming import keys_of_epoch

Mutate = Callable[[bytes, random.Random], bytes]


class Target(NamedTuple):
    """`make` writes whole files into a folder; `read` reads them."""

    make: Callable[[Path], None]
    read: Callable[[Path], bool | None]


def mutate_of(path: Path) -> Mutate:
    """How a file of this name is changed."""
    if path.suffix in (".json", ".jsonl"):
        return mutated_json if path.suffix == ".json" else mutated
    return {".tar": mutated_tar, ".parquet": mutated_parquet, ".idx": mutated_arrow, ".arrow": mutated_arrow}.get(
        path.suffix, mutated
    )


def mutated_parquet(data: bytes, dice: random.Random) -> bytes:
    """Bytes, or values, or the JSON in its metadata."""
    fate = dice.random()
    if fate < 0.5:
        return mutated(data, dice)
    file = pq.ParquetFile(pa.BufferReader(data))
    table, groups = file.read(), file.metadata.row_group(0).num_rows
    told = (file.metadata.metadata or {}).get(b"stillreel")
    if told and fate < 0.8:
        told = mutated_json(told, dice)
    else:
        table = changed_table(table, dice)
    sink = pa.BufferOutputStream()
    kept = {b"stillreel": told} if told else None
    pq.write_table(table.replace_schema_metadata(kept), sink, row_group_size=max(groups, 1))
    return bytes(sink.getvalue())


def mutated_arrow(data: bytes, dice: random.Random) -> bytes:
    if dice.random() < 0.5:
        return mutated(data, dice)
    table = changed_table(pa.ipc.open_file(data).read_all(), dice)
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def changed_table(table: pa.Table, dice: random.Random) -> pa.Table:
    """A table with a value changed, a row doubled or left out, or a column gone or of another type."""
    name = dice.choice(table.column_names)
    fate, row = dice.random(), dice.randrange(max(table.num_rows, 1))
    if fate < 0.1:
        return table.drop_columns([name])
    if fate < 0.2:
        return pa.concat_tables([table.slice(0, row), table.slice(row), table.slice(row, 1)])
    if fate < 0.3:
        return pa.concat_tables([table.slice(0, row), table.slice(row + 1)])
    values = table[name].to_pylist()
    odd = [None, -1, 0, 1 << 40, 1 << 62, "../../outside/x", "\0", "", b"x", float("nan"), [], [None], ["a", None]]
    values[row] = dice.choice(odd)
    try:
        column = pa.array(values, table.schema.field(name).type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        values[row] = None
        column = pa.array(values, table.schema.field(name).type)
    return table.set_column(table.column_names.index(name), name, column)


def read_source(folder: Path) -> None:
    """As a plan lists it and a worker reads it."""
    source = open_source(str(folder), SourceSettings())
    listed = list(source.listing())
    rows = [
        PlannedSample(f"x_{at:09d}", one.source, one.source_key, 0, at, *one[2:])
        for at, one in enumerate(listed)
        if one.problem is None
    ]
    reader = PictureReader(ClipSettings(min_side=8))
    for data in source.read(rows):
        read_picture(reader, data)


def read_picture(reader: PictureReader, data: bytes | None) -> None:
    try:
        if data is not None:
            _ = reader.read(data).jpeg
    except Rejection:
        pass


def make_tars(folder: Path) -> None:
    members = [(f"{key}.{ending}", data) for key in ("a", "b" * 120, "c") for ending, data in _members(len(key))]
    for number in range(3):  # USTAR has no names of 120 bytes
        write_tar(folder / f"{number}.tar", members if number else members[:3], number)
    table = pa.table({"key": ["a", "c", "d"], "status": ["success", "success", "failed"]})
    pq.write_table(table, folder / "1.parquet")


def _members(number: int) -> list[tuple[str, bytes]]:
    told = json.dumps({"captions": ["a dog", "two dogs"], "key": number}).encode()
    return [("jpg", jpeg(number % 4, 64, 48)), ("txt", b"a dog"), ("json", told)]


def read_tars(folder: Path) -> None:
    read_source(folder)
    read_catalog(folder.parent / "catalog", folder)


def read_catalog(out: Path, tars: Path) -> None:
    catalog.run(str(tars), str(out), CatalogSettings(progress="off", workers=1))
    keys_of_epoch(open_blend(str(out)))


def make_tables(kind: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        picture_folder(folder, 3, width=64, height=48)
        names = [f"{number:05d}.jpg" for number in range(3)]
        (folder / "captions.tsv").rename(folder / "captions.csv")
        if kind != "csv":
            (folder / "captions.csv").unlink()
        if kind == "json":
            images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
            spoken = [{"image_id": number, "caption": f"a dog {number}"} for number in range(3)]
            (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": spoken}))
        if kind == "jsonl":
            lines = [json.dumps({"file": name, "captions": ["a dog", "dogs"]}) for name in names]
            (folder / "captions.jsonl").write_text("\n".join(lines))
        if kind == "parquet":
            pq.write_table(
                pa.table({"file": names, "caption": [["a dog"], ["b", "c"], []]}), folder / "captions.parquet"
            )

    return make


def make_parquet(folder: Path) -> None:
    pictures = [{"bytes": jpeg(number, 64, 48), "path": "x"} for number in range(6)]
    table = pa.table(
        {"image": pictures, "caption": [f"a dog {n}" for n in range(6)], "id": [f"k{n}" for n in range(6)]}
    )
    pq.write_table(table, folder / "0.parquet", row_group_size=3)


def make_urls(folder: Path) -> None:
    pq.write_table(pa.table({"url": ["http://x/a.jpg"] * 4, "caption": ["a", "b", None, "d"]}), folder / "t.parquet")
    (folder / "t.tsv").write_text("a dog\thttp://x/a.jpg\n" * 3)
    (folder / "t.jsonl").write_text(json.dumps({"url": "http://x/a.jpg", "caption": "a"}) + "\n")


def read_urls(folder: Path) -> None:
    for name in ("t.parquet", "t.tsv", "t.jsonl"):
        try:
            convert_table(Folder(str(folder)), name, folder / "made", DownloadSettings())
        finally:
            (folder / "made").unlink(missing_ok=True)


def make_set(folder: Path) -> None:
    source = picture_folder(folder.parent / "stills", 7, width=64, height=48)
    (source / "00003.jpg").write_bytes((source / "00003.jpg").read_bytes()[:300])
    assert animate(source, folder, shard_size=3, frames=2, size=32, max_rejects=1) == 0


def read_set(folder: Path) -> bool:
    """Everything that reads a data set; whether verify says that all is well."""
    home = Folder(str(folder))
    readers: list[Callable[[], object]] = [
        lambda: stats.run(str(folder), StatsSettings()),
        lambda: survey(home, read_plans(home), full=True),
        lambda: keys_of_epoch(open_blend(str(folder))),
        lambda: (
            animate(folder.parent / "stills", folder, shard_size=3, frames=2, size=32, max_rejects=1, attempts=1)
            if not (folder / "manifest.json").exists()
            else None
        ),
    ]
    is_well = [False]

    def verify() -> None:
        is_well[0] = not check(folder).problems

    all_of([verify, *readers])
    return is_well[0]


def all_of(readers: list[Callable[[], object]]) -> None:
    """Each of them, whatever the others find."""
    from stillreel.configs import StillreelError

    for reader in readers:
        try:
            reader()
        except StillreelError:
            continue


def make_catalog(folder: Path) -> None:
    tars = folder / "tars"
    write_tar(tars / "0.tar", [(f"k{n}.{end}", data) for n in range(4) for end, data in _members(n)])
    catalog.run(str(tars), str(folder / "out"), CatalogSettings(progress="off"))


def make_pictures(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x8769] = 6, "words", {0x9003: "2020:01:01 00:00:00"}
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        (folder / f"p.{kind.lower()}").write_bytes(encoded(picture(1, 64, 48), kind, exif=exif.tobytes()))
    for kind in ("GIF", "BMP", "PPM"):
        (folder / f"p.{kind.lower()}").write_bytes(encoded(picture(2, 64, 48), kind))


def read_pictures(folder: Path) -> None:
    reader = PictureReader(ClipSettings(min_side=8))
    for path in sorted(folder.iterdir()):
        read_picture(reader, path.read_bytes())


def make_videos(folder: Path) -> None:
    for ending, codec in (
        ("mp4", "libx264"),
        ("mkv", "libx264"),
        ("avi", "mpeg4"),
        ("ts", "mpeg2video"),
        ("webm", "libvpx"),
    ):
        options = {"crf": "30"} if codec == "libx264" else {}
        write_video(folder / f"v.{ending}", 12, codec=codec, options=options or {"b": "200000"}, fps=25)


def read_videos(folder: Path) -> None:
    reader = VideoReader(VideoSettings(frames=3, size=32, max_seconds=5))
    all_of([lambda path=path: reader.read(path) for path in sorted(folder.iterdir())])  # type: ignore[misc]


def make_checkpoints(folder: Path) -> None:
    state = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.float16)}
    write_safetensors(folder / "s.safetensors", state)
    write_torch(folder / "t.pt", state)
    write_legacy(folder / "l.pt", state)
    write_torchscript(folder / "j.pt", state)


def read_checkpoints(folder: Path) -> None:
    all_of([lambda path=path: read_checkpoint(path) for path in sorted(folder.iterdir())])  # type: ignore[misc]


def make_index(folder: Path) -> None:
    draw = np.random.default_rng(0)
    with IndexWriter(Folder(str(folder)), 3, 8, 4) as writer:
        writer.add(
            draw.random((3, 8)).astype(np.float16),
            draw.random((3, 4, 8)).astype(np.float16),
            draw.random((3, 4)).astype(np.float32),
        )
        entries = [Entry(f"v{n}.mp4", 9, 9, 1.0, n) for n in range(3)] + [
            Entry("w.mp4", 1, 1, 0.0, -1, "empty", "no bytes")
        ]
        writer.finish(entries, {"root": "/videos", "model": {"path": "/m", "sha256": "0"}, "settings": {"frames": 4}})


def read_index(folder: Path) -> None:
    index = open_index(Folder(str(folder)))
    list(index.entries())
    _ = [index.entry(row) for row in range(len(index))]
    _ = np.asarray(index.vectors).sum() + np.asarray(index.frames).sum() + np.nansum(np.asarray(index.times))
    index.check_sizes()
    index.check()


def make_run(folder: Path) -> None:
    run_to(folder, 1, 2)
    lines = [json.dumps({"step": step, "loss": 1.0 / step, "clips_per_s": 3}) for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def read_run(folder: Path) -> bool:
    is_well = [False]

    def history() -> None:
        told = read_history(folder)
        _ = told.steps, told.seconds(), told.differences(), told.parts(), told.curve("loss"), told.stage

    def checkpoints() -> None:
        for step in (1, 2):
            try:
                open_checkpoint(folder / "checkpoints" / f"step-{step:08d}").read()
            except ValueError:
                continue

    all_of([history, checkpoints])
    return is_well[0]


TARGETS: dict[str, Target] = {
    "tars": Target(make_tars, read_tars),
    "captions.json": Target(make_tables("json"), read_source),
    "captions.jsonl": Target(make_tables("jsonl"), read_source),
    "captions.csv": Target(make_tables("csv"), read_source),
    "captions.parquet": Target(make_tables("parquet"), read_source),
    "parquet": Target(make_parquet, read_source),
    "urls": Target(make_urls, read_urls),
    "data set": Target(make_set, read_set),
    "catalog": Target(make_catalog, lambda folder: keys_of_epoch(open_blend(str(folder / "out"))) and None),
    "pictures": Target(make_pictures, read_pictures),
    "videos": Target(make_videos, read_videos),
    "checkpoints": Target(make_checkpoints, read_checkpoints),
    "search index": Target(make_index, read_index),
    "run": Target(make_run, read_run),
}
