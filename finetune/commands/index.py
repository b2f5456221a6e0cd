"""`stillreel index VIDEOS OUT`: videos, or clip shards, become an index, or the index that is there follows them.

    files of VIDEOS ── those that the old index or a saved part knows, by path, size and mtime ── kept as they are
                   └── the others: decoded, encoded, saved in parts of `part` files            ── what a crash leaves
    kept and new, by path -> new arrays, table, manifest -> the old ones are removed

Parts lie in a folder named by the model and the settings, so that those of others are never taken. Files whose trouble may
pass (unreadable, too slow) are tried again by every run.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open

import stillreel
from stillreel.configs import DataError, RequestError
from stillreel.configs.search import IndexSettings
from stillreel.configs.settings import canonical_json
from stillreel.configs.system.claims import damage_of, parse_json
from stillreel.configs.system.interrupt import stoppable
from stillreel.configs.system.lock import sole_writer
from stillreel.configs.system.progress import amount
from stillreel.configs.system.storage import Folder
from stillreel.configs.video import VideoSettings
from stillreel.finetune.search.approximate import build_faiss, faiss_file
from stillreel.finetune.search.features import model_digest, open_model
from stillreel.finetune.search.footage import read_footage
from stillreel.finetune.search.parts import Arrays, features_of, make_parts, save_part
from stillreel.finetune.search.sources import Source, open_source
from stillreel.finetune.search.store import Entry, IndexWriter, VideoIndex, open_index, read_manifest
from stillreel.pretrain.engine.start import check_size, fit_clips
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.checkpoint import save_model
from stillreel.pretrain.run.opening import describe, is_ours, model_folder, origin_in
from stillreel.pretrain.run.opening import open_model as open_named

_PASSING = ("missing", "unreadable", "too_slow")
_ROWS = 4096  # copied at once
_PARTS_KEPT = 4  # in memory: files are published in the order in which they were saved
_ANY = Entry("", 0, 0)
_SHOWN = 20  # damaged files that are named on the terminal; the table has all


class Known(NamedTuple):
    """Where the features of a file are: a row of some arrays, which come into memory when they are asked for."""

    entry: Entry
    arrays: Callable[[], Arrays]


def run(videos: str, out: str, settings: IndexSettings) -> int:
    """Make or update OUT; 0, or 1 where the folder has videos and none of them could be read."""
    folder = Folder(out)
    if not folder.is_local:
        raise RequestError(f"{out}: an index is mapped into memory, so it must lie on a disk")
    described = describe(settings.checkpoint, pretrained=settings.pretrained)
    settings = fit_clips(settings, described)
    check_size(settings.size, described.towers)
    source = open_source(videos, settings.video_settings())
    files = source.survey()
    with sole_writer(folder):
        checkpoint = str(Path(_model_of_ours(folder, settings)).expanduser().absolute())
        maker = {
            "model": {"path": checkpoint, "sha256": model_digest(checkpoint)},
            "settings": settings.video_settings().model_dump(mode="json"),
        }
        encode = (
            partial(_encode, source, open_model(checkpoint, settings.device), settings)
            if settings.ray == "off"
            else partial(_encode_on_ray, source, (checkpoint, maker["model"]["sha256"]), settings)
        )
        return _follow(folder, source, files, encode, maker, settings)


def _model_of_ours(folder: Folder, settings: IndexSettings) -> str:
    """The folder of the model: where it lies, or, of somebody else's, its copy in the index, which a search needs too."""
    named = {"file": settings.checkpoint, "pretrained": settings.pretrained}
    if is_ours(settings.checkpoint):
        return model_folder(settings.checkpoint)
    copy = folder.within("model")
    if not (is_ours(copy.path) and origin_in(copy.path) == named):
        shutil.rmtree(copy.path, ignore_errors=True)
        save_model(open_named(settings.checkpoint, settings.pretrained), copy, named)
    return copy.path


def _follow(
    folder: Folder,
    source: Source,
    files: Sequence[Entry],
    encode: Callable[[Sequence[Entry], Folder], None],
    maker: dict[str, Any],
    settings: IndexSettings,
) -> int:
    folder.remove_unfinished("")
    old = _old_index(folder, source.root, maker)
    made_by = canonical_json([source.root, maker["model"]["sha256"], maker["settings"]])
    work = Path(folder.path, f"work-{hashlib.sha256(made_by).hexdigest()[:12]}")
    known = _known(old, work)
    kept = {file.path: known[file.path] for file in files if _is_same(known.get(file.path), file)}
    fresh = [file for file in files if file.path not in kept]
    names = {file.path for file in files}
    gone = 0 if old is None else sum(entry.path not in names for entry in old.entries())
    print(
        f"{len(files):,} videos in {source.root}: {len(kept):,} known, {len(fresh):,} to index, {gone:,} gone",
        flush=True,
    )
    unchanged = old is not None and not fresh and not gone and old.videos.num_rows == len(files)
    if not unchanged:
        work.mkdir(exist_ok=True)
        encode(fresh, Folder(str(work)))
        known = {**kept, **_known(None, work)}
        if lost := [file.path for file in files if file.path not in known]:
            raise DataError(f"{len(lost):,} videos are in no part, the first is {lost[0]}: run the same command again")
        _publish(
            folder,
            [known[file.path] for file in files],
            {"root": source.root, **maker, "stillreel": stillreel.__version__},
        )
    for path in Path(folder.path).glob("work-*"):
        shutil.rmtree(path)
    index = open_index(folder)
    if settings.faiss and faiss_file(index) is None:
        index = build_faiss(index)
    return _report(index)


def _old_index(folder: Folder, root: str, maker: dict[str, Any]) -> VideoIndex | None:
    """The index that is there, if it is of the same folder, model and settings; RequestError if it is of others."""
    if not folder.exists("manifest.json"):
        return None
    try:
        manifest = read_manifest(folder)
        same = (
            manifest["root"] == root
            and manifest["model"].get("sha256") == maker["model"]["sha256"]
            and VideoSettings().model_dump(mode="json") | manifest["settings"] == maker["settings"]
        )
        if not same:
            raise RequestError(
                f"{folder.url} is an index of another folder, model or video settings; give another OUT, or remove it"
            )
        index = open_index(folder)
        index.check()
    except DataError as error:
        print(f"what was indexed before is not used: {error}", file=sys.stderr, flush=True)
        return None
    return index


def _known(old: VideoIndex | None, work: Path) -> dict[str, Known]:
    """By path the files whose features, or whose damage, are known."""
    known: dict[str, Known] = {}
    if old is not None:
        arrays: Arrays = {"vectors": old.vectors, "frames": old.frames, "times": old.times}
        if old.patches is not None:
            arrays["patches"] = old.patches
        known |= {entry.path: Known(entry, lambda: arrays) for entry in old.entries()}
    for path in sorted(work.glob("part-*.safetensors")):
        try:
            known |= {one.entry.path: one for one in _read_part(path)}
        except (DataError, OSError):
            path.unlink()  # cut off by a loss of power: its files are read again
    return known


def _is_same(known: Known | None, file: Entry) -> bool:
    if known is None or known.entry.reason in _PASSING:
        return False
    return (known.entry.size, known.entry.version) == (file.size, file.version)


def _encode(
    source: Source, model: VideoTextModel, settings: IndexSettings, files: Sequence[Entry], work: Folder
) -> None:
    """Read files and save what the model makes of them, `part` after `part`."""
    number, begun, done = _next_part(work), time.monotonic(), 0
    waiting: list[tuple[list[Entry], Arrays]] = []
    for footage in read_footage(
        source, files, settings.video_settings(), batch=settings.batch, workers=settings.workers
    ):
        waiting.append((footage.entries, features_of(model, footage)))
        done += len(footage.entries)
        if sum(len(entries) for entries, _ in waiting) >= settings.part or done == len(files):
            save_part(work, number, waiting)
            rate = done / (time.monotonic() - begun)
            print(f"{done:,} of {len(files):,} indexed, {rate:.1f} a second", file=sys.stderr, flush=True)
            number, waiting = number + 1, []


def _encode_on_ray(
    source: Source, model: tuple[str, str], settings: IndexSettings, files: Sequence[Entry], work: Folder
) -> None:
    """The same parts, each made by one task, of the model in a folder that has this digest."""
    work.remove_unfinished("")
    with stoppable("finished parts are kept. Run the same command again to go on"):
        make_parts(work, _next_part(work), source, files, model, settings)


def _next_part(work: Folder) -> int:
    taken = [int(path.stem.rpartition("-")[2]) for path in Path(work.path).glob("part-*.safetensors")]
    return max(taken, default=-1) + 1


def _read_part(path: Path) -> Iterator[Known]:
    _arrays_of_part.cache_clear()  # another run's part may have had this name
    with damage_of(str(path)):
        _arrays_of_part(path)  # so that one that was cut is known by now
    with damage_of(str(path)), safe_open(path, "numpy") as file:
        entries = [Entry(*values) for values in parse_json(file.metadata()["entries"])]
        for entry in entries:
            if not all(isinstance(value, type(default)) for value, default in zip(entry, _ANY, strict=True)):
                raise ValueError(f"{entry} is of no file")
            if entry.row >= len(_arrays_of_part(path).get("vectors", ())):
                raise ValueError(f"{entry.path} has row {entry.row}, which is not there")
    return (Known(entry, partial(_arrays_of_part, path)) for entry in entries)


@lru_cache(_PARTS_KEPT)
def _arrays_of_part(path: Path) -> Arrays:
    with safe_open(path, "numpy") as file:
        return {kind: file.get_tensor(kind) for kind in file.keys()}  # noqa: SIM118


def _publish(folder: Folder, files: Sequence[Known], about: dict[str, Any]) -> None:
    """Write the index of these files, in this order."""
    whole = [file for file in files if file.entry.row >= 0]
    if not whole:
        reasons = Counter(file.entry.reason for file in files)
        said = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        first = files[0].entry
        raise DataError(f"none of the {len(files):,} videos could be read: {said}. First: {first.path}: {first.detail}")
    shapes = {kind: array.shape[1:] for kind, array in whole[0].arrays().items()}
    frames, joined = shapes["frames"]
    patches = shapes["patches"][1] if "patches" in shapes else 0
    with IndexWriter(folder, len(whole), shapes["vectors"][0], frames, patches, joined) as writer:
        for start in range(0, len(whole), _ROWS):
            some = whole[start : start + _ROWS]
            found = [{kind: array[one.entry.row] for kind, array in one.arrays().items()} for one in some]
            writer.add(**{kind: np.stack([row[kind] for row in found]) for kind in shapes})
        row, entries = 0, []
        for file in files:
            entries.append(file.entry._replace(row=row) if file.entry.row >= 0 else file.entry)
            row += file.entry.row >= 0
        writer.finish(entries, about)


def _report(index: VideoIndex) -> int:
    troubled = [entry for entry in index.entries() if entry.reason]
    for entry in troubled[:_SHOWN]:
        what = "damaged, indexed by what is whole" if entry.row >= 0 else "left out"
        print(f"  {entry.path}: {what}: {entry.reason}: {entry.detail}")
    if len(troubled) > _SHOWN:
        print(f"  and {len(troubled) - _SHOWN:,} more: they are in the table of {index.folder.url}")
    size = amount(sum(about["bytes"] for about in index.manifest["files"].values()))
    print(f"{index.folder.url}: {len(index):,} videos, {index.manifest['damaged']:,} left out, {size}", flush=True)
    return 0
