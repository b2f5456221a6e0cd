"""Reads the samples of a corpus by number, and believes none of them before its bytes hash to what the index says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stillreel.configs import DataError
from stillreel.configs.system.storage import Folder, Range
from stillreel.shards.format.index import Entry, Index, open_index
from stillreel.shards.format.sample import split_foreign_sample, split_sample
from stillreel.shards.format.tar import TarDamage, members_of
from stillreel.shards.stream.cache import ShardCache
from stillreel.shards.stream.corpus import Corpus
from stillreel.shards.stream.faults import BadSample, BadShard, StorageFailure, patiently
from stillreel.shards.stream.order import Kept

_INDICES_KEPT = 1024
_FETCHERS = 4  # shards on their way into the cache at once, each process
_MOST_EVICTED = 3  # times that a shard is fetched for one read: it may leave the cache between the two

Members = dict[str, bytes]


class Place(NamedTuple):
    """A sample by number: its shard, and which one it is there."""

    shard: int
    sample: int


class Found(NamedTuple):
    """A whole sample: its key and its members by ending."""

    key: str
    members: Members


class SampleReader:
    """Reader of one corpus, in one process. Keeps indices of shards in use; knows which samples it has hashed before."""

    def __init__(self, corpus: Corpus, cache: ShardCache | None, attempts: int) -> None:
        self._corpus = corpus
        self._folder = Folder(corpus.url)
        self._tars = Folder(corpus.tars)
        self._cache = None if self._tars.is_local else cache
        self._attempts = attempts
        self._indices: Kept[int, Index | BadShard] = Kept(_INDICES_KEPT, self._open_index)
        self._hashed: dict[int, NDArray[np.bool_]] = {}
        self._split = split_foreign_sample if corpus.is_foreign else split_sample
        self._fetchers: ThreadPoolExecutor | None = None
        self._fetching: set[int] = set()

    def read(self, wanted: Sequence[Place]) -> list[Found | BadSample | BadShard]:
        """Samples, in the order asked for. StorageFailure when storage does not answer."""
        answers: dict[int, Found | BadSample | BadShard] = {}
        entries: dict[int, Entry] = {}
        by_shard: dict[int, list[int]] = {}
        for at, place in enumerate(wanted):
            by_shard.setdefault(place.shard, []).append(at)
        for shard, places in by_shard.items():
            index = self._indices[shard]
            if isinstance(index, BadShard):
                answers.update(dict.fromkeys(places, index))
            else:
                entries.update(zip(places, index.pick([wanted[at].sample for at in places]), strict=True))
        blobs = self._read_blobs([wanted[at] for at in entries], list(entries.values()))
        for (at, entry), blob in zip(entries.items(), blobs, strict=True):
            answers[at] = self._believed(wanted[at], entry, blob)
        return [answers[at] for at in range(len(wanted))]

    def index(self, shard: int) -> Index | BadShard:
        """What a shard holds, or what is wrong with its list."""
        return self._indices[shard]

    def prefetch(self, shards: Sequence[int]) -> None:
        """Begin to fetch shards into the cache, if there is one."""
        if self._cache is None:
            return
        self._fetchers = self._fetchers or ThreadPoolExecutor(_FETCHERS)
        for shard in shards:
            index = self._indices[shard]
            if shard not in self._fetching and isinstance(index, Index):
                self._fetching.add(shard)
                self._fetchers.submit(self._bring, shard, index)

    def _bring(self, shard: int, index: Index) -> None:
        assert self._cache is not None
        try:
            self._cache.fetch(self._tars, self._corpus.shards[shard].tar, index)
        except StorageFailure:
            pass  # the read that needs the shard will say so
        finally:
            self._fetching.discard(shard)

    def _open_index(self, number: int) -> Index | BadShard:
        shard = self._corpus.shards[number]
        where = f"{self._folder.url}/{shard.idx}"
        try:
            index = open_index(patiently(where, self._attempts, lambda: self._folder.read(shard.idx)))
        except FileNotFoundError:
            return BadShard(where, "missing")
        except ValueError as error:
            return BadShard(where, str(error))
        if len(index) != shard.samples:
            return BadShard(where, f"lists {len(index):,} samples; the data set has {shard.samples:,} in this shard")
        if index.end > shard.bytes:
            return BadShard(where, f"points to byte {index.end:,} of a tar of at most {shard.bytes:,}")
        if shard.digest and index.digest != shard.digest:
            return BadShard(where, "is not the index that the catalog speaks of; run `stillreel catalog` again")
        return index

    def _read_blobs(self, wanted: Sequence[Place], entries: Sequence[Entry]) -> list[bytes | None]:
        """The bytes of each entry, None where there is no tar."""
        blobs: list[bytes | None] = [None] * len(entries)
        if self._cache:
            blobs = self._read_cached(wanted, entries)
        missing = [at for at, blob in enumerate(blobs) if blob is None]
        ranges = [
            Range(self._corpus.shards[wanted[at].shard].tar, entries[at].offset, entries[at].length) for at in missing
        ]
        found = patiently(self._tars.url, self._attempts, lambda: list(self._tars.read_ranges(ranges)))
        for at, blob in zip(missing, found, strict=True):
            blobs[at] = blob
        return blobs

    def _read_cached(self, wanted: Sequence[Place], entries: Sequence[Entry]) -> list[bytes | None]:
        """The bytes of each entry whose shard can be cached, fetched if need be; None of the others."""
        assert self._cache is not None
        blobs: list[bytes | None] = [None] * len(entries)
        for _ in range(_MOST_EVICTED):
            waiting = [at for at, blob in enumerate(blobs) if blob is None]
            names = {shard: self._fetched(shard) for shard in {wanted[at].shard for at in waiting}}
            kept = [(at, name) for at in waiting if (name := names[wanted[at].shard])]
            if not kept:
                break
            ranges = [Range(name, entries[at].offset, entries[at].length) for at, name in kept]
            for (at, name), blob in zip(kept, self._cache.folder.read_ranges(ranges), strict=True):
                if blob is not None and self._is_whole(wanted[at], entries[at], blob):
                    blobs[at] = blob
                else:  # evicted since it was fetched, or damaged on this disk: the bucket still has it
                    self._cache.drop(name)
        return blobs

    def _fetched(self, shard: int) -> str | None:
        index = self._indices[shard]
        assert self._cache is not None and isinstance(index, Index)
        return self._cache.fetch(self._tars, self._corpus.shards[shard].tar, index)

    def _believed(self, place: Place, entry: Entry, blob: bytes | None) -> Found | BadSample:
        where = f"{self._tars.url}/{self._corpus.shards[place.shard].tar}"
        if blob is None:
            return BadSample(where, entry.key, "the tar is missing")
        if len(blob) < entry.length:
            return BadSample(where, entry.key, f"the tar is cut: {len(blob):,} of the sample's {entry.length:,} bytes")
        if not self._is_whole(place, entry, blob):
            return BadSample(where, entry.key, f"not the bytes that were written{_hint(blob)}")
        try:
            return Found(entry.key, self._split(entry.key, blob))
        except DataError as error:
            return BadSample(where, entry.key, str(error))

    def _is_whole(self, place: Place, entry: Entry, blob: bytes) -> bool:
        """Whether the bytes are those of the index; hashed when they are first read."""
        if place.shard not in self._hashed:
            self._hashed[place.shard] = np.zeros(self._corpus.shards[place.shard].samples, np.bool_)
        hashed = self._hashed[place.shard]
        if len(blob) == entry.length and not hashed[place.sample]:
            hashed[place.sample] = hashlib.sha256(blob).digest() == entry.sha256
        return len(blob) == entry.length and bool(hashed[place.sample])


def _hint(blob: bytes) -> str:
    """What in particular differs, where the headers show it."""
    try:
        members_of(blob)
    except TarDamage as damage:
        return f" ({damage})"
    return ""
