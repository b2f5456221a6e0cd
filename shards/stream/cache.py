"""Shards of a bucket, kept on a disk: by their contents, within a size limit, for all processes of a machine.

A tar's file is named by its digest, so shards of the same name in two data sets never meet, and a rebuilt one is another
file. Nothing enters whose samples are not, byte for byte, those of its index: a damaged tar is left where it is, to be
read in parts. What was used longest ago goes first.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillreel.configs import RequestError
from stillreel.configs.system.storage import PART_SUFFIX, Folder
from stillreel.shards.format.index import Index
from stillreel.shards.stream.faults import patiently

_ABANDONED_S = 3600.0


class ShardCache:
    """A folder of cached tars. Safe to share: a shard that several processes want is fetched by one of them."""

    def __init__(self, path: str, limit: int, attempts: int) -> None:
        """`limit` is in bytes."""
        self.folder = Folder(path)
        if not self.folder.is_local:
            raise RequestError(f"cache={path}: expected a folder on a disk")
        self._home = Path(self.folder.path)
        self._home.mkdir(parents=True, exist_ok=True)
        self._limit = limit
        self._attempts = attempts
        self._uncachable: set[str] = set()

    def fetch(self, source: Folder, tar: str, index: Index) -> str | None:
        """The name in `folder` of a tar that lies in `source`, fetched if need be. None when it cannot be kept here: it is
        missing, damaged, or larger than the limit. StorageFailure when the source does not answer."""
        name = f"{index.digest}.tar"
        if self._touch(name):
            return name
        if name in self._uncachable:
            return None
        with self._locked(name):
            if self._touch(name) or self._download(source, tar, index, name):
                return name
        self._uncachable.add(name)
        return None

    def drop(self, name: str) -> None:
        """Remove a tar that turned out to be damaged here."""
        (self._home / name).unlink(missing_ok=True)

    def _touch(self, name: str) -> bool:
        try:
            os.utime(self._home / name)
        except FileNotFoundError:
            return False
        return True

    def _download(self, source: Folder, tar: str, index: Index, name: str) -> bool:
        where = source.locate(tar)

        def copy() -> int:
            size = int(source.fs.size(where))
            if size <= self._limit:
                source.fs.get_file(where, str(draft.path))
                if draft.path.stat().st_size != size:
                    raise ConnectionError(f"{draft.path.stat().st_size} of {size} bytes arrived")
            return size

        with self.folder.draft(name) as draft:
            try:
                size = patiently(f"{source.url}/{tar}", self._attempts, copy)
            except FileNotFoundError:
                return False
            if size > self._limit or not _holds(draft.path, index):
                return False
            with self._locked("room"):
                self._make_room(size)
                os.replace(draft.path, self._home / name)  # no fsync: what a crash leaves is checked when it is read
        return True

    def _make_room(self, size: int) -> None:
        """Remove the tars that were used longest ago, and what killed processes left, until `size` bytes fit."""
        found: list[tuple[float, int, Path]] = []
        for path in self._home.iterdir():
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if path.suffix == ".tar":
                found.append((stat.st_mtime, stat.st_size, path))
            elif path.suffix == PART_SUFFIX and time.time() - stat.st_mtime > _ABANDONED_S:
                path.unlink(missing_ok=True)
        kept = sum(bytes_ for _, bytes_, _ in found)
        for _, bytes_, path in sorted(found):
            if kept + size <= self._limit:
                break
            path.unlink(missing_ok=True)
            kept -= bytes_

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Alone among all processes that use this cache; a process that dies lets go."""
        with open(self._home / f".{name}.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _holds(path: Path, index: Index) -> bool:
    """Whether a tar holds just the samples of an index."""
    with open(path, "rb") as file:
        for entry in index:
            file.seek(entry.offset)
            if hashlib.sha256(file.read(entry.length)).digest() != entry.sha256:
                return False
    return True
