"""What a stream reads: the shards of one data set, by its manifest, or by the catalog of tars that we did not write."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from stillreel.configs import DataError, RequestError
from stillreel.configs.settings import canonical_json
from stillreel.configs.system.claims import STRICT, Count, checked_path, damage_of, parse_json, read_record, shortened
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.manifest import MANIFEST, read_manifest
from stillreel.shards.format.receipt import part_file
from stillreel.shards.format.tar import BLOCK

CATALOG = "catalog.json"
CATALOG_SCHEMA_VERSION = 1


class Shard(NamedTuple):
    """A tar and its index, by their names in their folders; how many samples it must hold, and bytes (about).

    `digest` (hex) is the one that the samples' sha256s must hash to, empty where nothing but the index knows it.
    """

    tar: str
    idx: str
    samples: int
    bytes: int
    digest: str


@dataclass(frozen=True)
class CatalogLine:
    """A tar as its catalog has it: `digest` is the one of the sha256s of its samples."""

    name: str
    samples: Count
    bytes: Count
    digest: str

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Catalog:
    """What `stillreel catalog` writes: where the tars lie, what they hold, and what was wrong."""

    tars: str
    shards: list[CatalogLine]
    problems: list[str]
    schema: int = CATALOG_SCHEMA_VERSION

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Corpus:
    """A data set as a stream sees it. `plans` (settings and presets of a build, opaque here) are empty for foreign tars.

    `identity` is equal for equal samples: a copy elsewhere, or a repaired shard, does not change it.
    """

    url: str
    tars: str
    shards: tuple[Shard, ...]
    identity: str
    plans: tuple[dict[str, Any], ...] = field(repr=False, default=())

    @property
    def is_foreign(self) -> bool:
        return not self.plans

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)


def open_corpus(url: str) -> Corpus:
    """The data set, or the catalog, at a path or URL. RequestError when there is neither, DataError when it is damaged."""
    folder = Folder(url)
    if folder.exists(MANIFEST):
        corpus = _of_manifest(folder)
    elif folder.exists(CATALOG):
        corpus = _of_catalog(folder)
    else:
        raise RequestError(
            f"{folder.url} holds neither {MANIFEST} (a finished build) nor {CATALOG}; for tars that stillreel did not "
            "write, run `stillreel catalog TARS OUT` first and give OUT"
        )
    if not corpus.samples:
        raise DataError(f"{folder.url} holds no samples")
    crowded = next((shard for shard in corpus.shards if shard.samples * BLOCK > shard.bytes), None)
    if crowded:  # a sample has a header, at least; an order of what no tar can hold would fill the memory
        raise DataError(
            f"{folder.url} is damaged or was edited: {crowded.tar} of {crowded.bytes:,} bytes cannot hold "
            f"{crowded.samples:,} samples"
        )
    return corpus


def _of_manifest(folder: Folder) -> Corpus:
    manifest = read_manifest(folder)
    shards = tuple(
        Shard(part_file(line.name, "tar"), part_file(line.name, "idx"), line.written, line.bytes, "")
        for line in manifest.shards
    )
    # By plan, not by receipt: receipts hold timings, so the same data built twice would differ.
    identity = _digest([[plan.sha256 for plan in manifest.plans], [[shard.tar, shard.samples] for shard in shards]])
    return Corpus(folder.url, folder.url, shards, identity, tuple(asdict(plan) for plan in manifest.plans))


def _of_catalog(folder: Folder) -> Corpus:
    with damage_of(f"{folder.url}/{CATALOG} is damaged; run `stillreel catalog` again"):
        body = parse_json(folder.read(CATALOG))
        schema = body.get("schema") if isinstance(body, dict) else None
        if schema != CATALOG_SCHEMA_VERSION:
            raise ValueError(f"schema {shortened(schema)}, this stillreel reads {CATALOG_SCHEMA_VERSION}")
        catalog = read_record(_adapter(), body)
        names = [checked_path(line.name) for line in catalog.shards]
        if len(set(names)) < len(names):
            raise ValueError("it lists a tar twice")
        shards = tuple(
            Shard(line.name, index_file(line.name), line.samples, line.bytes, line.digest) for line in catalog.shards
        )
    return Corpus(folder.url, catalog.tars, shards, _digest([[shard.digest, shard.samples] for shard in shards]))


@cache
def _adapter() -> TypeAdapter[Catalog]:
    return TypeAdapter(Catalog)


def index_file(tar: str) -> str:
    """Where a catalog keeps the index of a tar."""
    return f"index/{tar.removesuffix('.tar')}.idx"


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
