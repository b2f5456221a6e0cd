"""Which kind of source lies at a path."""

from __future__ import annotations

from stillreel.animate.sources.base import Source
from stillreel.animate.sources.parquet import ParquetSource
from stillreel.animate.sources.pictures import TABLE_ENDINGS, PictureSource
from stillreel.animate.sources.tars import TarSource
from stillreel.configs import RequestError
from stillreel.configs.build import SourceSettings
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.plan import PlanHeader

_KINDS: tuple[type[Source], ...] = (TarSource, PictureSource, ParquetSource)


def open_source(url: str, settings: SourceSettings) -> Source:
    """The source at a path or URL: a folder, or one tar, Parquet file or captions table. RequestError when it is none."""
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
    settings = SourceSettings.resolve(header.source["settings"])
    source = next(kind for kind in _KINDS if kind.kind == header.source["kind"])(Folder(url), settings)
    source.planned = header.source.get("files", {})
    return source
