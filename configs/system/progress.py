"""How far long work is: a live bar on a terminal, a line of the log now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Literal, Self

from tqdm import tqdm

Mode = Literal["auto", "bar", "lines", "off"]
_log = logging.getLogger(__name__)
_FIRST_LINE_S, _LINE_S = 2.0, 15.0


class Progress:
    """Counts units of work done out of `total`; `note` is shown beside the count. A bar is on stderr."""

    def __init__(self, total: int, unit: str, mode: Mode) -> None:
        self._total = total
        self._unit = unit
        self._mode = ("bar" if sys.stderr.isatty() else "lines") if mode == "auto" else mode
        self._done = self._skipped = 0
        self._note = ""
        self._start = time.monotonic()
        self._next_line = self._start + _FIRST_LINE_S
        self._bar = (
            tqdm(total=total, unit=f" {unit}", dynamic_ncols=True, smoothing=0.05) if self._mode == "bar" else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._mode == "lines" and self._done:
            self._line()

    def skip(self, count: int) -> None:
        """`count` units were done before; they do not count towards the rate."""
        self._skipped = self._done = count
        if self._bar is not None:
            self._bar.initial = self._bar.n = count
            self._bar.refresh()

    def advance(self, count: int, note: str = "") -> None:
        """`count` more units are done."""
        self._done += count
        self._note = note or self._note
        if self._bar is not None:
            self._bar.set_postfix_str(self._note, refresh=False)
            self._bar.update(count)
        else:
            self.beat()

    def beat(self) -> None:
        """Nothing new, but time has passed: keeps the clock of a bar going, and the lines of a log."""
        if self._bar is not None:
            self._bar.refresh()
        elif self._mode == "lines" and time.monotonic() >= self._next_line:
            self._line()
            self._next_line = time.monotonic() + _LINE_S

    def _line(self) -> None:
        spent = time.monotonic() - self._start
        rate = (self._done - self._skipped) / spent
        left = f", {duration((self._total - self._done) / rate)} left" if rate and self._done < self._total else ""
        note = f", {self._note}" if self._note else ""
        _log.info(f"{self._done:,}/{self._total:,} {self._unit}, {rate:,.1f}/s{left}{note}")


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def amount(size: float) -> str:
    """Bytes in words: `830 B`, `1.2 MB`, `41 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def tally(counts: Mapping[str, int]) -> str:
    """Counts in words, largest first: `corrupt 3, truncated 1`."""
    return ", ".join(
        f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
