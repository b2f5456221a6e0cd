"""What a folder already holds of its plans: the question that every resume begins with.

valid     a receipt of this plan, and files of the sizes (check=full: the digests) that it states
damaged   a receipt that cannot be believed, or files that differ from it
stale     a receipt of another plan
missing   no receipt
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stillreel.configs.system.storage import Folder
from stillreel.shards.format.index import decode_index
from stillreel.shards.format.plan import Plan
from stillreel.shards.format.receipt import PARTS, Receipt, part_file, read_receipt
from stillreel.shards.format.tar import digest_of_samples, ends_in_zeros

State = Literal["valid", "damaged", "stale", "missing"]
_THREADS = 16  # receipts are small files, often on a network


class Task(NamedTuple):
    """A shard of a plan."""

    plan: Plan
    shard: int

    @property
    def name(self) -> str:
        return self.plan.shard_name(self.shard)


class Finding(NamedTuple):
    """The state of one shard; `why` of a damaged or stale one, `receipt` of a valid one."""

    task: Task
    state: State
    why: str
    receipt: Receipt | None


@dataclass(frozen=True)
class Survey:
    """Findings for every planned shard, in order."""

    findings: Sequence[Finding]

    def count(self, state: State) -> int:
        return sum(finding.state == state for finding in self.findings)

    @property
    def receipts(self) -> list[Receipt]:
        """Of the valid shards."""
        return [finding.receipt for finding in self.findings if finding.receipt is not None]

    @property
    def open_tasks(self) -> list[Task]:
        """Shards that still have to be made."""
        return [finding.task for finding in self.findings if finding.state != "valid"]


def survey(folder: Folder, plans: Sequence[Plan], *, full: bool) -> Survey:
    """Look at every planned shard; `full` hashes the files, otherwise their sizes are compared."""
    sizes = folder.sizes("shards")
    tasks = [Task(plan, shard) for plan in plans for shard in plan.shard_numbers]
    with ThreadPoolExecutor(_THREADS) as pool:
        return Survey(list(pool.map(lambda task: _look(folder, task, sizes, full), tasks)))


def receipt_left(folder: Folder, task: Task) -> Receipt | None:
    """Of a shard whose maker has ended and may have finished it: its receipt, if its files hash to what that says. (They may
    also be those that it was to make anew.)"""
    sizes = {name: folder.size(name) for name in (part_file(task.name, part) for part in PARTS)}
    return _look(folder, task, {name: size for name, size in sizes.items() if size is not None}, True).receipt


def _look(folder: Folder, task: Task, sizes: dict[str, int], full: bool) -> Finding:
    try:
        receipt = read_receipt(folder, task.name)
    except FileNotFoundError:
        return Finding(task, "missing", "", None)
    except ValueError as error:
        return Finding(task, "damaged", f"receipt: {error}", None)
    if receipt.plan != task.plan.digest:
        return Finding(task, "stale", "its receipt is of another plan", None)
    if receipt.shard != task.name or set(receipt.files) != set(PARTS):
        return Finding(task, "damaged", "its receipt is of another shard", None)
    for part in PARTS:
        name, stamp = part_file(task.name, part), receipt.files[part]
        if sizes.get(name) != stamp.bytes:
            return Finding(
                task, "damaged", f"{name} has {sizes.get(name, 'no')} bytes, its receipt says {stamp.bytes}", None
            )
    if full:
        why = _damage(folder, task, receipt)
        if why:
            return Finding(task, "damaged", why, None)
    return Finding(task, "valid", "", receipt)


def _damage(folder: Folder, task: Task, receipt: Receipt) -> str:
    """What the bytes of a shard's files have against its receipt; empty when nothing."""
    for part in ("parquet", "idx"):
        data = folder.read(part_file(task.name, part))
        if hashlib.sha256(data).hexdigest() != receipt.files[part].digest:
            return f"{part_file(task.name, part)} does not hash to what its receipt says"
    try:
        entries = decode_index(data)
    except ValueError as error:
        return f"{part_file(task.name, 'idx')}: {error}"
    size = receipt.files["tar"].bytes  # as it was found to be
    with folder.open(part_file(task.name, "tar")) as file:
        digests = [hashlib.sha256(file.read(min(entry.length, size))).digest() for entry in entries]
        is_whole = ends_in_zeros(file)
    if digest_of_samples(digests) != receipt.files["tar"].digest or not is_whole:
        return f"{part_file(task.name, 'tar')} does not hash to what its receipt says"
    return ""
