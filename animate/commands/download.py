"""`stillreel download TABLE OUT`: fetch the pictures of a table of URLs, by img2dataset.

    OUT/00000.tar, .parquet, _stats.json ...    img2dataset's own shards: what `stillreel animate` reads
    OUT/_stillreel/table.parquet                the table as it was converted; retry-001.parquet: what a rerun tried again
    OUT/_stillreel/img2dataset.log              what img2dataset had to say

The first run downloads every row; one that was interrupted goes on. When every shard of the table is done, running the
command again tries what failed, and only that, as further shards.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillreel.animate.download.urls import convert_table
from stillreel.animate.sources.tables import TABLE_ENDINGS
from stillreel.configs import DataError, RequestError
from stillreel.configs.build import DownloadSettings
from stillreel.configs.system.claims import damage_of, parse_json
from stillreel.configs.system.interrupt import stoppable
from stillreel.configs.system.progress import Progress, tally
from stillreel.configs.system.storage import Folder, refuse_overlap

_log = logging.getLogger(__name__)
_OWN = "_stillreel"
_TABLE = f"{_OWN}/table.parquet"
_ABOUT = f"{_OWN}/table.about"  # not .json: img2dataset takes every *.json of its folder for stats
_LOG = f"{_OWN}/img2dataset.log"
_POLL_S = 0.5
_HANG_S = 30.0  # after its last shard is done, img2dataset may take this long to end by itself
_SHOWN = 15


class Pass(NamedTuple):
    """One run of img2dataset: over which table, as which shards, in which of its incremental modes."""

    table: str
    rows: int
    first_shard: int
    mode: str


def run(table: str, out: str, settings: DownloadSettings) -> int:
    """Download, or go on, or retry; prints what came of it. Exit 1 when shards are missing or no picture came."""
    folder = Folder(out)
    if not folder.is_local:
        raise RequestError(f"OUT {out}: img2dataset writes to a disk here; copy the folder to the bucket afterwards")
    rows = _convert(folder, table, settings)
    with stoppable("finished tars are kept; run the same command again to go on"):
        todo = _next_pass(folder, rows, settings)
        if todo is not None:
            _fetch(folder, todo, settings)
    return _report(folder, rows, settings)


def _convert(folder: Folder, table: str, settings: DownloadSettings) -> int:
    """Convert the table, unless that was done before; returns its rows. RequestError when OUT is of another table."""
    source, names = _tables(table, folder)
    about = {
        "bytes": sum(source.size(name) or 0 for name in names),
        "head": hashlib.sha256(b"".join(_head(source, name) for name in names)).hexdigest(),
        "shard_size": settings.shard_size,
    }
    if folder.exists(_ABOUT):
        with damage_of(f"{folder.url}/{_ABOUT} is damaged; remove {_OWN} to convert the table again"):
            before = dict(parse_json(folder.read(_ABOUT)))
            before["rows"] = int(before["rows"])
        if {key: before.get(key) for key in about} != about:
            raise RequestError(
                f"OUT {folder.url} holds the download of another table, or with another shard_size; use another OUT"
            )
        return int(before["rows"])
    if any(file.endswith((".tar", "_stats.json")) for file in folder.sizes()):
        raise RequestError(f"OUT {folder.url} holds tars that stillreel did not download; use another OUT")
    _log.info(f"reading {table}")
    with folder.draft(_TABLE) as draft:
        converted = convert_table(source, names, draft.path, settings)
        draft.publish()
    if converted.left_out:
        _log.warning(f"left out of {table}: {tally(converted.left_out)}")
    folder.publish(_ABOUT, json.dumps({**about, "rows": converted.rows}).encode())
    return converted.rows


def _tables(table: str, out: Folder) -> tuple[Folder, list[str]]:
    """Where the table lies, or the tables of a folder (as LAION's, COYO's and DataComp's lie), in the order of their names."""
    given = Folder(table)
    if given.is_folder():
        refuse_overlap(given, out)
        names = [name for name in given.listing().sizes if name.removesuffix(".gz").endswith(TABLE_ENDINGS)]
        kinds = {name.removesuffix(".gz").rpartition(".")[2] for name in names}
        if len(kinds) != 1:
            what = f"tables of {len(kinds)} kinds: .{', .'.join(sorted(kinds))}; name one" if kinds else "no table"
            raise RequestError(f"TABLE {table} holds {what}; expected .parquet, .tsv, .csv or .jsonl files of URLs")
        return given, names
    if not given.exists():
        raise RequestError(f"TABLE {table}: no such file")
    parent, _, name = given.url.rpartition("/")
    return Folder(parent), [name]


def _head(source: Folder, name: str) -> bytes:
    with source.open(name) as file:
        return file.read(1 << 20)


def _next_pass(folder: Folder, rows: int, settings: DownloadSettings) -> Pass | None:
    """What is to be done now: the rest of the table, else what failed of it, else nothing."""
    planned = -(-rows // settings.shard_size)
    done = _finished_shards(folder)
    open_shards = planned - len(done & set(range(planned)))
    if open_shards:
        _log.info(f"{rows:,} rows, {planned:,} tars, {planned - open_shards:,} of them finished")
        return Pass(_TABLE, rows, 0, "incremental")
    failed = _failed_rows(folder, rows)
    if not len(failed):
        return None
    # What a retry left unfinished is tried again under new numbers.
    for name in folder.sizes():
        if name.endswith(".tar") and int(name[:-4]) not in done:
            folder.remove(name)
    number = sum(name.startswith(f"{_OWN}/retry-") for name in folder.sizes(_OWN)) + 1
    name = f"{_OWN}/retry-{number:03d}.parquet"
    table = _read(folder, _TABLE)
    with folder.draft(name) as draft:
        pq.write_table(
            table.take(pa.array(np.searchsorted(table["row"].to_numpy(), failed))), draft.path, compression="zstd"
        )
        draft.publish()
    _log.info(f"every tar of the table is finished; trying the {len(failed):,} rows that failed again")
    return Pass(name, len(failed), max(done) + 1, "extend")


def _finished_shards(folder: Folder) -> set[int]:
    return {int(found[1]) for name in folder.sizes() if (found := re.fullmatch(r"(\d{5,9})_stats\.json", name))}


def _read(folder: Folder, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    with damage_of(f"{folder.url}/{name} is damaged"):
        return pq.ParquetFile(folder.locate(name)).read(columns=columns, use_threads=False)


def _outcomes(folder: Folder) -> Iterator[pa.Table]:
    """Row, status and message of every attempt, from the tables of finished shards in order."""
    for shard in sorted(_finished_shards(folder)):
        yield _read(folder, f"{shard:05d}.parquet", ["row", "status", "error_message"])


def _failed_rows(folder: Folder, rows: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Row numbers of the table that no attempt has brought, ascending; those that img2dataset lost are among them."""
    wanted = _read(folder, _TABLE, ["row"])["row"].to_numpy()
    got = [table.filter(pc.equal(table["status"], "success"))["row"].to_numpy() for table in _outcomes(folder)]
    return np.asarray(np.setdiff1d(wanted, np.concatenate(got) if got else np.empty(0, np.int64)))


def _fetch(folder: Folder, todo: Pass, settings: DownloadSettings) -> None:
    """Run img2dataset over a table, and show how far it is."""
    arguments = {
        "url_list": folder.locate(todo.table),
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "save_additional_columns": ["row"],
        "output_folder": folder.path,
        "output_format": "webdataset",
        "incremental_mode": todo.mode,
        "image_size": settings.max_side,
        "resize_mode": "keep_ratio_largest",
        "resize_only_if_bigger": True,
        "skip_reencode": True,
        "encode_quality": settings.quality,
        "number_sample_per_shard": settings.shard_size,
        "oom_shard_count": 5,
        "processes_count": settings.processes or os.cpu_count() or 1,
        "thread_count": settings.threads,
        "timeout": settings.timeout,
        "retries": settings.retries,
        "user_agent_token": settings.user_agent_token or None,
        "disallowed_header_directives": None if settings.opt_outs else [],
        "enable_wandb": False,
    }
    shards = range(todo.first_shard, todo.first_shard + -(-todo.rows // settings.shard_size))
    with _img2dataset(folder, arguments) as process, Progress(todo.rows, "rows", settings.progress) as progress:
        seen: Counter[str] = Counter()
        counted: set[int] = set()
        finished_at: float | None = None
        while process.poll() is None:
            time.sleep(_POLL_S)
            _count_stats(folder, shards, counted, seen, progress)
            if len(counted) == len(shards):
                finished_at = finished_at or time.monotonic()
                if time.monotonic() - finished_at > _HANG_S:
                    break
        _count_stats(folder, shards, counted, seen, progress)
    if len(counted) < len(shards):
        raise DataError(
            f"img2dataset ended (exit {process.returncode}) with {len(shards) - len(counted)} of {len(shards)} tars "
            f"unfinished; see {folder.locate(_LOG)}, and run the same command again"
        )


def _count_stats(folder: Folder, shards: range, counted: set[int], seen: Counter[str], progress: Progress) -> None:
    """Take in the stats of shards that have been finished since."""
    for shard in sorted(_finished_shards(folder) & set(shards) - counted):
        try:
            stats = parse_json(folder.read(f"{shard:05d}_stats.json"))
            count, successes = int(stats["count"]), int(stats["successes"])
        except (ValueError, KeyError, TypeError):
            continue  # it is being written
        counted.add(shard)
        seen.update({"downloaded": successes, "failed": count - successes})
        progress.advance(count, tally(seen))
    progress.beat()


@contextmanager
def _img2dataset(folder: Folder, arguments: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """img2dataset at work, in a session of its own; whatever happens, it and its children are gone at the end."""
    if importlib.util.find_spec("img2dataset") is None:
        raise RequestError('img2dataset is not installed: pip install "stillreel[build]"')
    command = [sys.executable, "-m", "stillreel.animate.download.fetch", json.dumps(arguments)]
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONUNBUFFERED": "1"}
    with open(folder.locate(_LOG), "ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _report(folder: Folder, rows: int, settings: DownloadSettings) -> int:
    """Print what came and what did not, by reason; returns the exit code."""
    last: dict[int, str] = {}
    for table in _outcomes(folder):
        for row, status, message in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
            if last.get(row) != "":
                last[row] = "" if status == "success" else _reason(status, message)
    reasons = Counter(reason for reason in last.values() if reason)
    downloaded = len(last) - reasons.total()
    if len(last) < rows:
        reasons["lost by img2dataset, without a word"] = rows - len(last)
    print(f"{downloaded:,} of {rows:,} pictures ({downloaded / rows:.1%}) are in {folder.url}")
    for reason, count in reasons.most_common(_SHOWN):
        print(f"  {count:>10,}  {count / rows:6.1%}  {reason}")
    others = sum(count for _, count in reasons.most_common()[_SHOWN:])
    if others:
        print(f"  {others:>10,}  {others / rows:6.1%}  {len(reasons) - _SHOWN} other reasons")
    if reasons:
        print("run the same command again to try what failed once more")
    print(f"next: stillreel animate {folder.url} OUT", flush=True)
    return 0 if downloaded else 1


def _reason(status: str, message: str | None) -> str:
    """A failure without what differs from host to host, so that alike ones are counted together."""
    text = re.sub(r"\s+", " ", message or status).strip()
    text = re.sub(r"'[^']*\.[a-z]{2,}[^']*'", "'HOST'", text)
    return f"{status.replace('_', ' ')}: {text[:90]}"
