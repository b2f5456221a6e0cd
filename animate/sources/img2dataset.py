"""What img2dataset says beside its tars, Parquet files and folders of what it has fetched.

It keeps a row for every row of its table, failed ones too, in the Parquet file of a shard, and writes `_stats.json` last: a
shard without stats is one that it will make again.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from stillreel.configs.system.claims import damage_of
from stillreel.configs.system.storage import Folder

_STATS = "_stats.json"


def finished(shards: Iterable[str], names: Iterable[str], left_out: Counter[str]) -> list[str]:
    """Shards that count, of those files; all where nothing is img2dataset's."""
    shards = list(shards)
    stems = _stems(names)
    done = [name for name in shards if name.rpartition(".")[0] in stems] if stems else shards
    if len(done) < len(shards):
        ending = shards[0].rpartition(".")[2]
        what = "tars" if ending == "tar" else f".{ending} files"
        left_out[f"{what} that img2dataset has not finished"] += len(shards) - len(done)
    return done


def finished_folders(names: Mapping[str, int], left_out: Counter[str]) -> dict[str, int]:
    """The files that count of a folder that img2dataset wrote as files, a folder a shard; all of any other."""
    stems = _stems(names)
    folders = {posixpath.dirname(name) for name in names}
    if not stems & folders:
        return dict(names)
    unfinished = {folder for folder in folders - stems if posixpath.basename(folder).isdecimal()}
    if unfinished:
        left_out["folders that img2dataset has not finished"] += len(unfinished)
    return {name: size for name, size in names.items() if posixpath.dirname(name) not in unfinished}


def downloaded(folder: Folder, table_name: str, left_out: Counter[str]) -> set[str]:
    """Keys that its table of a shard calls successful; counts the others. Empty where there is no such table."""
    if folder.size(table_name) is None:
        return set()
    with folder.open(table_name) as file, damage_of(f"{table_name} cannot be read as img2dataset's table"):
        table = pq.ParquetFile(file)
        if not {"key", "status"} <= set(table.schema_arrow.names):
            return set()
        rows = table.read(columns=["key", "status"], use_threads=False)
        rows.validate(full=True)
        keys, states = rows["key"].to_pylist(), rows["status"].to_pylist()
    left_out.update(f"rows with status {state}" for state in states if state != "success")
    return {str(key) for key, state in zip(keys, states, strict=True) if state == "success"}


def columns_by_key(folder: Folder, table_name: str, keys: Sequence[str], columns: frozenset[str]) -> pa.Table:
    """Columns of its table of a shard, a row for each of these keys, null where it has none."""
    with folder.open(table_name) as file, damage_of(f"{table_name} cannot be read as img2dataset's table"):
        table = pq.ParquetFile(file)
        there = [name for name in table.schema_arrow.names if name in columns]
        rows = table.read(columns=["key", *there], use_threads=False)
        places = {str(key): row for row, key in enumerate(rows["key"].to_pylist())}
        return rows.select(there).take(pa.array([places.get(key) for key in keys], pa.int64()))


def _stems(names: Iterable[str]) -> set[str]:
    return {name[: -len(_STATS)] for name in names if name.endswith(_STATS)}
