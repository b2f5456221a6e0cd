"""Ctrl-C and SIGTERM, for commands that keep what is finished."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from configs import Interrupted


@contextmanager
def stoppable(what_is_kept: str) -> Iterator[None]:
    """Turn Ctrl-C (exit 130) and SIGTERM (exit 75) into Interrupted, which says what is kept and what to do."""

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        terminated = interrupt.args == (signal.SIGTERM,)
        raise Interrupted(f"stopped; {what_is_kept}", 75 if terminated else 130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
