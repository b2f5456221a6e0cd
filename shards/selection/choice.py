"""Which samples of some finished data sets are taken: those of which `where` is true, of duplicates one, and of these a sample.

All three are said of a sample by what it is (its columns, its picture, its source and source key), never by where it lies: so the
same samples are taken whatever the order of the sets.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stillreel.configs import DataError, RequestError
from stillreel.configs.select import SelectSettings
from stillreel.configs.system.progress import tally
from stillreel.shards.build.where import Where
from stillreel.shards.format.index import open_index
from stillreel.shards.format.receipt import Receipt, part_file
from stillreel.shards.format.record import SCHEMA, WRITTEN, read_table
from stillreel.shards.format.sample import read_samples
from stillreel.shards.selection.clips import ClipSet
from stillreel.shards.selection.near import survivors

_THREADS = 16  # tables are small files, often on a network
_TOLD = ("status", "reason", "detail")  # of rejects, which are never taken
# What `where` may ask for: a table's own columns, the first caption, and where a sample falls in [0, 1) by the seed.
COLUMNS = pa.schema(
    [one for one in SCHEMA if one.name not in _TOLD]
    + [pa.field("caption", pa.string()), pa.field("fold", pa.float64())]
)


class Choice(NamedTuple):
    """The rows that are taken, in the order of the sets, their shards and samples: `shard` counts over all sets, `number` the
    written samples of a shard, beside `source` and `source_key`. And how many of each shard are left out, by reason."""

    rows: pa.Table
    left_out: list[Counter[str]]


def choose(sets: Sequence[ClipSet], settings: SelectSettings) -> Choice:
    """Read the tables and choose. RequestError where nothing is left, or a set lacks what is asked for."""
    candidates = _Candidates(sets, parse_where(settings), settings)
    if settings.unique == "exact":
        candidates.keep(_first_of_each(candidates.pictures(), candidates.ranks()), "duplicate")
    elif settings.unique == "near":
        candidates.keep(survivors(candidates.hashes(), candidates.ranks(), settings.distance), "near_duplicate")
    if settings.sample:
        count = len(candidates.rows)
        if settings.sample > count:
            raise RequestError(f"sample={settings.sample}: only {count:,} samples are left; {candidates.told()}")
        order = np.lexsort((candidates.ranks(), candidates.rows["fold"].to_numpy()))
        candidates.keep(np.isin(np.arange(count), order[: settings.sample]), "not_sampled")
    if not len(candidates.rows):
        raise RequestError(f"no sample is left; {candidates.told()}")
    return Choice(candidates.rows.select(["shard", "number", "source", "source_key"]), candidates.left_out)


def parse_where(settings: SelectSettings) -> Where | None:
    """RequestError where it asks for what no data set has."""
    if not settings.where:
        return None
    where = Where.parse(settings.where)
    where.check(COLUMNS)
    return where


class _Candidates:
    """The rows that are still taken, with what it takes to choose among them."""

    def __init__(self, sets: Sequence[ClipSet], where: Where | None, settings: SelectSettings) -> None:
        self._sets = sets
        self._shards = [(one, receipt) for one in sets for receipt in one.receipts]
        with ThreadPoolExecutor(_THREADS) as pool:
            read = list(pool.map(lambda shard: _read(shard[0], shard[1], where, settings), self._shards))
        self.left_out = [gone for _, gone in read]
        numbered = [
            part.append_column("shard", pa.repeat(pa.scalar(at, pa.int32()), len(part)))
            for at, (part, _) in enumerate(read)
        ]
        self.rows = pa.concat_tables(numbered).combine_chunks()

    def keep(self, kept: NDArray[np.bool_], reason: str) -> None:
        """Go on with some of the rows, and count the others as left out for a reason."""
        for shard, count in zip(*np.unique(self.rows["shard"].to_numpy()[~kept], return_counts=True), strict=True):
            self.left_out[shard][reason] += int(count)
        self.rows = self.rows.filter(pa.array(kept))

    def told(self) -> str:
        return f"left out: {tally(sum(self.left_out, Counter()))}"

    def ranks(self) -> NDArray[np.int64]:
        """Place of each row among all: the largest picture first, then by source key and source; and of one sample in two sets,
        by the sets' digests."""
        places = {digest: place for place, digest in enumerate(sorted(one.digest for one in self._sets))}
        of_shard = np.array([places[one.digest] for one, _ in self._shards])
        area = pc.multiply(self.rows["width"].cast(pa.int64()), self.rows["height"].cast(pa.int64()))
        table = self.rows.append_column("area", pc.negate(area))
        table = table.append_column("set", pa.array(of_shard[self.rows["shard"].to_numpy()]))
        keys = ("area", "source_key", "source", "set", "shard", "number")
        order = pc.sort_indices(table, sort_keys=[(key, "ascending") for key in keys]).to_numpy()
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        return ranks

    def hashes(self) -> NDArray[np.uint64]:
        """The perceptual hash of each row. RequestError where a set has none."""
        missing = self.rows["phash"].is_null().to_numpy()
        if missing.any():
            one, _ = self._shards[self.rows["shard"][int(missing.argmax())].as_py()]
            raise RequestError(
                f"unique=near: {one.folder.url} was built before tables had phash; build it anew, or use unique=exact"
            )
        hashes: NDArray[np.uint64] = self.rows["phash"].to_numpy().view(np.uint64)
        return hashes

    def pictures(self) -> NDArray[np.int64]:
        """A number for each row, equal for those with the same JPEG. Only pictures of one size and hash are read."""
        store = self._sets[0].plans[0].header.settings["store"]
        if store != "recipe":
            raise RequestError(
                f"unique=exact compares pictures, which store={store} does not keep; use unique=near distance=0"
            )
        # Where a set has no hashes, all of one size are read.
        looks = ["width", "height"] if self.rows["phash"].null_count else ["width", "height", "phash"]
        values = np.stack([self.rows[name].to_numpy().astype(np.int64) for name in looks], axis=1)
        _, labels, counts = np.unique(values, axis=0, return_inverse=True, return_counts=True)
        alike = np.flatnonzero(counts[labels.reshape(-1)] > 1)
        pictures = np.arange(len(self.rows)) + len(self.rows)
        _, pictures[alike] = np.unique(np.array(self._digests(alike), "S32"), return_inverse=True)
        return pictures

    def _digests(self, rows: NDArray[np.int64]) -> list[bytes]:
        """sha256 of the JPEGs of some rows."""
        shard, number = (self.rows[name].to_numpy()[rows].tolist() for name in ("shard", "number"))
        runs = [
            (at, [own for _, own in run])
            for at, run in groupby(zip(shard, number, strict=True), key=lambda pair: pair[0])
        ]
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda run: _jpeg_digests(self._shards[run[0]], run[1]), runs)
            return [digest for part in found for digest in part]


def _jpeg_digests(shard: tuple[ClipSet, Receipt], numbers: list[int]) -> list[bytes]:
    one, receipt = shard
    entries = open_index(one.folder.read(part_file(receipt.shard, "idx"))).pick(numbers)
    return [hashlib.sha256(sample["jpg"]).digest() for sample in read_samples(one.folder, receipt.shard, entries)]


def _read(
    one: ClipSet, receipt: Receipt, where: Where | None, settings: SelectSettings
) -> tuple[pa.Table, Counter[str]]:
    """The candidates of a shard, and what of it is left out."""
    needed = {"source", "source_key", *_needed(settings)}
    asked = needed | (where.columns if where else set())
    table = _read_table(one, receipt, asked | {"status", "reason"} | ({"captions"} if "caption" in asked else set()))
    left_out = Counter(reason for reason in table["reason"].to_pylist() if reason)
    table = table.filter(pc.equal(table["status"], WRITTEN))
    table = table.append_column("number", pa.array(np.arange(len(table), dtype=np.int32)))
    if "caption" in asked:
        # Padded: a table that was edited may hold a sample without captions.
        first = pc.list_slice(table["captions"], 0, 1, return_fixed_size_list=True)
        table = table.append_column("caption", pc.list_element(first, 0))
    if "fold" in asked:
        table = table.append_column("fold", folds(settings.seed, table))
    if where is not None:
        taken = table.filter(where.mask(table))
        left_out["where"] = len(table) - len(taken)
        table = taken
    return table.select(["number", *sorted(needed)]), +left_out


def _needed(settings: SelectSettings) -> set[str]:
    """Columns that choosing among all rows needs, beside their names."""
    unique = {"width", "height", "phash"} if settings.unique != "no" else set()
    return unique | ({"fold", "width", "height"} if settings.sample else set())


def _read_table(one: ClipSet, receipt: Receipt, columns: set[str]) -> pa.Table:
    """Columns of a shard's table, null where it has none. DataError when its bytes are not its receipt's."""
    name = part_file(receipt.shard, "parquet")
    data = one.folder.read(name)
    if hashlib.sha256(data).hexdigest() != receipt.files["parquet"].digest:
        raise DataError(f"{one.folder.url}/{name} does not hash to what its receipt says; run `stillreel verify`")
    table = read_table(data, f"{one.folder.url}/{name}")
    for field in SCHEMA:
        if field.name not in table.schema.names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select([name for name in SCHEMA.names if name in columns])


def folds(seed: int, table: pa.Table) -> pa.Array:
    """A number in [0, 1) for each row, drawn by seed, source and source key: what else is in the data set does not matter."""
    named = zip(table["source"].to_pylist(), table["source_key"].to_pylist(), strict=True)
    texts = (f"{seed}\0{source}\0{key}".encode("utf-8", "surrogatepass") for source, key in named)
    drawn = [hashlib.blake2b(text, digest_size=8).digest() for text in texts]
    return pa.array((np.frombuffer(b"".join(drawn), "<u8") >> np.uint64(11)) * 2.0**-53)


def _first_of_each(labels: NDArray[np.int64], rank: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of the rows of one label, the one of the least rank."""
    order = np.argsort(rank)
    _, first = np.unique(labels[order], return_index=True)
    kept = np.zeros(len(labels), np.bool_)
    kept[order[first]] = True
    return kept
