"""The plan: every input sample, its key, and the shard and position it goes to. Written once, before any work.

    OUT/plan-000.parquet    one row group a shard, so that a worker reads its own rows alone, and its own part of the footer
    OUT/plan-001.parquet    an extension: later samples, later positions, later shards

The settings, the source's identity and the library versions stand in the file's metadata; the sha256 of the file is the
plan's digest, which every receipt repeats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from stillreel.configs import DataError
from stillreel.configs.settings import canonical_json
from stillreel.configs.system.claims import (
    STRICT,
    Count,
    checked_name,
    checked_path,
    damage_of,
    parse_json,
    read_record,
)
from stillreel.configs.system.progress import tally
from stillreel.configs.system.storage import Folder, Range, writing
from stillreel.shards.format.footer import (
    Footer,
    GroupAt,
    Span,
    frame_metadata,
    group_metadata,
    read_footer,
    rows_of_head,
)

PLAN_SCHEMA_VERSION = 1
_METADATA_KEY = b"stillreel"

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_key", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("captions", pa.list_(pa.string())),
        pa.field("problem", pa.string()),
    ]
)


class Listed(NamedTuple):
    """A sample as a source lists it. `offset` and `length` are in the source's own units: bytes of a tar or file (-1: not
    known), rows of a Parquet file. `problem` is `reason: detail` when the listing already shows that it is unusable."""

    source: str
    source_key: str
    offset: int
    length: int
    captions: tuple[str, ...]
    problem: str | None = None


class PlannedSample(NamedTuple):
    """A row of the plan."""

    key: str
    source: str
    source_key: str
    shard: int
    position: int
    offset: int
    length: int
    captions: tuple[str, ...]
    problem: str | None


class OutOfTurn(NamedTuple):
    """A row of a plan that does not belong where it stands."""

    key: str
    position: int
    shard: int

    @property
    def told(self) -> str:
        return f"at position {self.position} of shard {self.shard}"


@dataclass(frozen=True)
class PlanHeader:
    """What a plan says of itself. `presets` are the contents of the presets that `settings` name; `source`, opaque here,
    is read back by the room that lists sources; `left_out` counts what the source itself said is no sample."""

    number: Count
    name: str
    settings: dict[str, Any]
    presets: dict[str, Any]
    libraries: dict[str, str]
    source: dict[str, Any]
    first_shard: Count
    first_position: Count
    left_out: dict[str, Count] = field(default_factory=dict)
    schema: int = PLAN_SCHEMA_VERSION

    __pydantic_config__ = STRICT

    @property
    def settings_digest(self) -> str:
        """Of all that decides the bytes of a sample, besides the sample and the library versions."""
        return hashlib.sha256(canonical_json([self.settings, self.presets])).hexdigest()


@dataclass(frozen=True)
class Plan:
    """A plan as it lies in a folder."""

    header: PlanHeader
    digest: str
    samples: int
    shards: int
    folder: Folder = field(repr=False, compare=False)
    head: bytes = field(repr=False, compare=False)  # of its footer
    footer: Footer | GroupAt = field(
        repr=False, compare=False
    )  # all of it, or the part of the one shard it was opened for

    @property
    def file(self) -> str:
        return plan_file(self.header.number)

    @property
    def shard_numbers(self) -> range:
        return range(self.header.first_shard, self.header.first_shard + self.shards)

    def shard_name(self, shard: int) -> str:
        """Name of a shard's files without their endings, e.g. `cc3m-000012`."""
        return shard_name(self.header.name, shard)

    def shard_start(self, shard: int) -> int:
        """Position of the first sample of a shard."""
        return self.header.first_position + (shard - self.header.first_shard) * int(self.header.settings["shard_size"])

    def locate(self, shard: int) -> GroupAt:
        """What `open_plan` needs to read the rows of this shard alone."""
        assert isinstance(self.footer, Footer), "opened for one shard"
        return self.footer.locate(shard - self.header.first_shard)

    def read_shard(self, shard: int) -> list[PlannedSample]:
        """The planned samples of one shard, in order; reads only their part of the file. DataError when it is damaged, or has
        keys, positions or shards that do not follow from each other."""
        with writing(self.folder.url):
            (table,) = self._read_groups([shard - self.header.first_shard], SCHEMA.names)
        wrong = self.find_out_of_turn(shard, table)
        if wrong is not None:
            raise DataError(f"{self._where}: it has {wrong.key!r} {wrong.told}, out of turn")
        return _rows(table)

    def read_all(self) -> Iterator[list[PlannedSample]]:
        """The planned samples, a list a shard. DataError when the file is damaged."""
        return map(_rows, self._read_groups(range(self.shards), SCHEMA.names))

    def read_places(self, shards: Iterable[int] | None = None) -> Iterator[pa.Table]:
        """The samples of some shards, or of all, a table a shard: but for their captions, and whatever places they claim (see
        `find_out_of_turn`). DataError when the file is damaged."""
        numbers = self.shard_numbers if shards is None else shards
        columns = [name for name in SCHEMA.names if name != "captions"]
        return self._read_groups((shard - self.header.first_shard for shard in numbers), columns)

    def find_out_of_turn(self, shard: int, table: pa.Table) -> OutOfTurn | None:
        """The first sample of a shard whose key, position or shard does not follow from where it stands."""
        start = self.shard_start(shard)
        positions = range(start, start + len(table))
        expected = [key_of(self.header.name, position) for position in positions], [*positions], [shard] * len(table)
        found = [table[name].to_pylist() for name in ("key", "position", "shard")]
        if tuple(found) == expected:
            return None
        pairs = zip(zip(*found, strict=True), zip(*expected, strict=True), strict=True)
        return next(OutOfTurn(*row) for row, right in pairs if row != right)

    @property
    def _where(self) -> str:
        return f"{self.folder.url}/{self.file}"

    def _read_groups(self, groups: Iterable[int], columns: list[str]) -> Iterator[pa.Table]:
        with self.folder.open(self.file) as file, damage_of(f"{self._where} is damaged"):
            for group in groups:
                part = self.footer.group if isinstance(self.footer, GroupAt) else self.footer.group(group)
                parquet = pq.ParquetFile(file, metadata=group_metadata(self.head, part))
                table = parquet.read_row_group(0, columns, use_threads=False)
                table.validate(full=True)
                if (table["offset"].to_numpy() < 0).any() or (table["length"].to_numpy() < -1).any():
                    raise ValueError("an offset before the beginning of a file")
                sources, problems = table["source"].to_pylist(), table["problem"].to_pylist()
                for source in {source for source, problem in zip(sources, problems, strict=True) if problem is None}:
                    checked_path(source)
                yield table


def shard_name(name: str, shard: int) -> str:
    return f"{name}-{shard:06d}"


def key_of(name: str, position: int) -> str:
    return f"{name}_{position:09d}"


def plan_file(number: int) -> str:
    return f"plan-{number:03d}.parquet"


def write_plan(folder: Folder, header: PlanHeader, listed: Iterable[Listed], left_out: Mapping[str, int]) -> Plan:
    """Write `plan-NNN.parquet` from what a source lists, a row group a shard; returns the plan as read back.

    `left_out` is read when the listing has ended. Raises DataError when nothing is listed: a plan of no samples proves
    nothing.
    """
    size = int(header.settings["shard_size"])
    samples = iter(listed)
    shard, position = header.first_shard, header.first_position
    with writing(folder.url), folder.draft(plan_file(header.number)) as draft:
        # Statistics would swell the footer, which every worker reads.
        with pq.ParquetWriter(draft.path, SCHEMA, compression="zstd", write_statistics=False) as writer:
            while batch := list(islice(samples, size)):
                rows = [
                    (key_of(header.name, position + at), one.source, one.source_key, shard, position + at, *one[2:])
                    for at, one in enumerate(map(_spelled, batch))
                ]
                columns = zip(*rows, strict=True)
                arrays = [pa.array(list(column), kind.type) for column, kind in zip(columns, SCHEMA, strict=True)]
                writer.write_table(pa.table(arrays, schema=SCHEMA))
                shard += 1
                position += len(batch)
            if position == header.first_position:
                raise DataError("the source lists no samples" + (f"; left out: {tally(left_out)}" if left_out else ""))
            finished = replace(header, left_out=dict(sorted(left_out.items())))
            writer.add_key_value_metadata({_METADATA_KEY: canonical_json(asdict(finished))})
        draft.publish()
    return read_plan(folder, header.number)


def read_plan(folder: Folder, number: int) -> Plan:
    """The plan of a number, hashed. FileNotFoundError when there is none, DataError when the file is damaged."""
    digest = hashlib.sha256()
    with folder.open(plan_file(number)) as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return open_plan(folder, number, digest.hexdigest())


def open_plan(folder: Folder, number: int, digest: str, at: GroupAt | None = None) -> Plan:
    """The plan of a number whose digest is known: reads its footer, or, of a plan that is opened for the shard `at` alone, its
    header, once a process."""
    if at is not None:
        header, head = _opened(folder.url, number, digest, at.head, at.tail)
        return Plan(header, digest, rows_of_head(head), at.groups, folder, head, at)
    name = plan_file(number)
    with folder.open(name) as file, damage_of(f"{folder.url}/{name} is not a plan that can be read"):
        footer = read_footer(file)
        header = _header(folder, number, footer.head, footer.tail)
    return Plan(header, digest, footer.rows, footer.groups, folder, footer.head, footer)


@lru_cache(maxsize=2)  # a worker makes shards of one plan, then of the next
def _opened(url: str, number: int, digest: str, head: Span, tail: Span) -> tuple[PlanHeader, bytes]:
    """The header of a plan, and the head of its footer. (A plan that was replaced has another digest.)"""
    folder, name = Folder(url), plan_file(number)
    first, last = folder.read_ranges([Range(name, *head), Range(name, *tail)])
    if first is None or last is None:
        raise FileNotFoundError(f"{url}/{name} is not there any more")
    with damage_of(f"{url}/{name} is not a plan that can be read"):
        return _header(folder, number, first, last), first


def _header(folder: Folder, number: int, head: bytes, tail: bytes) -> PlanHeader:
    """What a plan says of itself. ValueError where it is none, or not of this number."""
    metadata = frame_metadata(head, tail)
    body = parse_json((metadata.metadata or {}).get(_METADATA_KEY, b"null"))
    if not isinstance(body, dict) or body.get("schema") != PLAN_SCHEMA_VERSION:
        found = body.get("schema") if isinstance(body, dict) else None
        raise ValueError(
            f"plan schema {found}, this stillreel reads {PLAN_SCHEMA_VERSION}; use the version that wrote it"
        )
    header = read_record(_adapter(), body)
    checked_name(header.name, folder, "shards/{}-000000.tar")
    columns = metadata.schema.to_arrow_schema()
    if header.number != number or not columns.equals(SCHEMA):
        raise ValueError(f"it is of number {header.number}, with columns {', '.join(columns.names)}")
    if type(header.settings.get("shard_size")) is not int or header.settings["shard_size"] < 1:
        raise ValueError("its settings have no shard_size")
    return header


@cache
def _adapter() -> TypeAdapter[PlanHeader]:
    return TypeAdapter(PlanHeader)


def _spelled(listed: Listed) -> Listed:
    """A sample whose names are text that a plan can hold: what is not UTF-8 in them is spelled out. A file of such a name cannot
    be found again."""
    source, key = (one.encode("utf-8", "backslashreplace").decode() for one in listed[:2])
    problem = listed.problem
    if source != listed.source:
        problem = problem or "unsupported: its file has a name that is not UTF-8"
    return listed._replace(source=source, source_key=key, problem=problem)


def read_plans(folder: Folder) -> list[Plan]:
    """All plans of a folder, in order; [] when there is none. Raises DataError on a gap in their numbers."""
    names = [name for name in folder.sizes() if name.startswith("plan-") and name.endswith(".parquet")]
    expected = [plan_file(number) for number in range(len(names))]
    if names != expected:
        raise DataError(f"{folder.url} holds {', '.join(names)}; expected {', '.join(expected)}: a plan is missing")
    return [read_plan(folder, number) for number in range(len(names))]


def _rows(table: pa.Table) -> list[PlannedSample]:
    columns = [column.to_pylist() for column in table.columns]
    return [
        PlannedSample(key, source, source_key, shard, position, offset, length, tuple(captions or ()), problem)
        for key, source, source_key, shard, position, offset, length, captions, problem in zip(*columns, strict=True)
    ]
