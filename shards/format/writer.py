"""Writes one shard: tar, table, index, and then its receipt.

Nothing appears under a final name before `publish`; a writer that is dropped, by an exception or a kill, leaves nothing
that a reader could take for a shard.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from stillreel.configs.system.storage import Folder
from stillreel.shards.format.index import Entry, encode_index, entry_of
from stillreel.shards.format.plan import Plan
from stillreel.shards.format.receipt import FileStamp, Receipt, part_file, receipt_file
from stillreel.shards.format.record import WRITTEN, Record, table_of
from stillreel.shards.format.tar import TarWriter


class ShardWriter:
    """Collects one shard's samples and rejections in planned order. A context manager; only `publish` makes it real."""

    def __init__(self, folder: Folder, plan: Plan, shard: int) -> None:
        self._folder = folder
        self._plan = plan
        self._name = plan.shard_name(shard)
        self._records: list[Record] = []
        self._entries: list[Entry] = []
        self._draft = folder.draft(part_file(self._name, "tar"))
        self._file = open(self._draft.path, "wb")  # noqa: SIM115 (closed by publish or __exit__)
        self._tar = TarWriter(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._draft.__exit__()

    def write(self, record: Record, members: Mapping[str, bytes]) -> None:
        """Add a sample: its row, but for the sha256, and its members by ending (`jpg`, `000.jpg`, `json`, `txt`)."""
        span = self._tar.add([(f"{record.key}.{ending}", payload) for ending, payload in members.items()])
        self._entries.append(entry_of(record.key, span))
        self._records.append(record._replace(sha256=span.sha256.hex()))

    def reject(self, record: Record) -> None:
        """Add a sample that was not written."""
        self._records.append(record)

    def publish(self, libraries: Mapping[str, str], attempt: int, seconds: Mapping[str, float]) -> Receipt:
        """Publish tar, table, index and receipt, in this order; returns the receipt."""
        digest = self._tar.finish()
        self._file.close()
        self._draft.publish()
        files = {
            "tar": FileStamp(self._tar.offset, digest),
            "parquet": self._publish("parquet", _parquet_bytes(table_of(self._records))),
            "idx": self._publish("idx", encode_index(self._entries)),
        }
        rejected = Counter(record.reason for record in self._records if record.reason is not None)
        receipt = Receipt(
            shard=self._name,
            plan=self._plan.digest,
            planned=len(self._records),
            written=sum(record.status == WRITTEN for record in self._records),
            rejected=dict(sorted(rejected.items())),
            files=files,
            libraries=dict(libraries),
            attempt=attempt,
            seconds=dict(seconds),
        )
        self._folder.publish(receipt_file(self._name), receipt.encode())
        return receipt

    def _publish(self, part: str, data: bytes) -> FileStamp:
        self._folder.publish(part_file(self._name, part), data)
        return FileStamp(len(data), hashlib.sha256(data).hexdigest())


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())
