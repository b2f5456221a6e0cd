"""A folder of pictures with a table of captions."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Sequence
from typing import ClassVar

from stillreel.animate.sources.base import MAX_FILE_BYTES, PICTURE_ENDINGS, Source, check_length
from stillreel.animate.sources.captions import clean, read_captions
from stillreel.configs import RequestError
from stillreel.configs.system.storage import Folder, Range
from stillreel.shards.format.plan import Listed, PlannedSample

TABLE_ENDINGS = (".tsv", ".csv", ".parquet", ".jsonl", ".ndjson", ".json")
_TABLE_NAMES = ("captions", "metadata", "annotations", "labels")


class PictureSource(Source):
    """Every picture that the table names is a sample, with all its captions; one that is not there is planned as a rejection."""

    kind: ClassVar[str] = "pictures"

    def parts(self) -> list[tuple[str, int | str]]:
        folder, name = self._table()
        return [(name, hashlib.sha256(folder.read(name)).hexdigest())]

    def listing(self) -> Iterator[Listed]:
        folder, name = self._table()
        captions = read_captions(folder, name, self.settings)
        sizes = self.sizes
        for picture, spoken in captions.items():
            text, problem = clean(spoken)
            path = posixpath.normpath(picture) if picture else ""
            if not path or path.startswith(("/", "..")) or "://" in picture:
                size, problem = None, f"missing: {picture!r} is no path within the source's folder"
            elif (size := sizes[path] if path in sizes else self._unlisted(path)) is None:
                problem = problem or f"missing: {self.label}/{path} is not there"
            elif size > MAX_FILE_BYTES:
                problem = f"too_large: a file of {size} bytes; {MAX_FILE_BYTES} are read at most"
            yield Listed(f"{self.label}/{path}", path, 0, -1 if size is None else size, text, problem)
        named = {posixpath.normpath(picture) for picture in captions if picture}
        endings = tuple(f".{ending}" for ending in PICTURE_ENDINGS)
        strangers = sum(file.lower().endswith(endings) and file not in named for file in sizes)
        if strangers:
            self.left_out["pictures in the folder that the table does not name"] += strangers

    def files(self) -> dict[str, int]:
        return {}

    def pictures(self, samples: Sequence[PlannedSample]) -> Iterator[bytes | None]:
        whole = [Range(self.relative(one.source), 0, -1) for one in samples]
        for one, data in zip(samples, self.folder.read_ranges(whole, MAX_FILE_BYTES + 1), strict=True):
            # An older plan (-1) did not look whether it is there. Without the folder nothing is.
            if one.length >= 0 or (data is None and not self.folder.exists()):
                check_length(one.source, None if data is None else len(data), one.length)
            yield data

    def _unlisted(self, path: str) -> int | None:
        """Bytes of a picture that no listing shows: one behind a link, of which buckets have none, or a hidden one."""
        hidden = posixpath.basename(path).startswith(".")
        return self.folder.size(path) if self.folder.is_local or hidden else None

    def _table(self) -> tuple[Folder, str]:
        """Where the captions are: in the folder, or elsewhere when the setting says so."""
        if self.settings.captions:
            asked = self.settings.captions
            if self.folder.exists(asked):
                return self.folder, asked
            parent, _, name = asked.rpartition("/")
            elsewhere = Folder(parent or ".")
            if elsewhere.exists(name):
                return elsewhere, name
            raise RequestError(f"source.captions={asked}: no such file, neither in {self.folder.url} nor from here")
        tables = [
            name
            for name in self.folder.sizes()
            if name.endswith(TABLE_ENDINGS) and name.rsplit(".", 1)[0].split("_")[0].lower() in _TABLE_NAMES
        ]
        if len(tables) == 1:
            return self.folder, tables[0]
        if not tables:
            raise RequestError(
                f"SOURCE {self.folder.url}: no tars, no Parquet with pictures, and no captions table "
                f"({' or '.join(_TABLE_NAMES[:2])} with {', '.join(TABLE_ENDINGS)}); name one with source.captions="
            )
        raise RequestError(
            f"SOURCE {self.folder.url} has {len(tables)} tables: {', '.join(tables)}; choose one with source.captions="
        )
