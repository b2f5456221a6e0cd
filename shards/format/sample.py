"""Reads single samples out of a shard, by its index and without walking the tar; and says which members may be decoded."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from stillreel.configs import DataError
from stillreel.configs.system.claims import parse_json
from stillreel.configs.system.storage import Folder, Range
from stillreel.shards.format.containers import VIDEO_ENDINGS
from stillreel.shards.format.foreign import Damage, read_members, split_name
from stillreel.shards.format.index import Entry, decode_index
from stillreel.shards.format.receipt import part_file
from stillreel.shards.format.tar import BLOCK, TarDamage, members_of

# What a member may be by the last part of its ending, and what becomes of it. Nothing else is decoded, and nothing is ever
# unpickled: .pkl, .pyd, .pth and their like are code that a stranger wrote, and .npy may hold a pickle.
DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    "json": parse_json,
    "txt": lambda data: data.decode("utf-8"),
    **dict.fromkeys(VIDEO_ENDINGS, bytes),
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"), bytes),
    # What video2dataset puts beside a video; nobody looks at it.
    **dict.fromkeys(("m4a", "mp3", "wav", "flac"), bytes),
}

_TEXTS = frozenset({"json", "txt"})


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


def split_foreign_sample(key: str, blob: bytes) -> dict[str, bytes]:
    """`split_sample` of a tar that we did not write, whose headers may be of any kind."""
    sample: dict[str, bytes] = {}
    # Between its members and after them only whole headers are admitted, as in a tar that ends there.
    for member in read_members(io.BytesIO(blob + bytes(2 * BLOCK)), len(blob) + 2 * BLOCK):
        if isinstance(member, Damage):
            raise DataError(f"{key}: {member.what}")
        own, ending = split_name(member.name)
        if own and (own != key or ending in sample):
            raise DataError(f"{key}: its bytes hold {member.name}")
        if own:
            sample[ending] = blob[member.start : member.start + member.size]
    return sample


def decode_members(key: str, members: Mapping[str, bytes]) -> dict[str, Any]:
    """Members by ending as DECODERS have them: JSON parsed, text as text, pictures as bytes. DataError for any other."""
    decoded: dict[str, Any] = {}
    for ending, data in members.items():
        check_ending(key, ending)
        try:
            decoded[ending] = DECODERS[ending.rpartition(".")[2]](data)
        except ValueError as error:
            raise DataError(f"{key}.{ending}: {error}") from None
    return decoded


def is_bare(endings: Iterable[str]) -> bool:
    """Whether a sample of these endings has nothing but texts: what a downloader leaves of what it could not get."""
    return all(ending.rpartition(".")[2] in _TEXTS for ending in endings)


def check_ending(key: str, ending: str) -> None:
    """DataError when a member of this ending is never decoded."""
    if ending.rpartition(".")[2] not in DECODERS:
        raise DataError(
            f"{key}.{ending}: no decoder for .{ending}; only texts (json, txt), pictures, videos and sound are read by their "
            "usual endings, never a pickle"
        )
