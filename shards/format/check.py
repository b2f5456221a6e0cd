"""One shard held against its plan: table, index, tar and receipt, each against the others, from the bytes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

import pyarrow as pa

from stillreel.configs.system.claims import Damaged
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.survey import Task
from stillreel.shards.format.index import Entry, decode_index
from stillreel.shards.format.receipt import PARTS, Receipt, part_file, read_receipt
from stillreel.shards.format.record import REASONS, REJECTED, WRITTEN, read_table
from stillreel.shards.format.tar import BLOCK, RECORD, TarDamage, digest_of_samples, ends_in_zeros, members_of, walk


class Problem(NamedTuple):
    """Something that is not as it must be: in which shard (or file), at which key where one is concerned, and what."""

    where: str
    key: str | None
    what: str

    def __str__(self) -> str:
        return f"{self.where}{f', {self.key}' if self.key else ''}: {self.what}"


class ShardCheck:
    """Everything about one shard. `run` reads each of its bytes once; the results then stand in the attributes."""

    def __init__(self, folder: Folder, task: Task, planned: pa.Table, expected: str | None) -> None:
        """`planned` is what the plan has of the shard, `expected` the digest that the manifest has of its receipt."""
        self._folder = folder
        self._task = task
        self._planned = planned
        self._expected = expected
        self.written = 0
        self.rejected: Counter[str] = Counter()
        self.hashed = 0
        self.receipt: Receipt | None = None
        self.problems: list[Problem] = []

    def run(self) -> None:
        """Check it all."""
        self._check_positions()
        receipt = self.receipt = self._read_receipt()
        written = self._check_table(self._read_part("parquet", receipt))
        entries = self._check_index(self._read_part("idx", receipt), written)
        self._check_tar(entries, list(written), receipt)
        if receipt is not None:
            said = (receipt.planned, receipt.written, dict(receipt.rejected))
            if said != (len(self._planned), self.written, dict(self.rejected)):
                self._report("its receipt states other counts than its table holds")

    def _report(self, what: str, key: str | None = None) -> None:
        self.problems.append(Problem(self._task.name, key, what))

    def _check_positions(self) -> None:
        """Keys and positions of the plan follow from each other, so one that was edited shows."""
        wrong = self._task.plan.find_out_of_turn(self._task.shard, self._planned)
        if wrong is not None:
            self._report(f"the plan has it {wrong.told}, out of turn", wrong.key)

    def _read_receipt(self) -> Receipt | None:
        try:
            receipt = read_receipt(self._folder, self._task.name)
        except FileNotFoundError:
            self._report("missing: it has no receipt")
            return None
        except ValueError as error:
            self._report(f"receipt: {error}")
            return None
        if receipt.shard != self._task.name or set(receipt.files) != set(PARTS):
            self._report(f"its receipt is of shard {receipt.shard}")
            return None
        plan = self._task.plan
        if receipt.plan != plan.digest:
            self._report(f"its receipt is of another plan than {plan.file}: one of the two was edited or replaced")
        if self._expected is not None and self._expected != receipt.digest:
            self._report("its receipt is not the one in the manifest")
        return receipt

    def _read_part(self, part: str, receipt: Receipt | None) -> bytes | None:
        """Bytes of the table or the index, hashed against the receipt."""
        try:
            data = self._folder.read(part_file(self._task.name, part))
        except FileNotFoundError:
            self._report(f"{part} missing")
            return None
        self.hashed += len(data)
        if receipt is not None and hashlib.sha256(data).hexdigest() != receipt.files[part].digest:
            self._report(f"{part} does not hash to what the receipt says")
        return data

    def _check_table(self, data: bytes | None) -> dict[str, str]:
        """Hold the table against the plan; returns the sha256 (hex) of each sample that it says was written."""
        if data is None:
            return {}
        try:
            table = read_table(data, "parquet")
        except Damaged as error:
            self._report(str(error))
            return {}
        columns = [table[name].to_pylist() for name in ("key", "status", "reason", "sha256")]
        written: dict[str, str] = {}
        for key, status, reason, sha256 in zip(*columns, strict=True):
            if status == WRITTEN and reason is None and sha256 is not None:
                written[key] = sha256
                self.written += 1
            elif status == REJECTED and reason in REASONS:
                self.rejected[reason] += 1
            else:
                self._report(f"its table has status {status!r} with reason {reason!r}", key)
        names = ["key", "source", "source_key"]
        if not all(table[name].equals(self._planned[name]) for name in names):
            self._compare(
                *([*zip(*one.select(names).to_pydict().values(), strict=True)] for one in (self._planned, table))
            )
        return written

    def _compare(self, planned: list[tuple[str, str, str]], found: list[tuple[str, str, str]]) -> None:
        for key, count in Counter(key for key, *_ in found).items():
            if count > 1:
                self._report(f"stands {count} times in its table", key)
        there, here = {row[0]: row for row in planned}, {row[0]: row for row in found}
        for key in sorted(there.keys() | here.keys()):
            if key not in here:
                self._report("planned, but neither written nor rejected", key)
            elif key not in there:
                self._report("in its table, but not planned", key)
            elif there[key] != here[key]:
                self._report(f"planned from {there[key][1:]}, made from {here[key][1:]}", key)

    def _check_index(self, data: bytes | None, written: dict[str, str]) -> list[Entry] | None:
        """Entries of the index, or None when it cannot guide through the tar."""
        if data is None:
            return None
        try:
            entries = decode_index(data)
        except ValueError as error:
            self._report(f"idx: {error}")
            return None
        keys, digests = [entry.key for entry in entries], [entry.sha256.hex() for entry in entries]
        if keys != list(written) or digests != list(written.values()):
            indexed = dict(zip(keys, digests, strict=True))
            differing = [key for key, count in Counter(keys).items() if count > 1]
            differing += sorted(key for key in indexed.keys() | written.keys() if indexed.get(key) != written.get(key))
            self._report("its index and its table do not agree", next(iter(differing), None))
        end = 0
        for key, offset, length, _ in entries:
            if offset != end or length % BLOCK:
                self._report("its index leaves a gap or overlaps", key)
                return None
            end += length
        return entries

    def _check_tar(self, entries: list[Entry] | None, written: Sequence[str], receipt: Receipt | None) -> None:
        """Read the tar once: each sample against the index, the whole against the receipt. If it differs, say how."""
        try:
            with self._folder.open(part_file(self._task.name, "tar")) as file:
                before = len(self.problems)
                size = file.seek(0, 2)
                file.seek(0)
                digests = list(self._hash_samples(file, size, entries or ()))
                left = size - file.tell()
                self.hashed += size
                if left < 2 * BLOCK or size % RECORD or not ends_in_zeros(file):
                    self._report("tar does not end after its last sample")
                stamp = receipt.files["tar"] if receipt else None
                if stamp is not None and (stamp.bytes, stamp.digest) != (size, digest_of_samples(digests)):
                    self._report("tar is not the one that its receipt speaks of")
                if len(self.problems) > before or entries is None:
                    self._explain_tar(file, size, written)
        except FileNotFoundError:
            self._report("tar missing")

    def _hash_samples(self, file: IO[bytes], size: int, entries: Sequence[Entry]) -> Iterator[bytes]:
        """The sha256 of each sample as it lies in the tar; reports those that are not as indexed."""
        # One buffer: fresh memory for each sample costs as much as reading it.
        buffer = memoryview(bytearray(min(max((entry.length for entry in entries), default=0), size)))
        readinto = file.readinto  # type: ignore[attr-defined]
        for key, _, length, sha256 in entries:
            blob = buffer[: readinto(buffer[:length])]
            digest = hashlib.sha256(blob).digest()
            if digest != sha256:
                self._report("its bytes in the tar are not those that were written", key)
            elif not _holds_only(blob, key):
                self._report("its bytes in the tar hold members of another key", key)
            yield digest

    def _explain_tar(self, file: IO[bytes], size: int, written: Sequence[str]) -> None:
        """Walk the headers of a tar that is not as written; name what is cut, holed, doubled, lost or foreign."""
        counts: Counter[str] = Counter()
        try:
            for member in walk(file, size):
                counts[member.name] += 1
        except TarDamage as damage:
            last = next(reversed(counts), "").partition(".")[0]
            self._report(f"tar: {damage}", last or None)
        for name, count in counts.items():
            if count > 1:
                self._report(f"member {name} stands {count} times in the tar", name.partition(".")[0])
        keys = {name.partition(".")[0] for name in counts}
        for key in written:
            if key not in keys:
                self._report("written by its table, but not in the tar", key)
        for key in sorted(keys - set(written)):
            self._report("in the tar, but not written by its table", key)


def _holds_only(blob: memoryview, key: str) -> bool:
    """Whether a sample's bytes are members of this key and no other, each once, up to the last byte."""
    try:
        names = [member.name for member in members_of(blob)]
    except TarDamage:
        return False
    own = f"{key}."
    # What lies between two names that begin alike begins so, too.
    return len(set(names)) == len(names) > 0 and min(names).startswith(own) and max(names).startswith(own)
