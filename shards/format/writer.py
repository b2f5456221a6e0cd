"""Writes one shard: tar, table, index, and then its receipt.

Nothing appears under a final name before `publish`; a writer that is dropped, by an exception or a kill, leaves nothing
that a reader could take for a shard.

The tar is USTAR. Its headers are constant but for name and size: mtime 0, uid and gid 0, mode 0444, user and group
"stillreel". `shards/format/tar.py` walks it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from stillreel.configs import DataError
from stillreel.configs.system.storage import writing
from stillreel.shards.format.index import Entry, encode_index, entry_of
from stillreel.shards.format.plan import Plan
from stillreel.shards.format.receipt import FileStamp, Receipt, part_file, receipt_file
from stillreel.shards.format.record import CHOSEN, WRITTEN, Record, table_of
from stillreel.shards.format.tar import BLOCK, RECORD, Span, digest_of_samples

_MAX_MEMBER = 8**11 - 1  # the octal size field of USTAR


class TooManyRejects(DataError):
    """One shard alone has more rejects than its whole build may have."""

    def __init__(self, shard: str, rejected: Mapping[str, int]) -> None:
        super().__init__(shard, dict(rejected))
        self.shard = shard
        self.rejected = dict(rejected)


class ShardWriter:
    """Collects one shard's samples and rejections in planned order. A context manager; only `publish` makes it real."""

    def __init__(self, plan: Plan, shard: int, max_rejected: int) -> None:
        self._folder = plan.folder
        self._plan = plan
        self._name = plan.shard_name(shard)
        self._max_rejected = max_rejected
        self._rejected: Counter[str] = Counter()
        self._records: list[Record] = []
        self._entries: list[Entry] = []
        with writing(self._folder.url):
            self._draft = plan.folder.draft(part_file(self._name, "tar"))
            self._file = open(self._draft.path, "wb")  # noqa: SIM115 (closed by publish or __exit__)
        self._tar = TarWriter(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what a full disk did not take is not wanted any more
            self._file.close()
        self._draft.__exit__()

    def write(self, record: Record, members: Mapping[str, bytes]) -> None:
        """Add a sample: its row, but for the sha256, and its members by ending (`jpg`, `000.jpg`, `json`, `txt`)."""
        with writing(self._folder.url):
            span = self._tar.add([(f"{record.key}.{ending}", payload) for ending, payload in members.items()])
        self._entries.append(entry_of(record.key, span))
        self._records.append(record._replace(sha256=span.sha256.hex()))

    def reject(self, record: Record) -> None:
        """Add a sample that was not written. TooManyRejects when there are more than `max_rejected`."""
        assert record.reason is not None
        self._records.append(record)
        self._rejected[record.reason] += 1
        bad = sum(count for reason, count in self._rejected.items() if reason not in CHOSEN)
        if bad > self._max_rejected:
            raise TooManyRejects(self._name, self._rejected)

    def publish(self, attempt: int, seconds: Mapping[str, float]) -> Receipt:
        """Publish tar, table, index and receipt, in this order; returns the receipt, which is small.

        This process has the libraries that the plan records: whoever opened the plan to make a shard has checked that.
        """
        with writing(self._folder.url):
            return self._publish_all(attempt, seconds)

    def _publish_all(self, attempt: int, seconds: Mapping[str, float]) -> Receipt:
        digest = self._tar.finish()
        self._file.close()
        self._draft.publish()
        files = {
            "tar": FileStamp(self._tar.offset, digest),
            "parquet": self._publish("parquet", _parquet_bytes(table_of(self._records))),
            "idx": self._publish("idx", encode_index(self._entries)),
        }
        receipt = Receipt(
            shard=self._name,
            plan=self._plan.digest,
            planned=len(self._records),
            written=sum(record.status == WRITTEN for record in self._records),
            rejected=dict(sorted(self._rejected.items())),
            files=files,
            libraries=dict(self._plan.header.libraries),
            attempt=attempt,
            seconds={name: round(spent, 3) for name, spent in sorted(seconds.items())},
        )
        self._folder.publish(receipt_file(self._name), receipt.encode())
        return receipt

    def _publish(self, part: str, data: bytes) -> FileStamp:
        self._folder.publish(part_file(self._name, part), data)
        return FileStamp(len(data), hashlib.sha256(data).hexdigest())


class TarWriter:
    """Appends samples to an open binary file and hashes them; `finish` ends the archive."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digests: list[bytes] = []
        self._buffer = bytearray()  # kept: fresh memory for each sample costs as much as copying into it
        self.offset = 0

    def add(self, members: Sequence[tuple[str, bytes]]) -> Span:
        """Write one sample's members, (name, payload), in the order of their names."""
        length = sum(BLOCK + len(payload) + -len(payload) % BLOCK for _, payload in members)
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        at = 0
        with memoryview(self._buffer) as buffer:
            for name, payload in sorted(members):
                start, end = at + BLOCK, at + BLOCK + len(payload)
                at = end + -len(payload) % BLOCK
                buffer[start - BLOCK : start] = header(name, len(payload))
                buffer[start:end] = payload
                buffer[end:at] = bytes(at - end)
            span = Span(self.offset, length, hashlib.sha256(buffer[:length]).digest())
            self._file.write(buffer[:length])
        self._digests.append(span.sha256)
        self.offset += length
        return span

    def finish(self) -> str:
        """Write the end of the archive and return the digest of the tar, as hex."""
        self.offset += self._file.write(end_of_archive(self.offset))
        return digest_of_samples(self._digests)


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def end_of_archive(offset: int) -> bytes:
    """What follows the last sample, which ends at `offset`: two blocks of zeros, and more up to a full record."""
    return bytes(2 * BLOCK + -(offset + 2 * BLOCK) % RECORD)


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a payload. Names are ASCII and at most 100 bytes: keys are made so."""
    raw = name.encode("ascii")
    assert 0 < len(raw) <= 100 and 0 <= size <= _MAX_MEMBER, (name, size)
    block = bytearray(_TEMPLATE)
    block[: len(raw)] = raw
    octal = b"%011o" % size
    block[124:135] = octal
    block[148:156] = b"%06o\0 " % (_TEMPLATE_SUM + sum(raw) + sum(octal))
    return bytes(block)


def _template() -> bytes:
    block = bytearray(BLOCK)
    block[100:108] = b"0000444\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = b"0"
    block[257:265] = b"ustar\00000"
    block[265:274] = block[297:306] = b"stillreel"
    return bytes(block)


_TEMPLATE = _template()
_TEMPLATE_SUM = sum(_TEMPLATE)
