"""What can be wrong with what a stream reads, and how much of it is forgiven.

BadSample       one sample is damaged: its slot is filled by a stand-in (see fill_slots), it is counted and named
BadShard        a shard's index is missing, damaged, or of another count: all its samples are
StorageFailure  a disk or bucket did not answer after some tries. This says nothing about the data, so it is never
                forgiven: a run that went on would read other samples than one whose network was up
RequestError    wrong set-up: nothing that was asked for can be read as asked

Stand-ins. A slot whose sample is damaged gets what lies a stride of positions later; if that is damaged too, what lies as many
later again, and so on. All other slots keep theirs, and no layout of ranks and workers sees another stand-in than any other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from stillreel.configs import DataError
from stillreel.shards.stream.order import Ints

Answer = TypeVar("Answer")
Value = TypeVar("Value")

_log = logging.getLogger(__name__)

JUDGED_AFTER = 1000  # samples; a fraction of fewer would be an accident
_MOST_STAND_INS = 16
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_LAST_START_S = 120.0  # of an attempt: packages that know buckets try a dead one for minutes within each


class BadSample(DataError):
    """A sample that is not as it was written or cannot be decoded: in which file, its key (or number), and what is wrong."""

    def __init__(self, where: str, key: str, what: str) -> None:
        super().__init__(where, key, what)
        self.where, self.key, self.what = where, key, what

    def __str__(self) -> str:
        return f"{self.where}, {self.key}: {self.what}"


class BadShard(DataError):
    """A shard none of whose samples can be read: its file, and what is wrong."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where, what)
        self.where, self.what = where, what

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


Damage = BadSample | BadShard


class StorageFailure(DataError):
    """Storage that does not answer."""


class Budget:
    """How much damage is forgiven: a fraction of the samples read, judged over at least JUDGED_AFTER, and a run in a row."""

    def __init__(self, fraction: float, run: int) -> None:
        self._fraction = fraction
        self._most_in_a_row = run
        self.read = 0
        self.bad = 0
        self.run = 0

    def follow(self, whole: Sequence[bool]) -> None:
        """Keep the run of damaged samples: one more batch, in the order in which its slots were read."""
        for one in whole:
            self.run = 0 if one else self.run + 1
            if self.run > self._most_in_a_row:
                raise DataError(
                    f"stopped: {self.run} damaged samples in a row are more than max_bad_run={self._most_in_a_row}. Fix "
                    "the data (`stillreel verify` names what is wrong), or run again with a larger max_bad_run"
                )

    def count(self, read: int, bad: int) -> None:
        """`read` more samples, of all ranks, of which `bad` were damaged; DataError when these are too many."""
        self.read += read
        self.bad += bad
        if self.bad > self._fraction * max(self.read, JUDGED_AFTER):
            raise DataError(
                f"stopped: {self.bad:,} damaged of {self.read:,} samples are more than max_bad={self._fraction:g} allows. "
                "Fix the data (`stillreel verify` names what is wrong), or run again with a larger max_bad (1: no limit)"
            )


def fill_slots(
    positions: Ints, stride: int, read: Callable[[list[int], Ints], Iterable[Value | Damage]]
) -> list[tuple[Value, tuple[Damage, ...]]]:
    """What each position (n,) has, or its stand-in; and the damage that was passed over on the way.

    `read(slots, positions)` gives what some positions have, for the slots of those numbers. DataError when a slot has no whole
    stand-in either.
    """
    filled: dict[int, tuple[Value, tuple[Damage, ...]]] = {}
    passed: list[tuple[Damage, ...]] = [()] * len(positions)
    places = np.array(positions)
    for _ in range(1 + _MOST_STAND_INS):
        waiting = [slot for slot in range(len(positions)) if slot not in filled]
        if not waiting:
            return [filled[slot] for slot in range(len(positions))]
        for slot, value in zip(waiting, read(waiting, places[waiting]), strict=True):
            if isinstance(value, BadSample | BadShard):
                passed[slot] += (value,)
            else:
                filled[slot] = value, passed[slot]
        places[waiting] += stride
    lost = next(damage for slot, damage in enumerate(passed) if slot not in filled)
    raise DataError(f"{len(lost)} samples that were tried for one slot are damaged, the first of them {lost[0]}")


def patiently(what: str, attempts: int, call: Callable[[], Answer]) -> Answer:
    """The answer of storage to a call, tried `attempts` times with growing pauses, and not anew after two minutes; then
    StorageFailure.

    FileNotFoundError is an answer, and passes. Every store raises its own kinds of errors, so all others are tried again.
    """
    pause, start = _FIRST_PAUSE_S, time.monotonic()
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except (FileNotFoundError, MemoryError):
            raise
        except Exception as error:
            is_late = time.monotonic() - start > _LAST_START_S
            if attempt == attempts or is_late or isinstance(error, PermissionError):
                tries = f"{attempt} attempt{'s' if attempt > 1 else ''}"
                raise StorageFailure(f"{what}: no answer after {tries}: {type(error).__name__}: {error}") from None
            _log.debug(f"{what}: attempt {attempt} of {attempts} failed: {type(error).__name__}: {error}")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
    raise AssertionError(attempts)
