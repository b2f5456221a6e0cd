"""The receipt of a shard: what was written, by which plan, with which digests. Published last, so a shard without one
does not exist; it repeats its own digest, so an edited one is not believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from stillreel.configs.settings import canonical_json
from stillreel.configs.system.storage import Folder

RECEIPT_SCHEMA_VERSION = 1
PARTS = ("tar", "parquet", "idx")  # the data files of a shard, in the order of publishing


class FileStamp(NamedTuple):
    """Size and digest (hex) of a file: the sha256 of its bytes; of a tar, of its samples' sha256s (see shards/format/tar.py)."""

    bytes: int
    digest: str


@dataclass(frozen=True)
class Receipt:
    """Counts, digests and circumstances of one finished shard. Only `seconds` and `attempt` vary between runs."""

    shard: str
    plan: str
    planned: int
    written: int
    rejected: Mapping[str, int]
    files: Mapping[str, FileStamp]
    libraries: Mapping[str, str]
    attempt: int
    seconds: Mapping[str, float]
    schema: int = RECEIPT_SCHEMA_VERSION

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
        body: dict[str, Any] = json.loads(data)
        claimed = body.pop("digest")
    except (ValueError, TypeError, AttributeError, KeyError):
        raise ValueError("not a receipt") from None
    if _digest(body) != claimed:
        raise ValueError("its digest does not match its contents: it was edited or damaged")
    if body.get("schema") != RECEIPT_SCHEMA_VERSION:
        raise ValueError(f"receipt schema {body.get('schema')}, this stillreel reads {RECEIPT_SCHEMA_VERSION}")
    files = {part: FileStamp(stamp["bytes"], stamp["digest"]) for part, stamp in body["files"].items()}
    return Receipt(**{**body, "files": files})


def receipt_file(shard: str) -> str:
    return f"shards/{shard}.json"


def part_file(shard: str, part: str) -> str:
    return f"shards/{shard}.{part}"


def read_receipt(folder: Folder, shard: str) -> Receipt:
    """The receipt of a shard. FileNotFoundError when there is none, ValueError when it cannot be believed."""
    return decode_receipt(folder.read(receipt_file(shard)))


def _body(receipt: Receipt) -> dict[str, Any]:
    body = asdict(receipt)
    body["files"] = {part: stamp._asdict() for part, stamp in receipt.files.items()}
    return body


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body)).hexdigest()
