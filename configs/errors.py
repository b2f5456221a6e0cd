"""The errors that reach a user, and the exit code each one means."""

from __future__ import annotations


class StillreelError(Exception):
    """Something a user must know; printed as one message, never as a traceback."""

    exit_code = 1


class DataError(StillreelError):
    """The command ran, and something is wrong with the data or the result (exit 1)."""


class StorageRefused(StillreelError):
    """A place that is written to is full, over its quota, read-only or forbidden: no retry will mend that."""


class RequestError(StillreelError):
    """The command was asked for something that cannot be: a bad setting, a missing source (exit 2)."""

    exit_code = 2


class Interrupted(StillreelError):
    """Stopped by a signal with finished work kept (exit 130 on Ctrl-C, 75 on SIGTERM)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
