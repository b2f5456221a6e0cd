"""Which samples of a source are wanted: by an expression over its columns and scores, and by a list of those that are not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stillreel.animate.sources.captions import KEY_COLUMNS
from stillreel.configs import RequestError
from stillreel.configs.build import FilterSettings
from stillreel.configs.system.claims import damage_of, read_parquet
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.where import Where
from stillreel.shards.format.plan import Listed

_NAMED_BY = ("url", "sha256", "uid")  # columns whose values a list of unwanted samples may hold, beside their keys


class SampleFilter:
    """What the settings want of a source. Nothing is read until a sample is judged."""

    def __init__(self, settings: FilterSettings) -> None:
        self._settings = settings
        self._where = Where.parse(settings.where) if settings.where else None
        self._scores = _Scores(settings.scores) if settings.scores else None
        if self._scores and not self._where:
            raise RequestError(f"scores={settings.scores} are for where=, which is not given")
        self._blocked: frozenset[str] = frozenset(_lines(settings.blocklist)) if settings.blocklist else frozenset()
        self._digests = frozenset(filter(re.compile("[0-9a-f]{64}").fullmatch, self._blocked))

    @property
    def columns(self) -> frozenset[str]:
        """Columns of the source that are looked at, where it has them."""
        asked = self._where.columns if self._where else frozenset()
        return asked | (frozenset(_NAMED_BY) if self._blocked else frozenset())

    def record(self) -> dict[str, str]:
        """What a plan keeps of it; nothing where everything is wanted."""
        given = self._settings
        digests = {
            "scores": self._scores and self._scores.digest,
            "blocklist": given.blocklist and _digest(given.blocklist),
        }
        return {name: str(value) for name, value in {"where": given.where, **digests}.items() if value}

    @property
    def reads_pictures(self) -> bool:
        """Whether the list holds digests, and no column of the source that was seen has the pictures' own."""
        return bool(self._digests)

    def judge_picture(self, one: Listed, data: bytes | None) -> Listed:
        """A sample by the bytes of its picture."""
        digest = hashlib.sha256(data or b"").hexdigest()
        return one._replace(problem=f"blocked: sha256 {digest} is in the blocklist") if digest in self._digests else one

    def judge(self, listed: Sequence[Listed], rows: pa.Table) -> list[Listed]:
        """Samples, with their rows of the source's columns, as they are planned: those not wanted have that for a problem."""
        judged = list(listed)
        if self._where and judged:
            table = _completed(rows, judged)
            wanted = self._where.mask(self._scores.joined(table, judged) if self._scores else table).to_pylist()
            problem = f"filtered: where={self._settings.where} is not true of it"
            judged = [
                one if one.problem or is_wanted else one._replace(problem=problem)
                for one, is_wanted in zip(judged, wanted, strict=True)
            ]
        if "sha256" in rows.column_names:
            self._digests = frozenset()
        if self._blocked:
            named = [rows[name].to_pylist() for name in _NAMED_BY if name in rows.column_names]
            for at, one in enumerate(judged):
                entry = next(
                    (name for name in (one.source_key, *(values[at] for values in named)) if name in self._blocked),
                    None,
                )
                if entry is not None and not one.problem:
                    judged[at] = one._replace(problem=f"blocked: {entry} is in the blocklist")
        return judged


def rows_of(objects: Sequence[Mapping[str, Any]], columns: frozenset[str]) -> pa.Table:
    """Columns of objects without types, as read from JSON or from text: numbers where all that is there are numbers."""
    names = sorted(columns & {name for one in objects for name in one})
    return (
        pa.table({name: _typed([one.get(name) for one in objects]) for name in names})
        if names
        else _no_columns(len(objects))
    )


def _no_columns(count: int) -> pa.Table:
    return pa.table({"": pa.nulls(count)}).select([])


def _typed(values: Sequence[Any]) -> pa.Array:
    texts = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]
    plain = [None if value in ("", None) else value for value in texts]
    if all(value is None or isinstance(value, str) for value in plain):
        try:
            return pa.array([None if value is None else float(value) for value in plain], pa.float64())
        except ValueError:
            return pa.array(texts, pa.string())
    try:
        return pa.array(plain)
    except pa.ArrowException:
        return pa.array([None if value is None else str(value) for value in plain], pa.string())


def _completed(rows: pa.Table, listed: Sequence[Listed]) -> pa.Table:
    """The rows, with the first caption and the key of each sample where the source has no columns of these names."""
    added = {
        "caption": [one.captions[0] if one.captions else None for one in listed],
        "key": [one.source_key for one in listed],
    }
    for name, values in added.items():
        if name not in rows.column_names:
            column = pa.array(values, pa.string())
            rows = rows.append_column(name, column) if rows.num_columns else pa.table({name: column})
    return rows


class _Scores:
    """A Parquet file of scores, a row a sample, joined by key."""

    def __init__(self, url: str) -> None:
        parent, _, name = Folder(url).url.rpartition("/")
        folder = Folder(parent)
        if folder.size(name) is None or not name.endswith(".parquet"):
            raise RequestError(f"scores={url}: expected a Parquet file with a column of keys and others of scores")
        data = folder.read(name)
        self.digest = hashlib.sha256(data).hexdigest()
        with damage_of(f"scores={url} is no Parquet file that can be read"):
            table = read_parquet(data)
        key = next((known for known in KEY_COLUMNS if known in table.column_names), "")
        if not key:
            raise RequestError(
                f"scores={url} has no column {', '.join(KEY_COLUMNS)}; it has {', '.join(table.column_names)}"
            )
        self._table = table.drop_columns([key])
        self._rows = {str(value): row for row, value in enumerate(table[key].to_pylist())}

    def joined(self, rows: pa.Table, listed: Sequence[Listed]) -> pa.Table:
        """Rows with their scores, null where there are none."""
        places = pa.array([self._rows.get(one.source_key) for one in listed], pa.int64())
        for name in self._table.column_names:
            if name not in rows.column_names:
                rows = rows.append_column(name, pc.take(self._table[name], places))
        return rows


def _lines(path: str) -> list[str]:
    return [line.strip() for line in _read(path).decode("utf-8", "replace").splitlines() if line.strip()]


def _digest(path: str) -> str:
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: str) -> bytes:
    parent, _, name = Folder(path).url.rpartition("/")
    try:
        return Folder(parent).read(name)
    except OSError as error:
        raise RequestError(
            f"blocklist={path} cannot be read: {error}; expected a file of keys, URLs or sha256, one a line"
        ) from None
