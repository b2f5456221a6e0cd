"""The manifest: the data set in one file, written when every planned shard has its receipt, and not before."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import zip_longest
from typing import Any

from pydantic import TypeAdapter

from stillreel.configs import DataError
from stillreel.configs.settings import canonical_json
from stillreel.configs.system.claims import STRICT, Count, checked_name, damage_of, parse_json, read_record, shortened
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.plan import Plan, shard_name
from stillreel.shards.format.receipt import Receipt

MANIFEST = "manifest.json"
MANIFEST_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PlanLine:
    """A plan as the manifest has it."""

    file: str
    sha256: str
    samples: Count
    name: str
    settings: dict[str, Any]
    presets: dict[str, Any]
    settings_sha256: str
    source: dict[str, Any]
    left_out: dict[str, Count]
    libraries: dict[str, str]

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ShardLine:
    """A shard as the manifest has it: `bytes` of all its data files, `receipt` the digest of its receipt."""

    name: str
    planned: Count
    written: Count
    bytes: Count
    receipt: str

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Totals:
    """Sums over the shards."""

    planned: Count
    written: Count
    rejected: dict[str, Count]
    shards: Count
    bytes: Count

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Manifest:
    """Plans with their settings, totals, and a line a shard."""

    plans: list[PlanLine]
    totals: Totals
    shards: list[ShardLine]
    schema: int = MANIFEST_SCHEMA_VERSION

    __pydantic_config__ = STRICT

    def encode(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode() + b"\n"


def manifest_of(plans: Sequence[Plan], receipts: Sequence[Receipt]) -> Manifest:
    """The manifest of finished plans; `receipts` holds one a planned shard, in order."""
    rejected: Counter[str] = Counter()
    for receipt in receipts:
        rejected.update(receipt.rejected)
    return Manifest(
        plans=[
            PlanLine(
                file=plan.file,
                sha256=plan.digest,
                samples=plan.samples,
                name=plan.header.name,
                settings=plan.header.settings,
                presets=plan.header.presets,
                settings_sha256=plan.header.settings_digest,
                source=plan.header.source,
                left_out=plan.header.left_out,
                libraries=plan.header.libraries,
            )
            for plan in plans
        ],
        totals=Totals(
            planned=sum(receipt.planned for receipt in receipts),
            written=sum(receipt.written for receipt in receipts),
            rejected=dict(sorted(rejected.items())),
            shards=len(receipts),
            bytes=sum(receipt.bytes for receipt in receipts),
        ),
        shards=[
            ShardLine(receipt.shard, receipt.planned, receipt.written, receipt.bytes, receipt.digest)
            for receipt in receipts
        ],
    )


def read_manifest(folder: Folder) -> Manifest:
    """The manifest of a data set. DataError when it is missing, damaged or at odds with itself: nothing else is read."""
    try:
        data = folder.read(MANIFEST)
    except FileNotFoundError:
        raise DataError(
            f"{folder.url} has no {MANIFEST}: the build did not finish; run `stillreel animate` again to go on"
        ) from None
    with damage_of(f"{folder.url}/{MANIFEST} is damaged or was edited"):
        body = parse_json(data)
        schema = body.get("schema") if isinstance(body, dict) else None
        if schema != MANIFEST_SCHEMA_VERSION:
            raise ValueError(f"schema {shortened(schema)}, this stillreel reads {MANIFEST_SCHEMA_VERSION}")
        manifest = read_record(_adapter(), body)
        _check_itself(folder, manifest)
        return manifest


def difference(found: Any, expected: Any, where: str = "") -> str:
    """The first field, by path, in which two JSON values differ, with both; empty when they are equal."""
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = sorted(found.keys() | expected.keys())
        told = [(f"{where}.{key}".lstrip("."), found.get(key, _ABSENT), expected.get(key, _ABSENT)) for key in keys]
    elif isinstance(found, list) and isinstance(expected, list):
        pairs = zip_longest(found, expected, fillvalue=_ABSENT)
        told = [(f"{where}[{at}]", one, other) for at, (one, other) in enumerate(pairs)]
    else:
        same = type(found) is type(expected) and found == expected
        return "" if same else f"{where} is {shortened(found)}, expected {shortened(expected)}"
    return next((text for path, one, other in told if (text := difference(one, other, path))), "")


class _Absent:
    """Stands where a value is not."""

    def __repr__(self) -> str:
        return "not there"


_ABSENT = _Absent()


def _check_itself(folder: Folder, manifest: Manifest) -> None:
    """ValueError where names, digests and sums do not follow from each other."""
    for at, plan in enumerate(manifest.plans):
        if checked_name(plan.name, folder) != manifest.plans[0].name:
            raise ValueError(f"plans[{at}].name is {plan.name}, that of the first is {manifest.plans[0].name}")
        if hashlib.sha256(canonical_json([plan.settings, plan.presets])).hexdigest() != plan.settings_sha256:
            raise ValueError(f"plans[{at}]: its settings and presets do not hash to settings_sha256")
    if not manifest.plans:
        raise ValueError("it names no plan")
    known: dict[str, int] = {}
    for at, line in enumerate(manifest.shards):
        checked_name(line.name, folder, "shards/{}.tar", "shards/{}.idx")
        if line.name != shard_name(manifest.plans[0].name, at):
            raise ValueError(f"shards[{at}].name is {line.name}, expected {shard_name(manifest.plans[0].name, at)}")
        if known.setdefault(line.receipt, at) != at:
            raise ValueError(
                f"shards[{known[line.receipt]}] and shards[{at}] have the same receipt: one is listed twice"
            )
    totals, lines = manifest.totals, manifest.shards
    sums = {
        "shards": (totals.shards, len(lines)),
        "planned": (totals.planned, sum(line.planned for line in lines)),
        "written": (totals.written, sum(line.written for line in lines)),
        "bytes": (totals.bytes, sum(line.bytes for line in lines)),
        "samples of the plans": (sum(plan.samples for plan in manifest.plans), totals.planned),
        "written and rejected": (totals.written + sum(totals.rejected.values()), totals.planned),
    }
    for name, (said, found) in sums.items():
        if said != found:
            raise ValueError(f"totals do not add up: {name} {said:,}, its lines come to {found:,}")


@cache
def _adapter() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)
