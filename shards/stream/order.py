"""The order of samples: a pure function of (shard sizes, seed, epoch, lanes, window), at any position, never walked to.

    epoch      its shards in a drawn order, the samples of each shuffled, laid end to end: a line of N samples
    lanes      the line is cut into `lanes` pieces. A lane owns the shards of its piece; one that lies across a cut is
               shared by two lanes, each of which owns its own samples of it
    windows    a piece is cut into equal windows of at most `window` samples, and each is shuffled within itself
    order      position p is fed by lane p mod lanes, which takes the next sample of its piece

So slot i of a batch that is a multiple of `lanes` is always fed by lane i mod lanes. Positions count on from epoch to epoch:
N * epoch is the first of an epoch. A piece holds as many samples as its lane has positions in the epoch, so the order is
exact whatever the sizes are: fewer shards than lanes, one sample, empty shards.

    sizes (3, 2), lanes 2, window 4, seed 0, epoch 0: shards drawn as 1, 0       line     1.1 1.0 0.2 0.1 0.0
    lane 0 has positions 0, 2, 4, lane 1 has 1, 3: pieces of 3 and 2                      1.1 1.0 0.2 | 0.1 0.0
    each shuffled                                                                         1.0 1.1 0.2 | 0.0 0.1
    order                                                                                 1.0 0.0 1.1 0.1 0.2

Lanes lie on the line in the order of their reversed bits. So the lanes l of one remainder l mod R, which are what one of R
ranks reads, are neighbors on the line when R is a power of two: a rank's share is one run of whole shards, but for its ends.

Randomness is counter-based: SplitMix64 of a counter, keyed by BLAKE2b of (seed, what is drawn). No library's generator
enters, so no library's version can change an order. Golden tests pin it; a change of it is a change of ORDER_VERSION.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

ORDER_VERSION = 1
LANES = 64
WINDOW = 4096

_GOLDEN = 0x9E3779B97F4A7C15
_EPOCHS_KEPT, _SHUFFLES_KEPT = 4, 1024


class Places(NamedTuple):
    """Where positions lie, each int64 (n,): the epoch, the shard, and the sample within the shard."""

    epochs: Ints
    shards: Ints
    samples: Ints


class Order:
    """The endless order of one data set. Keeps the few epochs and windows that are in use, nothing else."""

    def __init__(self, sizes: Sequence[int], seed: int, lanes: int = LANES, window: int = WINDOW) -> None:
        """`sizes` are the samples of each shard, of which at least one has some."""
        self.sizes = np.asarray(sizes, np.int64)
        self.samples = int(self.sizes.sum())
        assert self.samples > 0 and lanes > 0 and window > 0, (self.samples, lanes, window)
        self.lanes = lanes
        self.window = window
        self._seed = seed
        self._epochs: Kept[int, _Epoch] = Kept(_EPOCHS_KEPT, self._draw_epoch)
        self._shuffles: Kept[tuple[int, int], Ints] = Kept(_SHUFFLES_KEPT, self._draw_shuffle)
        self._windows: Kept[tuple[int, int, int, int], Ints] = Kept(4 * lanes, self._draw_window)

    def locate(self, positions: Ints) -> Places:
        """The samples at positions (n,), in any order, 0 or more. The cost does not depend on how far on they are."""
        epochs, shards, samples = (np.empty(len(positions), np.int64) for _ in Places._fields)
        np.floor_divide(positions, self.samples, out=epochs)
        for number in np.unique(epochs).tolist():
            mine = np.flatnonzero(epochs == number)
            epoch = self._epochs[number]
            line = self._on_line(number, epoch, positions[mine])
            turn = np.searchsorted(epoch.edges, line, side="right") - 1
            shards[mine] = epoch.shards[turn]
            samples[mine] = line - epoch.edges[turn]
        # Without this a small set would be dealt to its lanes in almost the same way in every epoch.
        for group in _groups(epochs, shards):
            samples[group] = self._shuffles[int(epochs[group[0]]), int(shards[group[0]])][samples[group]]
        return Places(epochs, shards, samples)

    def _on_line(self, number: int, epoch: _Epoch, positions: Ints) -> Ints:
        """Places on the line of an epoch (n,) of its positions (n,)."""
        lanes = positions % self.lanes
        turns = positions // self.lanes - epoch.first_turns[lanes]
        lengths = epoch.lengths[lanes]
        counts = -(-lengths // self.window)
        windows = ((turns + 1) * counts - 1) // lengths
        starts = lengths * windows // counts
        ends = lengths * (windows + 1) // counts
        line = epoch.starts[lanes] + starts
        # One window at a time: a batch sees each lane's window once, and most are those of the batch before.
        for group in _groups(lanes, windows):
            one = group[0]
            key = (number, int(lanes[one]), int(windows[one]), int(ends[one] - starts[one]))
            line[group] += self._windows[key][turns[group] - starts[group]]
        return line

    def _draw_epoch(self, number: int) -> _Epoch:
        shards = permutation(len(self.sizes), self._seed, "shards", number)
        edges = np.concatenate([[0], np.cumsum(self.sizes[shards])])
        lanes = np.arange(self.lanes)
        first_turns = _turns_before(number * self.samples, lanes, self.lanes)
        lengths = _turns_before((number + 1) * self.samples, lanes, self.lanes) - first_turns
        on_line = _by_reversed_bits(self.lanes)
        starts = np.empty(self.lanes, np.int64)
        starts[on_line] = np.concatenate([[0], np.cumsum(lengths[on_line])[:-1]])
        return _Epoch(shards, edges, first_turns, lengths, starts)

    def _draw_shuffle(self, key: tuple[int, int]) -> Ints:
        epoch, shard = key
        return permutation(int(self.sizes[shard]), self._seed, "shard", epoch, shard)

    def _draw_window(self, key: tuple[int, int, int, int]) -> Ints:
        number, lane, window, length = key
        return permutation(length, self._seed, "window", number, lane, window)


class _Epoch(NamedTuple):
    """The line of an epoch: its shards in order and their edges on it (S,), (S + 1,); of each lane (L,) how many turns
    it had before the epoch, the length of its piece, and where this starts."""

    shards: Ints
    edges: Ints
    first_turns: Ints
    lengths: Ints
    starts: Ints


class Kept(Generic[Key, Value]):
    """Values made when they are first asked for; the `most` that were used last are kept."""

    def __init__(self, most: int, make: Callable[[Key], Value]) -> None:
        self._most = most
        self._make = make
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __getitem__(self, key: Key) -> Value:
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = self._make(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)
        return value


def epoch_order(sizes: Sequence[int], seed: int, epoch: int, lanes: int = LANES, window: int = WINDOW) -> Ints:
    """The whole order of an epoch, int64 (N,): samples by their number in all shards laid end to end as given.

    A permutation of 0 .. N - 1. For what a run reads next, ask `Order.locate` for some positions instead.
    """
    order = Order(sizes, seed, lanes, window)
    places = order.locate(np.arange(epoch * order.samples, (epoch + 1) * order.samples))
    before = np.concatenate([[0], np.cumsum(order.sizes)])
    return np.asarray(before[places.shards] + places.samples)


def permutation(count: int, seed: int, label: str, *numbers: int) -> Ints:
    """0 .. count - 1 in the order that (seed, label, numbers) draws, int64 (count,)."""
    if count == 1:
        return np.zeros(1, np.int64)
    return np.argsort(draw_words(count, seed, label, *numbers), kind="stable")


def draw_words(count: int, seed: int, label: str, *numbers: int) -> NDArray[np.uint64]:
    """`count` random words of 64 bits, a pure function of (seed, label, numbers); a longer list begins with the shorter."""
    named = "\0".join([str(seed), label, *map(str, numbers)]).encode()
    key = int.from_bytes(hashlib.blake2b(named, digest_size=8, person=b"stillreel order").digest(), "little")
    # SplitMix64 (Steele, Lea, Flood 2014): a Weyl sequence through a mixer; integers wrap around at 2^64 in arrays.
    words = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(key)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _groups(first: Ints, second: Ints) -> list[Ints]:
    """Places (n,) split into those that agree in both values."""
    order = np.lexsort((second, first))
    return np.split(order, np.flatnonzero(np.diff(first[order]) | np.diff(second[order])) + 1)


def _turns_before(position: int, lanes: Ints, count: int) -> Ints:
    """How many positions before `position` each lane feeds."""
    return np.asarray((position - lanes + count - 1) // count)


def _by_reversed_bits(lanes: int) -> Ints:
    """Lanes 0 .. lanes - 1, sorted by their bits read backwards: 0 2 1 3."""
    bits = (lanes - 1).bit_length()
    reverse = [int(f"{lane:0{bits}b}"[::-1], 2) if bits else 0 for lane in range(lanes)]
    return np.argsort(np.asarray(reverse), kind="stable")
