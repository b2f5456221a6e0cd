"""When the frames of a video are shown."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Span(NamedTuple):
    """A part of a video, in seconds of its own clock; it holds the frames that start in [start, end)."""

    start: float
    end: float


class Timeline(NamedTuple):
    """`times` float64 (n,), n >= 1: when each frame is first shown, in seconds, ascending; 0 is where a player begins, so that
    the first frame need not be at 0. `rate`: frames a second that the file declares, positive. `end`: when the last frame goes.
    """

    times: NDArray[np.float64]
    rate: float
    end: float

    @property
    def frames(self) -> int:
        return len(self.times)

    def shown_at(self, instants: NDArray[np.float64]) -> NDArray[np.int64]:
        """The frame on screen at each instant: the last one to start by then, or the first. Containers round times to
        milliseconds and worse, so a frame that is due within half an interval counts as started."""
        started = np.searchsorted(self.times, instants + 0.5 / self.rate, side="right")
        return np.maximum(started - 1, 0)

    def within(self, span: Span | None) -> NDArray[np.int64]:
        """Numbers of the frames of a span (None: all), half an interval forgiven as in `shown_at`."""
        if span is None:
            return np.arange(self.frames)
        slack = 0.5 / self.rate
        return np.flatnonzero((self.times >= span.start - slack) & (self.times < span.end - slack))
