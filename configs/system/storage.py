"""The one module that knows whether bytes lie on a disk or in a bucket.

A Folder is a URL of either kind. Files appear in it whole or not at all: on a disk through a hidden temporary name,
fsync and rename; in a bucket through one upload of a finished local file.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import fsspec
from fsspec.implementations.local import LocalFileSystem

from stillreel.configs import RequestError, StorageRefused
from stillreel.configs.system.trouble import is_final, plain

PART_SUFFIX = ".part"
_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
_WITH_BUCKETS = {"s3", "gs", "abfs"}  # fsspec's names of stores in which a folder needs nothing but a bucket
# Of s3fs, which nests them, each of five of boto's, of which a silent server takes 15 s: five would be half an hour a file.
_S3_TRIES = 3
_BATCH = 32  # ranges asked of a bucket at once, and read ahead of the consumer


class Range(NamedTuple):
    """Bytes of a file: `length` of them from `offset`, or from there to the end when length is -1."""

    name: str
    offset: int
    length: int


class Listing(NamedTuple):
    """The files of a folder, by name: bytes of those that can be opened, sorted, and what is wrong with the others."""

    sizes: dict[str, int]
    odd: dict[str, str]


class Folder:
    """A folder on a disk or a prefix in a bucket, by path or fsspec URL. Names in it are relative, with forward slashes."""

    def __init__(self, url: str) -> None:
        if not url:
            raise RequestError("expected a path or URL, given an empty one")
        try:
            # Listings must be fresh: other machines write here too. `::` chains URLs; in a plain path it is part of a name.
            if "::" in url and "://" not in url:
                self.fs, path = LocalFileSystem(), os.path.abspath(os.path.expanduser(url))  # noqa: PTH100
            else:
                self.fs, path = fsspec.core.url_to_fs(os.path.expanduser(url), use_listings_cache=False)
        except (ValueError, ImportError) as error:
            kind = url.partition("://")[0]
            why = (
                f"no storage is known by {kind}://"
                if isinstance(error, ValueError)
                else f"{kind}:// needs a package more"
            )
            raise RequestError(
                f"{url}: {why}; expected a folder of this machine, or a URL of fsspec's ({error})"
            ) from None
        self.is_local = isinstance(self.fs, LocalFileSystem)
        if "s3" in self.fs.protocol:
            self.fs.retries = _S3_TRIES
        self.path = path.rstrip("/") or "/"
        self.url = self.path if self.is_local else self.fs.unstrip_protocol(self.path)

    def __repr__(self) -> str:
        return f"Folder({self.url!r})"

    @property
    def basename(self) -> str:
        """Last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    def locate(self, name: str) -> str:
        """Full path of a name, as the file system spells it."""
        return f"{self.path}/{name}" if name else self.path

    def within(self, name: str) -> Folder:
        """The folder NAME of this folder."""
        return Folder(f"{self.url}/{name}")

    def exists(self, name: str = "") -> bool:
        return bool(self.fs.exists(self.locate(name)))

    def is_folder(self) -> bool:
        return bool(self.fs.isdir(self.path))

    def sizes(self, under: str = "") -> dict[str, int]:
        """Name -> bytes of every file in a folder, sorted by name; {} when there is none.

        Hidden and unfinished files (a leading dot in the last part) are left out.
        """
        try:
            found = self.fs.find(self.locate(under), maxdepth=1, detail=True)
        except FileNotFoundError:
            return {}
        return self._shown(found)

    def listing(self) -> Listing:
        """Every file of the folder and below it, through links; hidden files and folders are left out."""
        if not self.is_local:
            return Listing(self._shown(self.fs.find(self.path, detail=True)), {})
        sizes: dict[str, int] = {}
        odd: dict[str, str] = {}
        _walk(self.path, "", (os.path.realpath(self.path),), sizes, odd)
        return Listing({name: sizes[name] for name in sorted(sizes)}, odd)

    def _shown(self, found: dict[str, Any]) -> dict[str, int]:
        start = len(self.path) + 1
        # A web server's index tells no sizes.
        sizes = {
            path[start:]: int(self.fs.size(path) if info["size"] is None else info["size"])
            for path, info in found.items()
            if info["type"] == "file"
        }
        return {name: sizes[name] for name in sorted(sizes) if not name.rsplit("/", 1)[-1].startswith(".")}

    def size(self, name: str) -> int | None:
        """Bytes of a file, through links; None where there is none. Raises what else keeps it from being known."""
        try:
            info = self.fs.info(self.locate(name))
        except ValueError:  # no name that a file could have
            return None
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno in _NOWHERE:  # a bucket's has no number
                return None
            raise
        return int(info["size"]) if info["type"] == "file" else None

    def read(self, name: str) -> bytes:
        """All bytes of a file; FileNotFoundError when there is none."""
        return bytes(self.fs.cat_file(self.locate(name)))

    def open(self, name: str) -> IO[bytes]:
        """A seekable reader of a file."""
        return self.fs.open(self.locate(name), "rb")  # type: ignore[no-any-return]

    def read_ranges(self, ranges: Sequence[Range], most: int = 1 << 40) -> Iterator[bytes | None]:
        """Bytes of each range in order, at most `most` of each; None where the file does not exist, fewer where it ends.

        A bucket gives a file of unknown length whole. Other failures (a network that is down, a denied permission) are
        raised: they say nothing about the data.
        """
        return self._read_local(ranges, most) if self.is_local else self._read_remote(ranges, most)

    def _read_local(self, ranges: Sequence[Range], most: int) -> Iterator[bytes | None]:
        name, handle = "", None
        try:
            for wanted in ranges:
                if wanted.name != name or handle is None:
                    if handle is not None:
                        handle.close()
                    name = wanted.name
                    try:
                        handle = open(self.locate(name), "rb", buffering=0)  # noqa: SIM115
                    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                        handle = None
                        yield None
                        continue
                there = max(os.fstat(handle.fileno()).st_size - wanted.offset, 0)
                length = there if wanted.length < 0 else min(wanted.length, there)
                yield _read_fully(handle.fileno(), wanted.offset, min(length, most))
        finally:
            if handle is not None:
                handle.close()

    def _read_remote(self, ranges: Sequence[Range], most: int) -> Iterator[bytes | None]:
        batches = [ranges[at : at + _BATCH] for at in range(0, len(ranges), _BATCH)]
        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(self._fetch, batches[0], most) if batches else None
            for number in range(len(batches)):
                assert waiting is not None
                answers = waiting.result()
                if number + 1 < len(batches):
                    waiting = ahead.submit(self._fetch, batches[number + 1], most)
                yield from answers

    def _fetch(self, batch: Sequence[Range], most: int) -> list[bytes | None]:
        answers = self.fs.cat_ranges(
            [self.locate(wanted.name) for wanted in batch],
            [wanted.offset for wanted in batch],
            [None if wanted.length < 0 else wanted.offset + min(wanted.length, most) for wanted in batch],
            on_error="return",
        )
        found: list[bytes | None] = []
        for wanted, answer in zip(batch, answers, strict=True):
            if isinstance(answer, FileNotFoundError):
                found.append(None)
            elif isinstance(answer, Exception):
                # Asked for a range beyond a file's end, some stores give an error, and not each the same.
                if wanted.offset < self.fs.size(self.locate(wanted.name)):
                    raise answer
                found.append(b"")
            else:
                self._check_arrived(wanted, len(answer), most)
                found.append(bytes(answer))
        return found

    def _check_arrived(self, wanted: Range, arrived: int, most: int) -> None:
        """ConnectionError when a store gave less than the file has: such a file must not pass for a cut one."""
        if wanted.length >= 0 and arrived < min(wanted.length, most):
            size = self.fs.size(self.locate(wanted.name))
            if wanted.offset + arrived < size:
                raise ConnectionError(f"{wanted.name}: {arrived} of {wanted.length} bytes arrived")

    def publish(self, name: str, data: bytes) -> None:
        """Write a small file under its final name, whole and durable, replacing what is there."""
        with self.draft(name) as draft:
            draft.path.write_bytes(data)
            draft.publish()

    def draft(self, name: str) -> Draft:
        """A file that will be NAME once it is published."""
        return Draft(self, name)

    def remove(self, name: str) -> None:
        self.fs.rm_file(self.locate(name))

    def remove_unfinished(self, under: str) -> int:
        """Remove what killed writers left, and return how many: temporary files on a disk; uploads in parts to S3, which nobody
        sees, and everybody pays for."""
        if not self.is_local:
            return _abort_uploads(self.fs, self.locate(under)) if "s3" in self.fs.protocol else 0
        parts = list(Path(self.locate(under)).glob(f".*{PART_SUFFIX}"))
        for part in parts:
            part.unlink(missing_ok=True)
        return len(parts)


class Draft:
    """A file in the making: write to `path`, then `publish`. As a context manager it removes what was not published.

    On a disk the temporary file lies beside the final one, so that the rename stays within one file system, and its
    name holds the writer's process id.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name
        last = name.rsplit("/", 1)[-1]
        if folder.is_local:
            home = Path(folder.locate(name)).parent
            home.mkdir(parents=True, exist_ok=True)
        else:
            home = Path(tempfile.gettempdir())
        self.path = home / f".{last}.{os.getpid()}.{os.urandom(4).hex()}{PART_SUFFIX}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)

    def publish(self) -> None:
        """Make the file durable and give it its final name."""
        if not self._folder.is_local:
            self._folder.fs.put_file(str(self.path), self._folder.locate(self._name))
            return
        final = Path(self._folder.locate(self._name))
        fsync(self.path)
        os.replace(self.path, final)
        fsync(final.parent)


def _abort_uploads(fs: Any, path: str) -> int:
    bucket, key, _ = fs.split_path(path)
    try:
        found = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{key}/").get("Uploads", [])
    except OSError:  # a store that keeps none, or shows them to others alone
        return 0
    for upload in found:
        fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    return len(found)


def folder_that_is_there(url: str, what: str) -> Folder:
    """The Folder of a URL; RequestError, which names it as `what`, when there is none."""
    folder = Folder(url)
    if not folder.is_folder() and (folder.is_local or not folder.exists()):
        raise RequestError(f"{what} {url}: no such folder")
    return folder


def refuse_overlap(source: Folder, out: Folder) -> None:
    """RequestError when one of them lies in the other, or both are one: what is written would be taken for what is read; or when
    either is in the memory of this process alone."""
    for one in (source, out):
        if one.fs.protocol == "memory":
            raise RequestError(
                f"{one.url} is memory of this process: no worker sees it, and it ends with it. Give a folder"
            )
    paths = [os.path.realpath(one.path) if one.is_local else one.url for one in (source, out)]
    if source.is_local == out.is_local and any(
        f"{a}/".startswith(f"{b.rstrip('/')}/") for a, b in (paths, paths[::-1])
    ):
        raise RequestError(
            f"OUT {out.url} and the source {source.url} lie in each other: what is written would be taken for source, by this "
            "tool or another. Choose a folder beside it"
        )


def check_bucket(folder: Folder) -> None:
    """RequestError when the bucket that a folder would lie in is not there. One that may not be listed may yet be written to."""
    if folder.is_local:
        return
    kinds = {folder.fs.protocol} if isinstance(folder.fs.protocol, str) else {*folder.fs.protocol}
    if kinds & _WITH_BUCKETS:
        bucket = folder.path.partition("/")[0]
        try:
            folder.fs.info(bucket)
        except FileNotFoundError:
            raise RequestError(
                f"OUT {folder.url}: there is no bucket {bucket}. Make it first, or mend its name"
            ) from None
        except PermissionError:
            pass


@contextmanager
def writing(url: str) -> Iterator[None]:
    """Within it is nothing but the writing, or reading back, of a place: what it refuses for good becomes StorageRefused; what
    may be over in a moment is raised as it is."""
    try:
        yield
    except Exception as error:
        if is_final(error):
            raise StorageRefused(
                f"OUT {url} refuses: {plain(error)}. Nothing more is tried; what is finished is kept. Make room or get access, "
                "and run the same command again to go on"
            ) from error
        raise


def _walk(path: str, under: str, above: tuple[str, ...], sizes: dict[str, int], odd: dict[str, str]) -> None:
    """Lists a folder and what is below it. `above` are the real paths of it and of those that it is in."""
    with os.scandir(path) as entries:
        for entry in entries:
            name = under + entry.name
            if entry.name.startswith("."):
                continue
            if not name.isascii() and name != name.encode("utf-8", "replace").decode():
                odd[name.encode("utf-8", "backslashreplace").decode()] = "a name that is not UTF-8"
            elif entry.is_symlink() and not Path(entry.path).exists():
                odd[name] = "a link to nothing"
            elif entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else f"{above[-1]}/{entry.name}"
                if real in above:
                    odd[name] = "a link to a folder that it is in"
                else:
                    _walk(entry.path, f"{name}/", (*above, real), sizes, odd)
            elif entry.is_file():
                sizes[name] = entry.stat().st_size


def _read_fully(handle: int, offset: int, length: int) -> bytes:
    data = os.pread(handle, length, offset)
    while len(data) < length:
        more = os.pread(handle, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def fsync(path: Path) -> None:
    """Make a local file, or what a local folder lists, outlive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
