"""What all sources are, and how the right one is found for a path."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from configs import RequestError
from configs.build import SourceSettings
from configs.settings import canonical_json
from shards.plan import Listed, PlanHeader, PlannedSample
from shards.storage import Folder

# A larger file is no photograph; it is read up to one byte beyond this, and rejected for its size.
MAX_FILE_BYTES = 256 << 20

PICTURE_ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "ppm", "heic")


class Source(ABC):
    """Stills with captions in a folder. `left_out` counts, while listing, what the source itself says is no sample."""

    kind: ClassVar[str]

    def __init__(self, folder: Folder, settings: SourceSettings) -> None:
        self.folder = folder
        self.settings = settings
        self.left_out: Counter[str] = Counter()

    @abstractmethod
    def parts(self) -> list[tuple[str, int | str]]:
        """The files that decide what `listing` yields, each with its size or digest, in order."""

    @abstractmethod
    def listing(self) -> Iterator[Listed]:
        """Every sample, in an order that depends on nothing but the source's contents."""

    @abstractmethod
    def read(self, samples: Sequence[PlannedSample]) -> Iterator[bytes | None]:
        """Bytes of the picture of each planned sample, in order; None where it is not there."""

    @property
    def label(self) -> str:
        """Names the source in plans and tables: the last part of its path, the same wherever the folder is mounted."""
        return self.folder.basename

    def fingerprint(self) -> str:
        """Equal for equal contents, wherever they lie."""
        return hashlib.sha256(canonical_json([self.kind, self.settings.model_dump(), self.parts()])).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a plan keeps of its source; `source_of_plan` turns it back into one."""
        return {
            "kind": self.kind,
            "url": self.folder.url,
            "settings": self.settings.model_dump(),
            "fingerprint": self.fingerprint(),
        }

    def relative(self, source: str) -> str:
        """A sample's `source`, which begins with the label, as a name in the folder."""
        return source[len(self.label) + 1 :]


def open_source(url: str, settings: SourceSettings) -> Source:
    """The source at a path or URL: a folder, or one tar, Parquet file or captions table. RequestError when it is none."""
    from animate.sources.parquet import ParquetSource
    from animate.sources.pictures import TABLE_ENDINGS, PictureSource
    from animate.sources.tars import TarSource

    folder = Folder(url)
    if not folder.exists():
        raise RequestError(f"SOURCE {url}: no such file or folder")
    if not folder.is_folder():
        parent, _, name = folder.url.rpartition("/")
        if name.endswith(".tar"):
            return TarSource(Folder(parent), settings, only=name)
        if name.endswith(TABLE_ENDINGS) and not settings.captions:
            if name.endswith(".parquet") and ParquetSource.holds_pictures(Folder(parent), name, settings):
                return ParquetSource(Folder(parent), settings, only=name)
            return PictureSource(Folder(parent), settings.model_copy(update={"captions": name}))
        raise RequestError(
            f"SOURCE {url}: expected a folder, a .tar, a .parquet or a captions table ({', '.join(TABLE_ENDINGS)})"
        )
    names = list(folder.sizes())
    if settings.captions:
        return PictureSource(folder, settings)
    # A captions table beside a stray tar means pictures; img2dataset's stats beside one mean its shards.
    captioned = any(name.startswith("captions") and name.endswith(TABLE_ENDINGS) for name in names)
    downloaded = any(name.endswith("_stats.json") for name in names)
    if any(name.endswith(".tar") for name in names) and (downloaded or not captioned):
        return TarSource(folder, settings)
    if captioned:
        return PictureSource(folder, settings)
    tables = [name for name in names if name.endswith(".parquet")]
    if tables and ParquetSource.holds_pictures(folder, tables[0], settings):
        return ParquetSource(folder, settings)
    return PictureSource(folder, settings)


def source_of_plan(header: PlanHeader, url: str) -> Source:
    """The source that a plan was made from, which may have moved to `url` since."""
    from animate.sources.parquet import ParquetSource
    from animate.sources.pictures import PictureSource
    from animate.sources.tars import TarSource

    kinds: Iterable[type[Source]] = (TarSource, PictureSource, ParquetSource)
    settings = SourceSettings.resolve(header.source["settings"])
    return next(kind for kind in kinds if kind.kind == header.source["kind"])(Folder(url), settings)
