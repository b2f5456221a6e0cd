"""The one handler of the log: what libraries tell on the way, as bare lines on stderr. Only the command line puts it up."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
_LEVEL = "STILLREEL_LOG"


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Within it, all that `stillreel` logs from the level STILLREEL_LOG on (debug, info or warning; info where it is not set)."""
    asked = os.environ.get(_LEVEL, "").strip().lower() or "info"
    log, handler = logging.getLogger("stillreel"), _Lines()
    handler.setFormatter(_Plain())
    level, propagate = log.level, log.propagate
    log.setLevel(LEVELS.get(asked, logging.INFO))
    log.addHandler(handler)
    log.propagate = False  # a library that sets up the root's log would say each line again
    if asked not in LEVELS:
        log.warning(f"{_LEVEL}={asked} is no level of the log; expected {', '.join(LEVELS)}; info is used")
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


class _Lines(logging.Handler):
    """Lines above whatever bar is live, on what stderr is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class _Plain(logging.Formatter):
    """The bare message; WARNING and above by name."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname}: {text}" if record.levelno >= logging.WARNING else text
