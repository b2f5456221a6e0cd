"""A folder of pictures with a table of captions, or with a text file beside each."""

from __future__ import annotations

import hashlib
import io
import logging
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

from stillreel.animate.sources.base import PICTURE_ENDINGS, Source, check_length
from stillreel.animate.sources.captions import (
    CAPTION_COLUMNS,
    LONGEST,
    PICTURE_COLUMNS,
    captions_of,
    check_caption_type,
    clean,
    fields_of,
    find_caption_column,
    find_column,
    tell_caption_column,
    too_long,
)
from stillreel.animate.sources.img2dataset import downloaded, finished_folders
from stillreel.animate.sources.names import Names
from stillreel.animate.sources.sample_filter import rows_of
from stillreel.animate.sources.tables import TABLE_ENDINGS, json_rows, open_table, read_json
from stillreel.configs import RequestError
from stillreel.configs.system.storage import Folder, Range
from stillreel.shards.format.plan import Listed, PlannedSample

# A picture's name, its caption or captions, and what a row says besides.
Spoken = tuple[str, object, Mapping[str, object]]

_log = logging.getLogger(__name__)
_TABLE_NAMES = ("captions", "metadata", "annotations", "labels")
_BESIDE = ("txt", "json")
_AT_ONCE = 1000  # pictures whose text files are read together


class FileSource(Source):
    """Pictures that are files."""

    def files(self) -> dict[str, int]:
        return {}

    def pictures(self, samples: Sequence[PlannedSample]) -> Iterator[bytes | None]:
        return self.read_files(samples)


class PictureSource(FileSource):
    """Every picture that the table names is a sample, with all its captions; one that is not there is planned as a rejection."""

    kind: ClassVar[str] = "pictures"

    def parts(self) -> list[tuple[str, int | str]]:
        folder, name = self._table()
        return [(name, hashlib.sha256(folder.read(name)).hexdigest())]

    def listing(self) -> Iterator[Listed]:
        folder, table = self._table()
        names = Names(self.folder, self.sizes, posixpath.dirname(table) if folder is self.folder else "")
        captions: dict[str, list[object]] = {}
        columns: dict[str, Mapping[str, object]] = {}
        problems: dict[str, str] = {}
        for given, spoken, row in self._pairs(folder, table):
            path, problem = names.find(given)
            captions.setdefault(path, []).append(spoken)
            columns.setdefault(path, row)
            if problem:
                problems[path] = problem
        listed = []
        for path, spoken in captions.items():
            text, problem_of_text = clean(spoken)
            missing = problems.get(path)
            size = None if missing else names.size(path)
            listed.append(self.of_file(path, size, path, text, missing or problem_of_text))
        yield from self.filter.judge(listed, rows_of(list(columns.values()), self.filter.columns))
        for how, count in names.otherwise.items():
            _log.warning(f"{folder.url}/{table}: {count:,} names of files are written {how}; the files are taken")
        strangers = sum(is_picture(file) and file not in captions for file in self.sizes)
        if strangers:
            self.left_out["pictures in the folder that the table does not name"] += strangers

    def _pairs(self, folder: Folder, name: str) -> Iterator[Spoken]:
        """The rows of the table."""
        where = f"{folder.url}/{name}"
        data = io.BytesIO(folder.read(name))
        if name.endswith(".json"):
            value = read_json(data, where)
            data.seek(0)
            if isinstance(value, dict):
                return ((picture, spoken, {}) for picture, spoken in _of_json(value, where))
            json_rows(value, where)
        return self._rows(data, name, where)

    def _rows(self, data: io.BytesIO, name: str, where: str) -> Iterator[Spoken]:
        asked = self.settings
        known = [*PICTURE_COLUMNS, *CAPTION_COLUMNS, asked.picture.lower(), asked.caption.lower()]
        table = open_table(data, name, where, known, is_picture)
        if not table.columns:  # no header, as CC3M's own
            for row in table.rows:
                places = [place for place, field in enumerate(row) if is_picture(str(field))]
                if len(row) != 2 or len(places) != 1:
                    raise RequestError(
                        f"{where} has no header, and a row of it has {len(row)} fields of which {len(places)} name pictures; "
                        "expected two columns, a picture's name and a caption, or a header that names them"
                    )
                yield str(row[places[0]]), row[1 - places[0]], {}
            return
        picture = table.columns.index(
            find_column(table.columns, asked.picture, PICTURE_COLUMNS, "source.picture", where)
        )
        spoken = find_caption_column(table.columns, asked.caption, where)
        if not asked.caption:
            tell_caption_column(table.columns, spoken, where)
        caption = table.columns.index(spoken)
        if table.schema is not None:
            check_caption_type(table.schema.field(spoken).type, spoken, where)
        others = {name: place for place, name in enumerate(table.columns) if name in self.filter.columns}
        for row in table.rows:
            given = row[picture]
            if isinstance(given, bytes):
                given = given.decode("utf-8", "surrogateescape")
            looked_at = {name: row[place] for name, place in others.items()}
            yield str(given) if isinstance(given, (str, int)) else "", row[caption], looked_at

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
        tables = tables_in(self.sizes)
        if len(tables) != 1:
            raise RequestError(
                f"SOURCE {self.folder.url} has {len(tables)} tables: {', '.join(tables)}; choose one with source.captions="
            )
        return self.folder, tables[0]


class SidecarSource(FileSource):
    """Every picture beside a text file of its name, or JSON, as img2dataset writes them by default, is a sample."""

    kind: ClassVar[str] = "files"

    def parts(self) -> list[tuple[str, int | str]]:
        endings = (*PICTURE_ENDINGS, *_BESIDE, "parquet", self.settings.caption or _BESIDE[0])
        return [(name, size) for name, size in self.sizes.items() if name.lower().endswith(endings)]

    def listing(self) -> Iterator[Listed]:
        sizes = finished_folders(self.sizes, self.left_out)
        endings = (*_BESIDE, self.settings.caption or _BESIDE[0])
        pictures = iter([name for name in sizes if is_picture(name)])
        while some := list(islice(pictures, _AT_ONCE)):
            beside = {name: [f"{_stem(name)}.{ending}" for ending in endings] for name in some}
            wanted = sorted(
                {name for names in beside.values() for name in names if sizes.get(name, LONGEST + 1) <= LONGEST}
            )
            ranges = [Range(name, 0, sizes[name]) for name in wanted]
            texts = dict(zip(wanted, self.folder.read_ranges(ranges), strict=True))
            for name, text in texts.items():  # one that is gone since it was listed is no lack of a caption
                check_length(f"{self.label}/{name}", None if text is None else len(text), sizes[name])
            listed, columns = [], []
            for picture, names in beside.items():
                if not any(name in sizes for name in names):
                    self.left_out["pictures without a text file or JSON beside them"] += 1
                    continue
                txt, js, own = (texts.get(name) for name in names)
                captions, problem = captions_of(txt, js, self.settings.caption, own)
                if problem and (long := [name for name in names if sizes.get(name, 0) > LONGEST]):
                    problem = too_long(long[0], sizes[long[0]])
                listed.append(self.of_file(picture, sizes[picture], picture, captions, problem))
                columns.append(fields_of(js) if self.filter.columns else {})
            yield from self.filter.judge(listed, rows_of(columns, self.filter.columns))
        for table in (name for name in sizes if name.endswith(".parquet")):
            downloaded(self.folder, table, self.left_out)


def is_picture(name: str) -> bool:
    return name.rpartition(".")[2].lower() in PICTURE_ENDINGS and "." in name


def tables_in(names: Iterable[str]) -> list[str]:
    """Those that are called as tables of captions are, in the folder itself; else those in the folders in it."""
    called = [
        name
        for name in names
        if name.endswith(TABLE_ENDINGS)
        and posixpath.basename(name).rsplit(".", 1)[0].split("_")[0].lower() in _TABLE_NAMES
    ]
    return [name for name in called if "/" not in name] or called


def beside_texts(names: Mapping[str, int]) -> bool:
    """Whether some picture has a text file or JSON of its name beside it."""
    return any(is_picture(name) and any(f"{_stem(name)}.{ending}" in names for ending in _BESIDE) for name in names)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _of_json(value: dict[str, Any], where: str) -> Iterator[tuple[str, object]]:
    """Pairs of COCO's captions, of Karpathy's splits of them, or of an object that has a caption or a list by each picture."""
    try:
        if isinstance(value.get("images"), list) and "annotations" in value:
            files = {image["id"]: image["file_name"] for image in value["images"]}
            spoken: dict[object, list[object]] = {image: [] for image in files}
            for annotation in value["annotations"]:
                spoken[annotation["image_id"]].append(annotation["caption"])
            for image, captions in spoken.items():
                yield str(files[image]), captions
            return
        if isinstance(value.get("images"), list):
            for image in value["images"]:
                path = posixpath.join(image.get("filepath", ""), image["filename"])
                yield path, [sentence["raw"] for sentence in image["sentences"]]
            return
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"{where}: expected COCO captions (images with id and file_name, annotations with image_id and caption); "
            f"{error!r}"
        ) from None
    if not any(map(is_picture, value)):
        raise RequestError(
            f"{where}: expected COCO captions, a list of objects, or captions by the names of pictures; it has "
            f"{', '.join(list(value)[:8]) or 'nothing'}"
        )
    yield from value.items()
