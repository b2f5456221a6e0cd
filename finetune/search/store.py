"""An index on the disk, and its opening.

    OUT/manifest.json        schema, the folder of videos, the model and its digest, settings, files; written last
    OUT/videos-GEN.arrow     Arrow IPC, a row a file, by path: size, mtime, duration, its row below (-1: none), reason, detail
    OUT/vectors-GEN.npy      fp16 (N, E), what a query's vector is multiplied with
    OUT/frames-GEN.npy       fp16 (N, T, E), for re-ranking and moments
    OUT/times-GEN.npy        fp32 (N, T), seconds; NaN where a clip has no frame
    OUT/patches-GEN.npy      fp16 (N, T, P, E), if the re-ranker reads patches
    OUT/faiss-GEN.index      if asked for: see approximate.py
    OUT/work-DIGEST/         parts of an index in the making

The manifest names its files, so writing it is what replaces an index: a reader sees the old one or the new one. All arrays
are mapped, not read: opening costs the same for ten videos and for ten million.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stillreel.configs import DataError, RequestError
from stillreel.configs.system.claims import checked_name, damage_of, parse_json, shortened
from stillreel.configs.system.storage import Draft, Folder

FORMAT, SCHEMA_VERSION = "stillreel index", 1
MANIFEST = "manifest.json"

TABLE = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("duration", pa.float64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)


class Entry(NamedTuple):
    """A file of the folder, or a sample of the data set. `path` is relative to it; `version` tells one content of it from the
    next: a file's mtime in ns; `row` is -1 where there are no features, and `reason` says why.

    A file with features may have a `reason` as well: it is damaged, and was read nevertheless.
    """

    path: str
    size: int
    version: int
    duration: float = 0.0  # seconds
    row: int = -1
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class VideoIndex:
    """An open index of N videos, its arrays mapped. `places[row]` is the place of a row's file in `videos`."""

    folder: Folder
    manifest: Mapping[str, Any]
    videos: pa.Table
    places: NDArray[np.int64]
    vectors: NDArray[np.float16]  # (N, E)
    frames: NDArray[np.float16]  # (N, T, E)
    times: NDArray[np.float32]  # (N, T)
    patches: NDArray[np.float16] | None  # (N, T, P, E)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def root(self) -> str:
        """The folder of the videos, or the data set of the clips."""
        return str(self.manifest["root"])

    def entry(self, row: int) -> Entry:
        """The file of a row; IndexError where there is no such row."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self._at(int(self.places[row]))

    def entries(self) -> Iterator[Entry]:
        """All files, by path."""
        for batch in self.videos.to_batches(max_chunksize=65536):
            yield from (Entry(*values) for values in zip(*(one.to_pylist() for one in batch.columns), strict=True))

    def row_of(self, path: str) -> int:
        """The row of a file; RequestError where the index has none."""
        at = pc.index(self.videos["path"], path).as_py()
        if at < 0 or self._at(at).row < 0:
            raise RequestError(f"{path}: the index has no such video")
        return self._at(at).row

    def check(self) -> None:
        """DataError where a file's bytes are not those that were written: reads all of them."""
        for name, about in self.manifest["files"].items():
            if digest_of_file(Path(self.folder.locate(name))) != about["sha256"]:
                raise DataError(f"{self.folder.locate(name)} is damaged: its sha256 is not the manifest's; {_REMEDY}")

    def check_sizes(self) -> None:
        """DataError where a file was cut since it was opened: to read what is gone from a mapped file ends the process."""
        for name, about in self.manifest["files"].items():
            path = Path(self.folder.locate(name))
            # One that is not there belongs to a newer index by now, and is whole as long as it is mapped.
            if path.exists() and path.stat().st_size != about["bytes"]:
                raise DataError(f"{path} was cut or overwritten while it was open; {_REMEDY}")

    def _at(self, place: int) -> Entry:
        return Entry(*(column[place].as_py() for column in self.videos.columns))


_REMEDY = "remove the index and make it again with `stillreel index`"


def open_index(folder: Folder) -> VideoIndex:
    """The index in a folder. RequestError where there is none, DataError where one is damaged."""
    if not folder.is_local:
        raise RequestError(f"{folder.url}: an index is mapped into memory, so it must lie on a disk")
    manifest = read_manifest(folder)
    try:
        return _opened(folder, manifest)
    except DataError:
        again = read_manifest(folder)
        if again == manifest:
            raise
        return _opened(folder, again)  # it was replaced between the two


def read_manifest(folder: Folder) -> dict[str, Any]:
    """What an index says of itself, checked as far as it can be without its files."""
    where = folder.locate(MANIFEST)
    try:
        manifest = parse_json(folder.read(MANIFEST))
    except FileNotFoundError:
        made = any(Path(folder.path).glob("work-*"))
        why = "it is not finished; run `stillreel index` again" if made else "there is no manifest.json"
        raise RequestError(f"{folder.url} is no index: {why}") from None
    except ValueError as error:
        raise DataError(f"{where} is damaged: {error}; {_REMEDY}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RequestError(f"{folder.url} is no index: its manifest.json is another's")
    if manifest.get("schema") != SCHEMA_VERSION:
        raise DataError(f"{where}: schema {manifest.get('schema')}; this stillreel reads {SCHEMA_VERSION}")
    kinds = {
        "files": dict,
        "model": dict,
        "settings": dict,
        "root": str,
        "generation": int,
        "videos": int,
        "damaged": int,
    }
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            raise DataError(f"{where} is damaged: {key} is missing or of another kind; {_REMEDY}")
    for name, about in manifest["files"].items():
        with damage_of(f"{where} is damaged"):
            checked_name(name, folder)
            if not (isinstance(about, dict) and type(about["bytes"]) is int and isinstance(about["sha256"], str)):
                raise ValueError(f"files.{name} is {shortened(about)}")
    return manifest


def _opened(folder: Folder, manifest: Mapping[str, Any]) -> VideoIndex:
    generation, files = manifest["generation"], manifest["files"]
    for name, about in files.items():
        path = Path(folder.locate(name))
        if not path.is_file():
            raise DataError(f"{path} is missing; {_REMEDY}")
        if path.stat().st_size != about.get("bytes"):
            raise DataError(f"{path} is damaged: {path.stat().st_size} bytes, of {about.get('bytes')}; {_REMEDY}")
    named = [
        *(f"{kind}-{generation:06}.npy" for kind in ("vectors", "frames", "times")),
        f"videos-{generation:06}.arrow",
    ]
    if lacking := sorted({*named} - {*files}):
        raise DataError(f"{folder.url} is damaged: its manifest has no digest of {lacking[0]}; {_REMEDY}")
    kinds = {
        "vectors": (np.float16, 2),
        "frames": (np.float16, 3),
        "times": (np.float32, 2),
        "patches": (np.float16, 4),
    }
    arrays = {
        kind: _mapped(Path(folder.locate(f"{kind}-{generation:06}.npy")), *form)
        for kind, form in kinds.items()
        if kind != "patches" or f"patches-{generation:06}.npy" in files
    }
    where = Path(folder.locate(f"videos-{generation:06}.arrow"))
    videos = _table(where)
    if {len(array) for array in arrays.values()} != {manifest["videos"]}:
        raise DataError(f"{folder.url} is damaged: its files are of different indexes; {_REMEDY}")
    rows = videos["row"].to_numpy()
    places = np.full(manifest["videos"], -1, np.int64)
    whole = np.flatnonzero(rows >= 0)
    if len(whole) != len(places) or (rows >= len(places)).any():
        raise DataError(f"{where} is damaged: its rows are not those of the vectors; {_REMEDY}")
    places[rows[whole]] = whole
    if (places < 0).any():
        raise DataError(f"{where} is damaged: two files have the same row; {_REMEDY}")
    return VideoIndex(folder, manifest, videos, places, patches=arrays.pop("patches", None), **arrays)


def _mapped(path: Path, dtype: type, dimensions: int) -> NDArray[Any]:
    with damage_of(f"{path} is damaged; {_REMEDY}"):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != dtype or array.ndim != dimensions or not array.flags.c_contiguous:
        raise DataError(f"{path} is damaged: {array.dtype} {array.shape}; {_REMEDY}")
    return array


def _table(path: Path) -> pa.Table:
    with damage_of(f"{path} is damaged; {_REMEDY}"):
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        table.validate(full=True)  # of a wrong offset, Arrow would read beyond the file
        if not table.schema.equals(TABLE) or any(column.null_count for column in table.columns):
            raise ValueError(f"columns {table.schema.names}, expected {TABLE.names}, all of them filled")
        return table


class IndexWriter:
    """Writes a new generation of an index beside the old one, from features in the order of their rows."""

    def __init__(self, folder: Folder, count: int, width: int, frames: int, patches: int = 0, joined: int = 0) -> None:
        """`width` of a vector, `joined` of a frame (0: the same)."""
        self._folder, self._count = folder, count
        old = _generations(folder)
        self.generation = max(old, default=-1) + 1
        shapes: dict[str, tuple[tuple[int, ...], str]] = {
            "vectors": ((count, width), "<f2"),
            "frames": ((count, frames, joined or width), "<f2"),
            "times": ((count, frames), "<f4"),
        }
        if patches:
            shapes["patches"] = ((count, frames, patches, joined or width), "<f2")
        self._shapes, self._stack = shapes, ExitStack()
        self._sinks: dict[str, _Sink] = {}
        self._added = 0

    def __enter__(self) -> Self:
        for kind, (shape, dtype) in self._shapes.items():
            name = f"{kind}-{self.generation:06}.npy"
            sink = _Sink(name, self._stack.enter_context(self._folder.draft(name)), self._stack)
            header = {"descr": dtype, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(sink, header)
            self._sinks[kind] = sink
        return self

    def __exit__(self, *about: object) -> None:
        self._stack.close()

    def add(
        self,
        vectors: NDArray[np.float16],
        frames: NDArray[np.float16],
        times: NDArray[np.float32],
        patches: NDArray[np.float16] | None = None,
    ) -> None:
        """The next n rows."""
        given: dict[str, NDArray[Any] | None] = {
            "vectors": vectors,
            "frames": frames,
            "times": times,
            "patches": patches,
        }
        for kind, sink in self._sinks.items():
            shape, dtype = self._shapes[kind]
            array = given[kind]
            assert array is not None and array.shape == (len(vectors), *shape[1:]) and array.dtype == dtype, kind
            sink.write(np.ascontiguousarray(array).data.cast("B"))
        self._added += len(vectors)

    def finish(self, entries: Sequence[Entry], about: Mapping[str, Any]) -> None:
        """Publish everything: the arrays, the table of all files, the manifest. Then remove what is no longer named."""
        assert self._added == self._count
        table = _Sink(
            name := f"videos-{self.generation:06}.arrow",
            self._stack.enter_context(self._folder.draft(name)),
            self._stack,
        )
        columns = zip(*entries, strict=True) if entries else ([] for _ in TABLE)
        batch = pa.record_batch(
            [pa.array(list(column), field.type) for column, field in zip(columns, TABLE, strict=True)], schema=TABLE
        )
        with pa.ipc.new_file(pa.PythonFile(table, "w"), TABLE) as writer:
            writer.write_batch(batch)
        sinks = [*self._sinks.values(), table]
        manifest = {
            "format": FORMAT,
            "schema": SCHEMA_VERSION,
            **about,
            "generation": self.generation,
            "videos": self._count,
            "damaged": sum(entry.row < 0 for entry in entries),
            "files": {sink.name: sink.publish() for sink in sinks},
        }
        self._folder.publish(MANIFEST, json.dumps(manifest, sort_keys=True, indent=1).encode() + b"\n")
        remove_others(self._folder, set(manifest["files"]))


class _Sink:
    """A file in the making whose digest grows with it."""

    def __init__(self, name: str, draft: Draft, stack: ExitStack) -> None:
        self.name, self._draft = name, draft
        self._file = stack.enter_context(draft.path.open("wb"))
        self._hash = hashlib.sha256()
        self.closed = False

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def publish(self) -> dict[str, Any]:
        """Give the file its name; its size and digest."""
        self._file.close()
        size = self._draft.path.stat().st_size
        self._draft.publish()
        return {"bytes": size, "sha256": self._hash.hexdigest()}


def remove_others(folder: Folder, named: set[str]) -> None:
    """Remove files of other generations than the one that is named, which readers that have them open keep."""
    for path in _arrays(folder):
        if path.name not in named:
            path.unlink(missing_ok=True)


def _generations(folder: Folder) -> list[int]:
    return [int(path.stem.rpartition("-")[2]) for path in _arrays(folder)]


def _arrays(folder: Folder) -> list[Path]:
    kinds = ("videos", "vectors", "frames", "times", "patches", "faiss")
    return [path for kind in kinds for path in Path(folder.path).glob(f"{kind}-[0-9][0-9][0-9][0-9][0-9][0-9].*")]


def digest_of_file(path: Path) -> str:
    """sha256 of a file, as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
