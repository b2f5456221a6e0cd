"""The manifest: the data set in one file, written when every planned shard has its receipt, and not before."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stillreel.configs import DataError
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.plan import Plan
from stillreel.shards.format.receipt import Receipt

MANIFEST = "manifest.json"
MANIFEST_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """Plans with their settings, totals, and a line a shard: name, plan, counts, bytes, receipt digest."""

    plans: list[dict[str, Any]]
    totals: dict[str, Any]
    shards: list[dict[str, Any]]
    schema: int = MANIFEST_SCHEMA_VERSION

    def encode(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode() + b"\n"


def manifest_of(plans: Sequence[Plan], receipts: Sequence[Receipt]) -> Manifest:
    """The manifest of finished plans; `receipts` holds one a planned shard, in order."""
    rejected: Counter[str] = Counter()
    for receipt in receipts:
        rejected.update(receipt.rejected)
    return Manifest(
        plans=[
            {
                "file": plan.file,
                "sha256": plan.digest,
                "samples": plan.samples,
                "name": plan.header.name,
                "settings": plan.header.settings,
                "presets": plan.header.presets,
                "settings_sha256": plan.header.settings_digest,
                "source": plan.header.source,
                "left_out": plan.header.left_out,
                "libraries": plan.header.libraries,
            }
            for plan in plans
        ],
        totals={
            "planned": sum(receipt.planned for receipt in receipts),
            "written": sum(receipt.written for receipt in receipts),
            "rejected": dict(sorted(rejected.items())),
            "shards": len(receipts),
            "bytes": sum(receipt.bytes for receipt in receipts),
        },
        shards=[
            {
                "name": receipt.shard,
                "planned": receipt.planned,
                "written": receipt.written,
                "bytes": receipt.bytes,
                "receipt": receipt.digest,
            }
            for receipt in receipts
        ],
    )


def read_manifest(folder: Folder) -> Manifest:
    """The manifest of a data set; DataError when it is missing or damaged."""
    try:
        return Manifest(**json.loads(folder.read(MANIFEST)))
    except FileNotFoundError:
        raise DataError(
            f"{folder.url} has no {MANIFEST}: the build did not finish; run `stillreel animate` again to go on"
        ) from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{folder.url}/{MANIFEST} cannot be read: {error}") from None
