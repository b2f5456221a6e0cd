"""Figures of a running build for Prometheus: Ray's own, exported where the driver runs on Ray, by each node's metrics agent."""

from __future__ import annotations

import sys
from typing import Any

from stillreel.shards.format.receipt import Receipt

_SECONDS = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0]


class BuildMetrics:
    """What a driver has booked since it began, by the data set's name. Without Ray it keeps nothing."""

    def __init__(self, name: str) -> None:
        self._tags = {"data_set": name}
        self._instruments: dict[str, Any] = {}

    def open(self) -> None:
        """Ray has been started, if it is to be."""
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return
        from ray.util.metrics import Counter, Gauge, Histogram

        tags = ("data_set",)
        self._instruments = {
            "shards": Counter("stillreel_shards_finished", "Shards that were made", tags),
            "samples": Counter("stillreel_samples_written", "Samples that were written", tags),
            "rejects": Counter("stillreel_samples_rejected", "Samples that were rejected", (*tags, "reason")),
            "bytes": Counter("stillreel_bytes_written", "Bytes of shards' data files", tags),
            "failures": Counter("stillreel_attempts_failed", "Attempts at a shard that failed", tags),
            "left": Gauge("stillreel_shards_left", "Shards that are not finished yet", tags),
            "seconds": Histogram("stillreel_shard_seconds", "Seconds that making a shard took", _SECONDS, tags),
        }

    def shard(self, receipt: Receipt, left: int) -> None:
        """A shard is finished; `left` are not."""
        if not self._instruments:
            return
        counts = {"shards": 1, "samples": receipt.written, "bytes": receipt.bytes}
        for name, count in counts.items():
            if count:  # a counter of Ray's takes no zero
                self._instruments[name].inc(count, self._tags)
        for reason, count in receipt.rejected.items():
            self._instruments["rejects"].inc(count, {**self._tags, "reason": reason})
        self._instruments["left"].set(left, self._tags)
        self._instruments["seconds"].observe(receipt.seconds.get("total", 0), self._tags)

    def attempt_failed(self) -> None:
        if self._instruments:
            self._instruments["failures"].inc(1, self._tags)
