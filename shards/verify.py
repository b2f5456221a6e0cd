"""The proof: planned = written + rejected, every sample once, every byte as it was written. From the bytes, not from names.

Four witnesses are held against each other: the plan, each shard's table, index and tar, its receipt, and the manifest.
An edit of any one of them disagrees with another.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from configs import DataError
from configs.build import VerifySettings
from shards.index import Entry, decode_index
from shards.manifest import Manifest, read_manifest
from shards.plan import Plan, PlannedSample, read_plans
from shards.progress import Progress, amount, tally
from shards.receipt import PARTS, Receipt, part_file, read_receipt, receipt_file
from shards.record import REASONS, REJECTED, SCHEMA, WRITTEN
from shards.storage import Folder
from shards.survey import Task
from shards.tar import BLOCK, TarDamage, members_of, walk

_SHOWN = 40


class Problem(NamedTuple):
    """Something that is not as it must be: in which shard (or file), at which key where one is concerned, and what."""

    where: str
    key: str | None
    what: str

    def __str__(self) -> str:
        return f"{self.where}{f', {self.key}' if self.key else ''}: {self.what}"


@dataclass
class Verdict:
    """What was found: counts of rows, bytes that were hashed, and every problem."""

    planned: int = 0
    written: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    hashed: int = 0
    problems: list[Problem] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        self.planned += other.planned
        self.written += other.written
        self.rejected.update(other.rejected)
        self.hashed += other.hashed
        self.problems += other.problems


def run(out: str, settings: VerifySettings) -> int:
    """`stillreel verify OUT`: print the verdict; 0 when all is well, 1 when not."""
    verdict = verify(Folder(out), settings)
    for problem in verdict.problems[:_SHOWN]:
        print(f"PROBLEM {problem}")
    if len(verdict.problems) > _SHOWN:
        print(f"... and {len(verdict.problems) - _SHOWN:,} more problems")
    rejected = sum(verdict.rejected.values())
    reasons = f" ({tally(verdict.rejected)})" if rejected else ""
    sign = "=" if verdict.planned == verdict.written + rejected else "!="
    print(f"planned {verdict.planned:,} {sign} written {verdict.written:,} + rejected {rejected:,}{reasons}")
    print(
        f"{amount(verdict.hashed)} read and hashed; "
        + ("all is well" if not verdict.problems else f"{len(verdict.problems):,} problems")
    )
    return 1 if verdict.problems else 0


def verify(folder: Folder, settings: VerifySettings) -> Verdict:
    """Check a whole data set. Raises DataError when there is nothing to check."""
    plans = read_plans(folder)
    if not plans:
        raise DataError(f"{folder.url} holds no plan: it is not a data set of stillreel's, or its plan was removed")
    verdict = Verdict()
    manifest = _check_manifest(folder, plans, verdict)
    tasks = [(task, rows) for plan in plans for task, rows in _planned(plan, manifest)]
    _check_listing(folder, [task for task, _ in tasks], verdict)
    receipts = {line["name"]: line["receipt"] for line in manifest.shards} if manifest else {}
    threads = settings.workers or os.cpu_count() or 1
    with Progress(len(tasks), "shards", settings.progress) as progress, ThreadPoolExecutor(threads) as pool:
        for found in pool.map(lambda one: _check_shard(folder, one[0], one[1], receipts.get(one[0].name)), tasks):
            verdict.add(found)
            progress.advance(1, f"{len(verdict.problems)} problems" if verdict.problems else "")
    _check_totals(manifest, verdict)
    return verdict


def _check_manifest(folder: Folder, plans: Sequence[Plan], verdict: Verdict) -> Manifest | None:
    try:
        manifest = read_manifest(folder)
    except DataError as error:
        verdict.problems.append(Problem("manifest.json", None, str(error)))
        return None
    known = {line["file"]: line["sha256"] for line in manifest.plans}
    for plan in plans:
        if plan.file not in known:
            verdict.problems.append(
                Problem(plan.file, None, "not in the manifest: its build did not finish; run `stillreel animate` again")
            )
        elif known.pop(plan.file) != plan.digest:
            verdict.problems.append(
                Problem(plan.file, None, "differs from the plan that was built: it was edited or damaged")
            )
    verdict.problems += [Problem(file, None, "in the manifest, but missing") for file in known]
    return manifest


def _planned(plan: Plan, manifest: Manifest | None) -> Iterator[tuple[Task, Callable[[], list[PlannedSample]]]]:
    """Each shard of a plan with a reader of its rows. A plan that is as built is read shard by shard; another one is
    read whole and sorted by its shard column, since nothing about its layout can be trusted."""
    if manifest is not None and any(line["sha256"] == plan.digest for line in manifest.plans):
        for shard in plan.shard_numbers:
            yield Task(plan, shard), lambda shard=shard: plan.read_shard(shard)  # type: ignore[misc]
        return
    by_shard: dict[int, list[PlannedSample]] = {}
    for rows in plan.read_all():
        for row in rows:
            by_shard.setdefault(row.shard, []).append(row)
    for shard, rows in sorted(by_shard.items()):
        yield Task(plan, shard), lambda rows=rows: rows  # type: ignore[misc]


def _check_listing(folder: Folder, tasks: Sequence[Task], verdict: Verdict) -> None:
    expected = {
        name for task in tasks for name in (receipt_file(task.name), *(part_file(task.name, part) for part in PARTS))
    }
    for name in folder.sizes("shards"):
        if name not in expected:
            verdict.problems.append(
                Problem(name, None, "no plan knows this file; readers of shards/ would take it for data")
            )


def _check_totals(manifest: Manifest | None, verdict: Verdict) -> None:
    if manifest is None:
        return
    found = {"planned": verdict.planned, "written": verdict.written, "rejected": dict(verdict.rejected)}
    for name, value in found.items():
        if manifest.totals.get(name) != value:
            verdict.problems.append(
                Problem("manifest.json", None, f"says {name} {manifest.totals.get(name)}, the shards hold {value}")
            )


def _check_shard(
    folder: Folder, task: Task, read_rows: Callable[[], list[PlannedSample]], expected: str | None
) -> Verdict:
    """Everything about one shard; `expected` is the digest that the manifest has of its receipt."""
    rows = read_rows()
    verdict = Verdict(planned=len(rows))

    def report(what: str, key: str | None = None) -> None:
        verdict.problems.append(Problem(task.name, key, what))

    _check_positions(task, rows, report)
    receipt = _check_receipt(folder, task, expected, report)
    stamps = receipt.files if receipt else {}
    data: dict[str, bytes] = {}
    for part in ("parquet", "idx"):
        try:
            data[part] = folder.read(part_file(task.name, part))
        except FileNotFoundError:
            report(f"{part} missing")
            continue
        verdict.hashed += len(data[part])
        if part in stamps and hashlib.sha256(data[part]).hexdigest() != stamps[part].sha256:
            report(f"{part} does not hash to what the receipt says")
    written = _check_table(data.get("parquet"), rows, verdict, report)
    if receipt and (receipt.planned, receipt.written, dict(receipt.rejected)) != (
        verdict.planned,
        verdict.written,
        dict(verdict.rejected),
    ):
        report("its receipt states other counts than its table holds")
    _check_tar(
        folder,
        task,
        _check_index(data.get("idx"), written, report),
        written,
        stamps["tar"].sha256 if stamps else None,
        verdict,
        report,
    )
    return verdict


Report = Callable[..., None]


def _check_positions(task: Task, rows: Sequence[PlannedSample], report: Report) -> None:
    header = task.plan.header
    start = header.first_position + (task.shard - header.first_shard) * int(header.settings["shard_size"])
    for at, row in enumerate(rows):
        expected = (f"{header.name}_{start + at:09d}", start + at, task.shard)
        if (row.key, row.position, row.shard) != expected:
            report(
                f"the plan has key {row.key}, position {row.position}, shard {row.shard}; expected {expected}", row.key
            )
            return


def _check_receipt(folder: Folder, task: Task, expected: str | None, report: Report) -> Receipt | None:
    try:
        receipt = read_receipt(folder, task.name)
    except FileNotFoundError:
        report("missing: it has no receipt")
        return None
    except ValueError as error:
        report(f"receipt: {error}")
        return None
    if receipt.shard != task.name or set(receipt.files) != set(PARTS):
        report(f"its receipt is of shard {receipt.shard}")
        return None
    if receipt.plan != task.plan.digest:
        report(f"its receipt is of another plan than {task.plan.file}: one of the two was edited or replaced")
    if expected is not None and expected != receipt.digest:
        report("its receipt is not the one in the manifest")
    return receipt


def _check_table(data: bytes | None, rows: Sequence[PlannedSample], verdict: Verdict, report: Report) -> list[str]:
    """Hold the table against the plan; returns the keys that it says were written."""
    if data is None:
        return []
    try:
        table = pq.read_table(pa.BufferReader(data), columns=["key", "status", "reason", "source", "source_key"])
    except pa.ArrowException as error:
        report(f"parquet cannot be read: {error}")
        return []
    assert set(table.schema.names) <= set(SCHEMA.names)
    columns = [column.to_pylist() for column in table.columns]
    written: list[str] = []
    for key, status, reason, _, _ in zip(*columns, strict=True):
        if status == WRITTEN and reason is None:
            written.append(key)
        elif status == REJECTED and reason in REASONS:
            verdict.rejected[reason] += 1
        else:
            report(f"its table has status {status!r} with reason {reason!r}", key)
    verdict.written = len(written)
    found = list(zip(columns[0], columns[3], columns[4], strict=True))
    planned = [(row.key, row.source, row.source_key) for row in rows]
    if found != planned:
        _report_difference(planned, found, report)
    return written


def _report_difference(planned: list[tuple[str, str, str]], found: list[tuple[str, str, str]], report: Report) -> None:
    for key, count in Counter(key for key, *_ in found).items():
        if count > 1:
            report(f"stands {count} times in its table", key)
    there, here = {row[0]: row for row in planned}, {row[0]: row for row in found}
    for key in there.keys() | here.keys():
        if key not in here:
            report("planned, but neither written nor rejected", key)
        elif key not in there:
            report("in its table, but not planned", key)
        elif there[key] != here[key]:
            report(f"planned from {there[key][1:]}, made from {here[key][1:]}", key)


def _check_index(data: bytes | None, written: Sequence[str], report: Report) -> list[Entry] | None:
    """Entries of the index, or None when it cannot guide through the tar."""
    if data is None:
        return None
    try:
        entries = decode_index(data)
    except ValueError as error:
        report(f"idx: {error}")
        return None
    if [entry.key for entry in entries] != list(written):
        missing = next(iter({*written} - {entry.key for entry in entries}), None)
        report("its index and its table name different samples", missing)
    end = 0
    for entry in entries:
        if entry.offset != end or entry.length <= 0 or entry.length % BLOCK:
            report("its index leaves a gap or overlaps", entry.key)
            return None
        end += entry.length
    return entries


def _check_tar(
    folder: Folder,
    task: Task,
    entries: list[Entry] | None,
    written: Sequence[str],
    sha256: str | None,
    verdict: Verdict,
    report: Report,
) -> None:
    """Read the tar once: each sample against the index, the whole against the receipt; when anything differs, say how."""
    name = part_file(task.name, "tar")
    digest = hashlib.sha256()
    whole = True
    try:
        with folder.open(name) as file:
            for entry in entries or ():
                blob = file.read(entry.length)
                digest.update(blob)
                if hashlib.sha256(blob).digest() != entry.sha256:
                    whole = False
                    report("its bytes in the tar are not those that were written", entry.key)
                elif not _holds_only(blob, entry.key):
                    whole = False
                    report("its bytes in the tar hold members of another key", entry.key)
            while block := file.read(1 << 20):
                digest.update(block)
            size = file.tell()
            verdict.hashed += size
            if sha256 is not None and digest.hexdigest() != sha256:
                whole = False
                report("tar does not hash to what the receipt says")
            if not whole or entries is None or sha256 is None:
                _explain_tar(file, size, written, report)
            else:
                _check_end(file, size, entries, report)
    except FileNotFoundError:
        report("tar missing")


def _holds_only(blob: bytes, key: str) -> bool:
    """Whether a sample's bytes are members of this key and no other, each once, up to the last byte."""
    try:
        names = [member.name for member in members_of(blob)]
    except TarDamage:
        return False
    return bool(names) and len(set(names)) == len(names) and all(name.startswith(f"{key}.") for name in names)


def _check_end(file: IO[bytes], size: int, entries: Sequence[Entry], report: Report) -> None:
    end = entries[-1].offset + entries[-1].length if entries else 0
    file.seek(end)
    if any(file.read()) or size - end < 2 * BLOCK:
        report("tar does not end after its last sample")


def _explain_tar(file: IO[bytes], size: int, written: Sequence[str], report: Report) -> None:
    """Walk the headers of a tar that is not as written, and name what is cut, holed, doubled, lost or foreign."""
    counts: Counter[str] = Counter()
    try:
        for member in walk(file, size):
            counts[member.name] += 1
    except TarDamage as damage:
        last = next(reversed(counts), "").partition(".")[0]
        report(f"tar: {damage}", last or None)
    keys = {name.partition(".")[0] for name in counts}
    for name, count in counts.items():
        if count > 1:
            report(f"member {name} stands {count} times in the tar", name.partition(".")[0])
    for key in written:
        if key not in keys:
            report("written by its table, but not in the tar", key)
    for key in keys - set(written):
        report("in the tar, but not written by its table", key)
