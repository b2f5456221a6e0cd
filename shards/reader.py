"""Reads the samples of a corpus by number, and believes none of them before its bytes hash to what the index says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from configs import DataError
from shards.cache import ShardCache
from shards.corpus import Corpus, Shard
from shards.faults import BadSample, BadShard, StorageFailure, patiently
from shards.index import Entry, Index, open_index
from shards.order import Kept
from shards.sample import split_foreign_sample, split_sample
from shards.storage import Folder, Range
from shards.tar import TarDamage, members_of

_INDICES_KEPT = 1024
_FETCHERS = 4  # shards on their way into the cache at once, each process
_MOST_EVICTED = 3  # times that a shard may leave the cache between being fetched and being read

Members = dict[str, bytes]


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

    def read(self, wanted: Sequence[tuple[int, int]]) -> list[Found | BadSample | BadShard]:
        """Samples by (shard, number in it), in the order asked for. StorageFailure when storage does not answer."""
        answers: list[Found | BadSample | BadShard | None] = [None] * len(wanted)
        entries: dict[int, Entry] = {}
        for place, (shard, sample) in enumerate(wanted):
            index = self._indices[shard]
            if isinstance(index, BadShard):
                answers[place] = index
            else:
                entries[place] = index[sample]
        blobs = self._read_blobs([wanted[place][0] for place in entries], list(entries.values()))
        for (place, entry), blob in zip(entries.items(), blobs, strict=True):
            answers[place] = self._believed(*wanted[place], entry, blob)
        return [answer for answer in answers if answer is not None]

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
        if shard.digest and index.digest != shard.digest:
            return BadShard(where, "is not the index that the catalog speaks of; run `stillreel catalog` again")
        return index

    def _read_blobs(self, shards: Sequence[int], entries: Sequence[Entry]) -> list[bytes | None]:
        """The bytes of each entry, None where there is no tar."""
        kept: list[int] = []
        ranges: list[Range] = []
        blobs: list[bytes | None] = [None] * len(entries)
        missing = list(range(len(entries)))
        for _ in range(_MOST_EVICTED if self._cache else 0):
            assert self._cache is not None
            names = {shard: self._fetched(shard) for shard in {shards[place] for place in missing}}
            kept = [place for place in missing if names[shards[place]]]
            ranges = [Range(names[shards[place]] or "", entries[place].offset, entries[place].length) for place in kept]
            for place, blob in zip(kept, self._cache.folder.read_ranges(ranges), strict=True):
                blobs[place] = blob
            # What was evicted between the two is fetched again; what cannot be cached is read where it lies.
            if all(blobs[place] is not None for place in kept):
                break
        missing = [place for place in missing if blobs[place] is None]
        ranges = [
            Range(self._corpus.shards[shards[place]].tar, entries[place].offset, entries[place].length)
            for place in missing
        ]
        found = patiently(self._tars.url, self._attempts, lambda: list(self._tars.read_ranges(ranges)))
        for place, blob in zip(missing, found, strict=True):
            blobs[place] = blob
        return blobs

    def _fetched(self, shard: int) -> str | None:
        index = self._indices[shard]
        assert self._cache is not None and isinstance(index, Index)
        return self._cache.fetch(self._tars, self._corpus.shards[shard].tar, index)

    def _believed(self, number: int, sample: int, entry: Entry, blob: bytes | None) -> Found | BadSample:
        shard = self._corpus.shards[number]
        where = f"{self._tars.url}/{shard.tar}"
        if blob is None:
            return BadSample(where, entry.key, "the tar is missing")
        if len(blob) < entry.length:
            return BadSample(where, entry.key, f"the tar is cut: {len(blob):,} of the sample's {entry.length:,} bytes")
        if not self._was_hashed(number, sample, shard):
            if hashlib.sha256(blob).digest() != entry.sha256:
                return BadSample(where, entry.key, f"not the bytes that were written{_hint(blob)}")
            self._hashed[number][sample] = True
        try:
            return Found(entry.key, self._split(entry.key, blob))
        except DataError as error:
            return BadSample(where, entry.key, str(error))

    def _was_hashed(self, number: int, sample: int, shard: Shard) -> bool:
        if number not in self._hashed:
            self._hashed[number] = np.zeros(shard.samples, np.bool_)
        return bool(self._hashed[number][sample])


def _hint(blob: bytes) -> str:
    """What in particular differs, where the headers show it."""
    try:
        members_of(blob)
    except TarDamage as damage:
        return f" ({damage})"
    return ""
