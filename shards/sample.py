"""Reads single samples out of a shard, by its index and without walking the tar."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from configs import DataError
from shards.index import Entry, decode_index
from shards.receipt import part_file
from shards.storage import Folder, Range
from shards.tar import BLOCK, TarDamage, members_of


def read_index(folder: Folder, shard: str) -> list[Entry]:
    """The index of a shard; DataError when it is missing or damaged."""
    try:
        return decode_index(folder.read(part_file(shard, "idx")))
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"{folder.url}/{part_file(shard, 'idx')}: {error}") from None


def read_samples(folder: Folder, shard: str, entries: Sequence[Entry]) -> Iterator[dict[str, bytes]]:
    """The members of samples by ending, in the order of `entries`; DataError when their bytes are not as indexed."""
    tar = part_file(shard, "tar")
    blobs = folder.read_ranges([Range(tar, entry.offset, entry.length) for entry in entries])
    for entry, blob in zip(entries, blobs, strict=True):
        if blob is None or hashlib.sha256(blob).digest() != entry.sha256:
            raise DataError(f"{folder.url}/{tar}, {entry.key}: missing, or not the bytes that were written")
        yield split_sample(entry.key, blob)


def split_sample(key: str, blob: bytes) -> dict[str, bytes]:
    """A sample's bytes in a tar as its members by ending; DataError when they are members of something else."""
    try:
        members = members_of(blob)
    except TarDamage as damage:
        raise DataError(f"{key}: {damage}") from None
    sample: dict[str, bytes] = {}
    for member in members:
        own, _, ending = member.name.partition(".")
        if own != key or ending in sample:
            raise DataError(f"{key}: its bytes hold {member.name}")
        start = member.offset + BLOCK
        sample[ending] = blob[start : start + member.size]
    return sample
