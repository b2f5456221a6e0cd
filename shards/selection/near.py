"""Pairs of 64-bit hashes that differ in few bits, and who survives among them.

Two hashes that differ in at most d bits differ in at most d // 4 bits of one of four bands of 16 bits. So each hash is compared
with those alone whose band has its value, or one within d // 4 bits of it: of a million hashes, with fifteen a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

_BANDS, _BITS = 4, 16
_PAIRS = 1 << 21  # that are compared at once: 32 bytes each


def survivors(hashes: Hashes, rank: Ints, distance: int) -> NDArray[np.bool_]:
    """Which of some rows (n,) survive: by rank (n,), least first, each of which no survivor before it is within `distance` bits.

    So no two survivors are near each other, every other row has a survivor near it, and neither depends on the order of the rows;
    ranks must differ.
    """
    order = np.argsort(rank)
    _, first = np.unique(hashes[order], return_index=True)
    # From here on a vertex is a hash, numbered by its best row: in the order in which it is judged.
    judged = np.sort(first)
    distinct = hashes[order][judged]
    stays = np.ones(len(distinct), np.bool_)
    pairs = [np.sort(np.stack(pair), axis=0) for pair in near_pairs(distinct, distance)]
    early, late = np.concatenate(pairs, axis=1) if pairs else np.empty((2, 0), np.int64)
    by_early = np.argsort(early, kind="stable")
    early, late = early[by_early], late[by_early]
    starts = np.searchsorted(early, np.arange(len(distinct) + 1))
    for vertex in np.unique(early).tolist():
        if stays[vertex]:
            stays[late[starts[vertex] : starts[vertex + 1]]] = False
    survived = np.zeros(len(hashes), np.bool_)
    survived[order[judged[stays]]] = True
    return survived


def near_pairs(hashes: Hashes, distance: int) -> Iterator[tuple[Ints, Ints]]:
    """Pairs (a, b) of rows, a != b, whose hashes differ in at most `distance` bits, in pieces; a pair may come more than once."""
    masks = [
        sum(1 << bit for bit in chosen)
        for count in range(distance // _BANDS + 1)
        for chosen in combinations(range(_BITS), count)
    ]
    for band in range(_BANDS):
        values = _band(hashes, band)
        order = np.argsort(values, kind="stable")
        sorted_values, sorted_hashes = values[order], hashes[order]
        starts = np.searchsorted(sorted_values, np.arange((1 << _BITS) + 1))
        for mask in masks:
            for a, b in _candidates(sorted_values, starts, mask):
                near = _count_bits(sorted_hashes[a] ^ sorted_hashes[b]) <= distance
                if near.any():
                    yield order[a[near]], order[b[near]]


def _count_in_pieces(words: Hashes) -> Hashes:
    """Bits that are set in each word (n,): of pairs of bits, then of fours, then of bytes, which a product adds up."""
    pairs = words - ((words >> np.uint64(1)) & np.uint64(0x5555555555555555))
    fours = (pairs & np.uint64(0x3333333333333333)) + ((pairs >> np.uint64(2)) & np.uint64(0x3333333333333333))
    octets = (fours + (fours >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    counts: Hashes = (octets * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return counts


_count_bits = getattr(np, "bitwise_count", _count_in_pieces)  # numpy 1 has none


def _band(hashes: Hashes, band: int) -> Ints:
    """Every fourth bit: neighbors, frequencies that go together in pictures, lie in other bands."""
    values = np.zeros(len(hashes), np.int64)
    for bit in range(_BITS):
        values |= ((hashes >> np.uint64(_BANDS * bit + band)) & np.uint64(1)).astype(np.int64) << bit
    return values


def _candidates(values: Ints, starts: Ints, mask: int) -> Iterator[tuple[Any, Any]]:
    """Pairs of rows, sorted by value, whose values differ by just this mask, each once; about _PAIRS at a time."""
    rows = np.arange(len(values))
    others = values ^ mask
    low = starts[others] if mask else rows + 1
    counts = np.where(others < values, 0, starts[others + 1] - low)
    ends = np.cumsum(counts)
    at, total = 0, int(ends[-1]) if len(ends) else 0
    while at < len(values) and (done := int(ends[at - 1]) if at else 0) < total:
        to = max(at + 1, int(np.searchsorted(ends, done + _PAIRS, side="right")))
        here = counts[at:to]
        a = np.repeat(rows[at:to], here)
        b = np.arange(len(a)) - np.repeat(ends[at:to] - here - done, here) + np.repeat(low[at:to], here)
        yield a, b
        at = to
