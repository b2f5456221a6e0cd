"""Manifests of data sets that were written by hand, without a build: for benchmarks and tests."""

from __future__ import annotations

import hashlib
from typing import Any

from stillreel.configs.settings import canonical_json
from stillreel.shards.format.manifest import Manifest, PlanLine, ShardLine, Totals


def manifest_by_hand(
    name: str, digest: str, settings: dict[str, Any], presets: dict[str, Any], lines: list[ShardLine]
) -> Manifest:
    """A manifest of one plan, whose sums and digests are right."""
    count, size = sum(line.written for line in lines), sum(line.bytes for line in lines)
    hashed = hashlib.sha256(canonical_json([settings, presets])).hexdigest()
    plan = PlanLine("plan-000.parquet", digest, count, name, settings, presets, hashed, {}, {}, {})
    return Manifest([plan], Totals(count, count, {}, len(lines), size), lines)
