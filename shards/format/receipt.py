"""The receipt of a shard: what was written, by which plan, with which digests. Published last, so a shard without one
does not exist; it repeats its own digest, so an edited one is not believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from stillreel.configs.settings import canonical_json
from stillreel.configs.system.claims import STRICT, Count, parse_json, read_record
from stillreel.configs.system.storage import Folder

RECEIPT_SCHEMA_VERSION = 1
PARTS = ("tar", "parquet", "idx")  # the data files of a shard, in the order of publishing


class FileStamp(NamedTuple):
    """Size and digest (hex) of a file: the sha256 of its bytes; of a tar, of its samples' sha256s (see shards/format/tar.py)."""

    bytes: Count
    digest: str


@dataclass(frozen=True)
class Receipt:
    """Counts, digests and circumstances of one finished shard. Only `seconds` and `attempt` vary between runs."""

    shard: str
    plan: str
    planned: Count
    written: Count
    rejected: dict[str, Count]
    files: dict[str, FileStamp]
    libraries: dict[str, str]
    attempt: int
    seconds: dict[str, int | float]
    schema: int = RECEIPT_SCHEMA_VERSION

    __pydantic_config__ = STRICT

    def encode(self) -> bytes:
        """JSON of all fields and of their digest."""
        body = _body(self)
        return json.dumps({**body, "digest": _digest(body)}, sort_keys=True, indent=1).encode() + b"\n"

    @property
    def digest(self) -> str:
        return _digest(_body(self))

    @property
    def bytes(self) -> int:
        """Of all data files of the shard."""
        return sum(stamp.bytes for stamp in self.files.values())


def decode_receipt(data: bytes) -> Receipt:
    """The receipt that `data` holds; ValueError says why it cannot be believed."""
    try:
        body: dict[str, Any] = parse_json(data)
        claimed = body.pop("digest")
    except (ValueError, TypeError, AttributeError, KeyError):
        raise ValueError("not a receipt") from None
    if _digest(body) != claimed:
        raise ValueError("its digest does not match its contents: it was edited or damaged")
    if body.get("schema") != RECEIPT_SCHEMA_VERSION:
        raise ValueError(f"receipt schema {body.get('schema')}, this stillreel reads {RECEIPT_SCHEMA_VERSION}")
    receipt = read_record(_adapter(), body)
    if receipt.encode() != data:
        raise ValueError("it is not spelled as receipts are: it was edited or damaged")
    return receipt


@cache
def _adapter() -> TypeAdapter[Receipt]:
    return TypeAdapter(Receipt)


def receipt_file(shard: str) -> str:
    return f"shards/{shard}.json"


def part_file(shard: str, part: str) -> str:
    return f"shards/{shard}.{part}"


def read_receipt(folder: Folder, shard: str) -> Receipt:
    """The receipt of a shard. FileNotFoundError when there is none, ValueError when it cannot be believed."""
    return decode_receipt(folder.read(receipt_file(shard)))


def _body(receipt: Receipt) -> dict[str, Any]:
    return {**vars(receipt), "files": {part: stamp._asdict() for part, stamp in receipt.files.items()}}


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body)).hexdigest()
