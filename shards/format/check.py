"""One shard held against its plan: table, index, tar and receipt, each against the others, from the bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa

from stillreel.configs.system.claims import Damaged
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.survey import Task
from stillreel.shards.format.headers import Headers
from stillreel.shards.format.index import Entry, Index, open_index
from stillreel.shards.format.receipt import PARTS, Receipt, part_file, read_receipt
from stillreel.shards.format.record import REASONS, REJECTED, WRITTEN, read_table
from stillreel.shards.format.tar import BLOCK, RECORD, TarDamage, digest_of_samples, ends_in_zeros, members_of, walk

_PIECE = 1 << 20  # bytes of a tar that are read at once


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
        index = self._check_index(self._read_part("idx", receipt), written)
        self._check_tar(index, list(written), receipt)
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
        if receipt is not None and sha256(data).hexdigest() != receipt.files[part].digest:
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
        for key, status, reason, digest in zip(*columns, strict=True):
            if status == WRITTEN and reason is None and digest is not None:
                written[key] = digest
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

    def _check_index(self, data: bytes | None, written: dict[str, str]) -> Index | None:
        """The index, or None when it cannot guide through the tar."""
        if data is None:
            return None
        try:
            index = open_index(data)
        except ValueError as error:
            self._report(f"idx: {error}")
            return None
        keys, digests = index.list_keys(), index.list_digests()
        if keys != list(written) or not _are_hex(digests, written.values()):
            indexed = {key: digest.hex() for key, digest in zip(keys, digests, strict=True)}
            differing = [key for key, count in Counter(keys).items() if count > 1]
            differing += sorted(key for key in indexed.keys() | written.keys() if indexed.get(key) != written.get(key))
            self._report("its index and its table do not agree", next(iter(differing), None))
        gap = index.find_gap()
        if gap is not None:
            self._report("its index leaves a gap or overlaps", keys[gap])
            return None
        return index

    def _check_tar(self, index: Index | None, written: Sequence[str], receipt: Receipt | None) -> None:
        """Read the tar once: each sample against the index, the whole against the receipt. If it differs, say how."""
        try:
            with self._folder.open(part_file(self._task.name, "tar")) as file:
                before = len(self.problems)
                size = file.seek(0, 2)
                file.seek(0)
                digests = self._hash_samples(file, size, index) if index is not None else []
                left = size - file.tell()
                self.hashed += size
                if left < 2 * BLOCK or size % RECORD or not ends_in_zeros(file):
                    self._report("tar does not end after its last sample")
                stamp = receipt.files["tar"] if receipt else None
                if stamp is not None and (stamp.bytes, stamp.digest) != (size, digest_of_samples(digests)):
                    self._report("tar is not the one that its receipt speaks of")
                if len(self.problems) > before or index is None:
                    self._explain_tar(file, size, written)
        except FileNotFoundError:
            self._report("tar missing")

    def _hash_samples(self, file: IO[bytes], size: int, index: Index) -> list[bytes]:
        """The sha256 of each sample as it lies in the tar; reports those that are not as indexed."""
        ends, keys = index.ends.tolist(), index.list_keys()
        begins, pieces, headers = [0, *ends], _pieces(ends), Headers(keys)
        most = min(max((ends[last - 1] - begins[first] for first, last in pieces), default=0), size)
        # One buffer: fresh memory for each piece costs as much as reading it.
        blocks = np.empty((most // BLOCK + 1, BLOCK), np.uint8)
        buffer = blocks.data.cast("B")
        digests: list[bytes] = []
        for first, last in pieces:
            start = begins[first]
            spans = [(begins[at] - start, ends[at] - start) for at in range(first, last)]
            there = file.readinto(buffer[: spans[-1][1]])  # type: ignore[attr-defined]
            piece = buffer[:there]
            digests += [sha256(piece[begin:end]).digest() for begin, end in spans]
            headers.take(blocks, first, [span for span in spans if span[1] <= there])
        expected = index.list_digests()
        differing = {at for at, digest in enumerate(digests) if digest != expected[at]}
        foreign = {at for at in headers.find_doubtful() if not _holds_only(_blob(file, index[at]), keys[at])}
        for at in sorted(foreign | differing):
            what = "are not those that were written" if at in differing else "hold members of another key"
            self._report(f"its bytes in the tar {what}", keys[at])
        return digests

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


def _are_hex(digests: Sequence[bytes], texts: Collection[str]) -> bool:
    """Whether texts spell sha256s, each its own."""
    return b"".join(digests).hex() == "".join(texts) and {*map(len, texts)} <= {64}


def _pieces(ends: Sequence[int]) -> list[tuple[int, int]]:
    """Samples, from and up to which number, that are read at once: 1 MiB of them, or one that is larger; they end at `ends`."""
    pieces: list[tuple[int, int]] = []
    first = start = 0
    for at, end in enumerate(ends):
        if end - start > _PIECE and at > first:
            pieces.append((first, at))
            first, start = at, ends[at - 1]
    return [*pieces, (first, len(ends))] if ends else []


def _blob(file: IO[bytes], entry: Entry) -> bytes:
    """A sample's bytes; the file stands where it stood."""
    at = file.tell()
    file.seek(entry.offset)
    blob = file.read(entry.length)
    file.seek(at)
    return blob


def _holds_only(blob: bytes, key: str) -> bool:
    """Whether a sample's bytes are members of this key and no other, each once, up to the last byte."""
    try:
        names = [member.name for member in members_of(blob)]
    except TarDamage:
        return False
    own = f"{key}."
    # What lies between two names that begin alike begins so, too.
    return len(set(names)) == len(names) > 0 and min(names).startswith(own) and max(names).startswith(own)
