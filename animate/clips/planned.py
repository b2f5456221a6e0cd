"""What plans hold of each sample, to be asked by millions of others: two digests a sample, and no more, are kept in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from stillreel.shards.format.plan import Listed, PlannedSample


class PlannedCaptions:
    """The captions that samples were planned with, 40 bytes a sample."""

    def __init__(self, planned: Iterable[PlannedSample]) -> None:
        digests = bytearray()
        for one in planned:
            digests += _digest(one.source, one.source_key) + _digest(*one.captions)
        table = np.frombuffer(digests, ">u8").reshape(-1, 4)
        self._order = np.lexsort((table[:, 1], table[:, 0]))
        self._first = table[:, 0][self._order].astype(np.uint64)  # of each sample's own digest, the first half
        self._digests = digests

    def same(self, listed: Listed) -> bool | None:
        """Whether a sample was planned with these captions; None where it was not planned. One that was planned without captions
        may have some now: it was rejected, and extend=rejects tries it again. Of one that is planned twice, the later counts."""
        key = _digest(listed.source, listed.source_key)
        at = int(np.searchsorted(self._first, np.uint64(int.from_bytes(key[:8], "big"))))
        found = None
        while at < len(self._order):
            start = 32 * int(self._order[at])
            if self._digests[start : start + 8] != key[:8]:
                break
            if self._digests[start + 8 : start + 16] == key[8:]:
                found = self._digests[start + 16 : start + 32]
            at += 1
        return None if found is None else bytes(found) in (_UNSPOKEN, _digest(*listed.captions))


def _digest(*texts: str) -> bytes:
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


_UNSPOKEN = _digest()
