"""Ctrl-C and SIGTERM, for commands that keep what is finished."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from stillreel.configs import Interrupted


@contextmanager
def stoppable(what_is_kept: str) -> Iterator[None]:
    """Turn Ctrl-C (exit 130) and SIGTERM (exit 75) into Interrupted, which says what is kept and what to do."""

    terminated = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal terminated
        terminated = True  # not told by the exception: Ray may catch it and raise a plain one
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {what_is_kept}", 75 if terminated else 130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
