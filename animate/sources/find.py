"""Which kind of source lies at a path."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Mapping

from stillreel.animate.sources.base import Source
from stillreel.animate.sources.parquet import ROW_ENDINGS, ParquetSource
from stillreel.animate.sources.pictures import PictureSource, SidecarSource, beside_texts, is_picture, tables_in
from stillreel.animate.sources.sample_filter import SampleFilter
from stillreel.animate.sources.tables import TABLE_ENDINGS
from stillreel.animate.sources.tars import TarSource
from stillreel.configs import RequestError
from stillreel.configs.build import FilterSettings, SourceSettings
from stillreel.configs.system.progress import tally
from stillreel.configs.system.storage import Folder, Listing
from stillreel.shards.format.foreign import tar_names
from stillreel.shards.format.plan import PlanHeader

_KINDS: tuple[type[Source], ...] = (TarSource, PictureSource, SidecarSource, ParquetSource)
# What a setting means for a kind of source; the others are refused there.
_MEANT = {
    TarSource: {"picture", "caption", "split"},
    PictureSource: {"captions", "picture", "caption", "split"},
    SidecarSource: {"caption", "split"},
    ParquetSource: {"picture", "caption", "key", "split"},
}
_SPLIT = re.compile(r"(?:^|[-_./])(train|training|test|testing|val|valid|validation|dev)(?:[-_./]|$)", re.IGNORECASE)
_NAMED = 8


def open_source(url: str, settings: SourceSettings, wanted: FilterSettings | None = None) -> Source:
    """The source at a path or URL: a folder, or one tar, Parquet file or captions table. RequestError when it is none."""
    source = _find(url, settings)
    if wanted:
        source.filter = SampleFilter(wanted)
    return source


def _find(url: str, settings: SourceSettings) -> Source:
    folder = Folder(url)
    if not folder.exists():
        raise RequestError(f"SOURCE {url}: no such file or folder")
    if settings.split and (settings.captions or not folder.is_folder()):
        raise RequestError(
            f"source.split={settings.split} chooses among the files of a folder, and SOURCE names one file or table"
        )
    if not folder.is_folder():
        return _checked(_of_file(folder, url, settings), settings)
    if settings.captions:
        return _checked(PictureSource(folder, settings), settings)
    found = folder.listing()
    kind = _kind(folder, found.sizes, settings)
    sizes = _of_split(folder, found.sizes, kind, settings.split)
    return _checked(kind(folder, settings, Listing(sizes, found.odd)), settings)


def source_of_plan(header: PlanHeader, url: str) -> Source:
    """The source that a plan was made from, which may have moved to `url` since."""
    settings = SourceSettings.resolve(header.source["settings"])
    source = next(kind for kind in _KINDS if kind.kind == header.source["kind"])(Folder(url), settings)
    source.planned = header.source.get("files", {})
    return source


def _of_file(folder: Folder, url: str, settings: SourceSettings) -> Source:
    parent, _, name = folder.url.rpartition("/")
    home = Folder(parent)
    found = Listing({name: home.size(name) or 0}, {})
    if tar_names([name])[0]:
        return TarSource(home, settings, found)
    if name.endswith(ROW_ENDINGS) and ParquetSource.holds_pictures(home, name, settings):
        return ParquetSource(home, settings, found)
    if name.endswith(TABLE_ENDINGS) and not settings.captions:
        return PictureSource(home, settings.model_copy(update={"captions": name}))
    raise RequestError(
        f"SOURCE {url}: expected a folder, a .tar, a .parquet or a captions table ({', '.join(TABLE_ENDINGS)})"
    )


def _kind(folder: Folder, sizes: Mapping[str, int], settings: SourceSettings) -> type[Source]:
    """What the files are, taken together. RequestError says what lies there when they are nothing that is known."""
    tables = tables_in(sizes)
    top_table = any("/" not in name for name in tables)
    # A captions table beside a stray tar means pictures; img2dataset's stats beside one mean its shards.
    captioned = any(name.startswith("captions") and "/" not in name for name in tables)
    downloaded = any(name.endswith("_stats.json") for name in sizes)
    if tar_names(sizes)[0] and (downloaded or not captioned):
        return TarSource
    rows = [name for name in sizes if name.endswith(ROW_ENDINGS)]
    if not captioned and rows and ParquetSource.holds_pictures(folder, rows[0], settings):
        return ParquetSource
    if top_table and not downloaded:
        return PictureSource
    if beside_texts(sizes):
        return SidecarSource
    if tables:
        return PictureSource
    raise RequestError(f"SOURCE {folder.url}: {_nothing_fits(sizes)}")


def _of_split(folder: Folder, sizes: dict[str, int], kind: type[Source], asked: str) -> dict[str, int]:
    """The files of a split, by the names of folders and files. RequestError when one must be asked for."""
    if asked == "all":
        return sizes
    counted = [name for name in sizes if _counts(kind, name)]
    splits = Counter(match[1].lower() for name in counted if (match := _SPLIT.search(_where_split(kind, name))))
    if asked:
        mine = re.compile(rf"(?:^|[-_./]){re.escape(asked)}(?:[-_./]|$)", re.IGNORECASE)
        chosen = {name: size for name, size in sizes.items() if not _counts(kind, name) or mine.search(name)}
        if not any(_counts(kind, name) for name in chosen):
            there = f"there are {', '.join(sorted(splits))}" if splits else "no folder or file is named as splits are"
            raise RequestError(f"SOURCE {folder.url} has no split {asked!r}; {there}")
        return chosen
    if len(splits) > 1:
        raise RequestError(
            f"SOURCE {folder.url} holds {len(splits)} splits: {tally(splits)}. Choose one with source.split="
            f"{max(splits, key=lambda name: splits[name])}, or all of them with source.split=all"
        )
    return sizes


def _where_split(kind: type[Source], name: str) -> str:
    """The part of a file's name that may tell its split: of tars and pictures only the folder."""
    return name if kind is ParquetSource else posixpath.dirname(name)


def _counts(kind: type[Source], name: str) -> bool:
    """Whether a file holds samples, or says which there are."""
    if kind is TarSource:
        return bool(tar_names([name])[0])
    if kind is ParquetSource:
        return name.endswith(ROW_ENDINGS)
    return bool(tables_in([name])) if kind is PictureSource else is_picture(name)


def _checked(source: Source, settings: SourceSettings) -> Source:
    """RequestError when a setting that was given means nothing for this kind."""
    meant = _MEANT[type(source)]
    for name, value in settings.model_dump().items():
        if value and name not in meant:
            raise RequestError(
                f"source.{name}={value} means nothing for SOURCE {source.folder.url}, which is read as {source.kind}; "
                f"there are {', '.join(f'source.{one}' for one in sorted(meant))}"
            )
    return source


def _nothing_fits(sizes: Mapping[str, int]) -> str:
    """What lies in a folder that is no source, and what would have to."""
    tables = f"{{captions,metadata}}.{{{','.join(ending[1:] for ending in TABLE_ENDINGS)}}}"
    layouts = (
        "no tars, no Parquet with pictures, and no captions table. Known are: tars of KEY.jpg KEY.txt; Parquet with a column of "
        f"pictures; pictures and {tables} (or source.captions=); pictures with a .txt or .json of the same name beside each"
    )
    if not sizes:
        return f"nothing lies there: {layouts}"
    tfrecords = [name for name in sizes if ".tfrecord" in name]
    packed = tar_names(sizes)[1]
    endings = Counter(_ending(name) for name in sizes)
    there = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(_NAMED))
    more = f", and {len(endings) - _NAMED} other kinds" if len(endings) > _NAMED else ""
    hint = ""
    if tfrecords:
        hint = f". {tfrecords[0]} is a TFRecord, which is not read: download or write the same as webdataset or parquet"
    elif packed:
        hint = f". {packed[0]} is compressed, which cannot be read in part: unpack it first"
    elif any(is_picture(name) for name in sizes):
        hint = ". The pictures have no captions: put a captions.tsv with the columns file and caption beside them"
    elif any(name.endswith(TABLE_ENDINGS) for name in sizes):
        hint = ". A table of URLs is for stillreel download; a table of captions is named by source.captions="
    return f"{there}{more} lie there; {layouts}{hint}"


def _ending(name: str) -> str:
    last = posixpath.basename(name)
    return f".{last.rpartition('.')[2].lower()}" if "." in last else "files without an ending"
