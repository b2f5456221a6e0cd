"""Makes a shard of samples that lie in finished shards: their members as they are, under new keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from time import perf_counter
from typing import Any, NamedTuple

import pyarrow.compute as pc

from stillreel.configs import DataError
from stillreel.configs.system.claims import checked_name
from stillreel.configs.system.storage import Folder, Range
from stillreel.shards.build.executors import ShardTask
from stillreel.shards.format.index import Entry, open_index
from stillreel.shards.format.plan import PlannedSample, shard_name
from stillreel.shards.format.receipt import Receipt, part_file, read_receipt
from stillreel.shards.format.record import WRITTEN, Record, read_table
from stillreel.shards.format.sample import split_sample
from stillreel.shards.format.writer import ShardWriter

_THREADS = 8


class Origin(NamedTuple):
    """A sample where it lies: its row, and its bytes in a tar."""

    row: dict[str, Any]
    entry: Entry
    tar: str


def make_shard(task: ShardTask) -> Receipt:
    """Copy one shard's samples and publish it; `task.job` holds the URLs of the data sets as they lie now.

    DataError where they are not what was planned from.
    """
    start = perf_counter()
    plan = task.open_plan()
    samples = plan.read_shard(task.shard)
    sets = _Sets(plan.header.source["clips"], task.job)
    with ShardWriter(plan, task.shard, task.max_rejected) as writer:
        for planned, (row, members) in zip(samples, sets.read(samples), strict=True):
            if (row["source"], row["source_key"]) != (planned.source, planned.source_key):
                raise DataError(f"{planned.key}: planned from {planned.source_key}, found {row['source_key']}")
            writer.write(Record.of(planned, WRITTEN)._replace(**{**row, "key": planned.key}), members)
        return writer.publish(task.attempt, {"total": perf_counter() - start})


class _Sets:
    """The data sets that a plan names, by the numbers of their shards counted over all of them."""

    def __init__(self, described: Sequence[dict[str, Any]], urls: Sequence[str]) -> None:
        self._shards = [
            (folder, shard_name(name, number), frozenset(one["plans"]))
            for one, folder in zip(described, map(Folder, urls), strict=True)
            for name, first, count in one["shards"]
            for number in range(first, first + count)
        ]

    def read(self, samples: Sequence[PlannedSample]) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
        """Row and members of each planned sample, in order."""
        runs = [(shard, [one.offset for one in run]) for shard, run in groupby(samples, key=lambda one: one.length)]
        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(lambda run: self._origins(*run), runs))
        for url, parts in groupby(zip(runs, found, strict=True), key=lambda part: self._shards[part[0][0]][0].url):
            origins = [origin for _, part in parts for origin in part]
            folder = Folder(url)
            blobs = folder.read_ranges([Range(one.tar, one.entry.offset, one.entry.length) for one in origins])
            for origin, blob in zip(origins, blobs, strict=True):
                if blob is None or hashlib.sha256(blob).digest() != origin.entry.sha256:
                    raise DataError(
                        f"{url}/{origin.tar}, {origin.entry.key}: not its bytes any more; run `stillreel verify`"
                    )
                yield origin.row, split_sample(origin.entry.key, blob)

    def _origins(self, shard: int, numbers: list[int]) -> list[Origin]:
        """Some samples of a shard, whose table and index are what its receipt says, and that what its plan says."""
        folder, name, plans = self._shards[shard]
        try:
            checked_name(name, folder, "shards/{}.tar", "shards/{}.parquet", "shards/{}.idx", "shards/{}.json")
            receipt = read_receipt(folder, name)
        except (FileNotFoundError, ValueError) as error:
            raise DataError(f"{folder.url}, {name}: its receipt cannot be believed: {error}") from None
        if receipt.plan not in plans:
            raise DataError(f"{folder.url}, {name} is of another build than was planned from")
        data = {part: folder.read(part_file(name, part)) for part in ("parquet", "idx")}
        for part, content in data.items():
            if hashlib.sha256(content).hexdigest() != receipt.files[part].digest:
                raise DataError(
                    f"{folder.url}/{part_file(name, part)} is not what its receipt says; run `stillreel verify`"
                )
        table = read_table(data["parquet"], f"{folder.url}/{part_file(name, 'parquet')}")
        rows = table.filter(pc.equal(table["status"], WRITTEN)).take(numbers).to_pylist()
        entries = open_index(data["idx"]).pick(numbers)
        return [Origin(row, entry, part_file(name, "tar")) for row, entry in zip(rows, entries, strict=True)]
