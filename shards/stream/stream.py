"""The stream: from a position in the endless order to a whole sample, whatever reads it, and wherever it stopped before.

    consumed = 1280, a batch of 64, rank 1 of 2          what the trainer has consumed; nothing else is state
        | pretrain/data/dataset.py
    positions 1281, 1283, ... 1343                       every second slot of the global batch is this rank's
        | mixture.py: weights, by lane
    data set 0 at its position 961, data set 1 ...
        | order.py: epoch, shard, sample
    epoch 0, shard 7 of data set 0, sample 412
        | reader.py: index, cache, bytes, sha256
    cc3m_000007412, {"jpg": ..., "json": ..., "txt": ...}
        | decode, handed in
    a clip

Each arrow is a pure function of what stands above it and of the data, so a position has the same clip for every number
of ranks and workers, and after any stop.

A slot whose sample is damaged gets what its lane has STAND_IN_TURNS turns later (see faults.py), so the sample of a lane
stays in its lane. (Not the next turn: a batch that holds a sample twice would call a true pair a false one.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from stillreel.configs import DataError, RequestError
from stillreel.configs.settings import canonical_json
from stillreel.configs.stream import DataSettings, OrderSettings
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.sample import decode_members
from stillreel.shards.stream.cache import ShardCache
from stillreel.shards.stream.corpus import Corpus, open_corpus
from stillreel.shards.stream.faults import BadSample, BadShard, fill_slots
from stillreel.shards.stream.mixture import ROUND, Mixture
from stillreel.shards.stream.order import ORDER_VERSION, Ints, Order, Places
from stillreel.shards.stream.reader import Found, Place, SampleReader

STAND_IN_TURNS = 512

Value = TypeVar("Value")


class State(NamedTuple):
    """How far a run has read: samples and steps that its trainer consumed, and which order of which data they are of."""

    samples: int
    steps: int
    fingerprint: int

    def to_dict(self) -> dict[str, int]:
        return self._asdict()

    @classmethod
    def from_dict(cls, value: Mapping[str, int]) -> State:
        return cls(value["samples"], value["steps"], value["fingerprint"])


class Sample(NamedTuple):
    """A whole sample, as a decoder gets it: which data set it is of, its key, the epoch (None: of none, as a test reads it),
    its members as DECODERS have them."""

    corpus: int
    key: str
    epoch: int | None
    members: Mapping[str, Any]


class Slot(NamedTuple, Generic[Value]):
    """What a position has: its key, what the decoder made of it, and the damage that was passed over on the way."""

    key: str
    value: Value
    passed: tuple[BadSample | BadShard, ...]


class Blend(NamedTuple):
    """Data sets and their weights: what a stream is of. Light, and can be sent to other processes."""

    corpora: tuple[Corpus, ...]
    weights: tuple[float, ...]

    def fingerprint(self, settings: OrderSettings) -> int:
        """63 bits that are equal for the same samples in the same order."""
        named = [ORDER_VERSION, settings.model_dump(), [corpus.identity for corpus in self.corpora]]
        turns = Mixture(self.weights, 0, 1).turns
        return int(hashlib.sha256(canonical_json([*named, turns])).hexdigest()[:16], 16) >> 1

    def orders(self, settings: OrderSettings) -> list[Order]:
        """The order of each data set."""
        return [
            Order([shard.samples for shard in corpus.shards], settings.seed, settings.lanes, settings.window)
            for corpus in self.corpora
        ]

    def start(self, settings: OrderSettings, steps: int, batch: int) -> State:
        """The state of a run that has consumed some steps of a batch size."""
        return State(steps * batch, steps, self.fingerprint(settings))

    def check(self, state: State, settings: OrderSettings) -> None:
        """RequestError when a state is of other data or another order."""
        if state.fingerprint != self.fingerprint(settings):
            order = ", ".join(f"{key}={value}" for key, value in settings.model_dump().items())
            raise RequestError(
                f"this state is of other data or another order: its fingerprint is {state.fingerprint}, that of "
                f"{', '.join(corpus.url for corpus in self.corpora)} with {order} is {self.fingerprint(settings)}. Resume "
                "with the data sets, weights, seed, lanes and window that it was saved with, or start anew without it"
            )

    def describe(self) -> str:
        """A line a data set: samples, shards and, of a mixture, its share as it is met."""
        turns = Mixture(self.weights, 0, 1).turns
        shares = [f", {share} of {ROUND} turns" if len(turns) > 1 else "" for share in turns]
        return "\n".join(
            f"{corpus.url}: {corpus.samples:,} samples in {len(corpus.shards):,} shards{share}"
            for corpus, share in zip(self.corpora, shares, strict=True)
        )


def open_blend(data: str) -> Blend:
    """`DATA` or `DATA*WEIGHT,DATA*WEIGHT ...`; without weights every sample is as frequent as every other."""
    corpora: list[Corpus] = []
    weights: list[float] = []
    parts = _parts(data)
    weighted = ["*" in part and not Folder(part).exists() for part in parts]
    for part, has_weight in zip(parts, weighted, strict=True):
        url, _, weight = part.rpartition("*") if has_weight else (part, "", "")
        corpora.append(open_corpus(url))
        try:
            weights.append(float(weight) if has_weight else corpora[-1].samples)
        except ValueError:
            weights.append(0)
        if not 0 < weights[-1] < float("inf"):
            raise RequestError(f"{part}: expected DATA*WEIGHT with a positive number, e.g. cc3m*3,cc12m*1")
    if len(set(weighted)) > 1:
        raise RequestError(f"{data}: give every data set a weight, or none")
    if len(corpora) > ROUND // 4:
        raise RequestError(f"{len(corpora)} data sets; at most {ROUND // 4} can be mixed")
    return Blend(tuple(corpora), tuple(weights))


def _parts(data: str) -> list[str]:
    """What commas part, but for those in the name of a folder that is there."""
    left, parts = data.split(","), []
    while left:
        counts = (count for count in range(len(left), 1, -1) if _is_there(",".join(left[:count])))
        count = next(counts, 1)
        parts.append(",".join(left[:count]))
        del left[:count]
    return parts


def _is_there(part: str) -> bool:
    url, star, weight = part.rpartition("*")
    return Folder(part).exists() or bool(star and url and "," not in weight and Folder(url).exists())


class Stream:
    """The samples at positions, in one process."""

    def __init__(self, blend: Blend, settings: DataSettings) -> None:
        cache = None
        if settings.cache:
            cache = ShardCache(settings.cache, int(settings.cache_gb * 1e9), settings.attempts)
        self._lanes = settings.lanes
        self._mixture = Mixture(blend.weights, settings.seed, settings.lanes)
        self._readers = [SampleReader(corpus, cache, settings.attempts) for corpus in blend.corpora]
        self._orders = blend.orders(settings)
        self._where = [Folder(corpus.tars).url for corpus in blend.corpora]

    def locate(self, positions: Ints) -> tuple[Ints, Places]:
        """The data set, epoch, shard and sample at positions (n,)."""
        chosen, own = self._mixture.split(positions)
        found = Places(*(np.empty_like(positions) for _ in Places._fields))
        for number in np.unique(chosen).tolist():
            mine = np.flatnonzero(chosen == number)
            for part, values in zip(found, self._orders[number].locate(own[mine]), strict=True):
                part[mine] = values
        return chosen, found

    def read(self, positions: Ints, decode: Callable[[Sample, int], Value]) -> list[Slot[Value]]:
        """What each position (n,) has. `decode(sample, slot)` raises DataError for a sample that is damaged.

        DataError when a slot has no whole stand-in either, StorageFailure when storage does not answer.
        """

        def read(slots: list[int], places: Ints) -> list[tuple[str, Value] | BadSample | BadShard]:
            samples = zip(slots, self._samples(places), strict=True)
            return [self._decoded(sample, slot, decode) for slot, sample in samples]

        filled = fill_slots(positions, STAND_IN_TURNS * self._lanes, read)
        return [Slot(*made, passed) for made, passed in filled]

    def prefetch(self, positions: Ints) -> None:
        """Begin to bring the shards of positions into the cache."""
        chosen, found = self.locate(positions)
        for number in np.unique(chosen).tolist():
            self._readers[number].prefetch(np.unique(found.shards[chosen == number]).tolist())

    def _samples(self, positions: Ints) -> list[Sample | BadSample | BadShard]:
        chosen, found = self.locate(positions)
        samples: dict[int, Sample | BadSample | BadShard] = {}
        for number in np.unique(chosen).tolist():
            mine = np.flatnonzero(chosen == number).tolist()
            wanted = [Place(int(found.shards[at]), int(found.samples[at])) for at in mine]
            for at, answer in zip(mine, self._readers[number].read(wanted), strict=True):
                samples[at] = self._opened(answer, number, int(found.epochs[at]))
        return [samples[at] for at in range(len(positions))]

    def _opened(self, answer: Found | BadSample | BadShard, corpus: int, epoch: int) -> Sample | BadSample | BadShard:
        if not isinstance(answer, Found):
            return answer
        try:
            return Sample(corpus, answer.key, epoch, decode_members(answer.key, answer.members))
        except DataError as error:
            return BadSample(self._where[corpus], answer.key, str(error))

    def _decoded(
        self, sample: Sample | BadSample | BadShard, slot: int, decode: Callable[[Sample, int], Value]
    ) -> tuple[str, Value] | BadSample | BadShard:
        if not isinstance(sample, Sample):
            return sample
        try:
            return sample.key, decode(sample, slot)
        except DataError as error:
            return BadSample(self._where[sample.corpus], sample.key, str(error))


def slots_of(consumed: int, batch: int, rank: int, ranks: int) -> Ints:
    """Positions of a rank's slots of the next global batch, int64 (batch / ranks,): slot i is rank i mod ranks's."""
    return np.arange(consumed + rank, consumed + batch, ranks)


def merged(shares: Sequence[Sequence[Value]]) -> list[Value]:
    """A global batch from what its ranks have, in order of rank."""
    return [value for slots in zip(*shares, strict=True) for value in slots]
