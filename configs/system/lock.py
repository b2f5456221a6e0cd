"""One driver writes a folder at a time, as far as its file system, or its bucket, can tell."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillreel.configs import RequestError
from stillreel.configs.system.lease import leased
from stillreel.configs.system.storage import Folder


@contextmanager
def sole_writer(folder: Folder) -> Iterator[None]:
    """Hold OUT for this process; RequestError when another one has it, or when it cannot be written.

    A bucket's is held by a lease (see lease.py). Nothing can be said of a file system without locks.
    """
    if not folder.is_local:
        with leased(folder):
            yield
        return
    try:
        Path(folder.path).mkdir(parents=True, exist_ok=True)
        lock = open(folder.locate(".lock"), "w")  # noqa: SIM115
    except OSError as error:
        raise RequestError(f"OUT {folder.url} cannot be written: {error.strerror}") from None
    with lock as file:
        try:
            # Not flock: forked workers would inherit it, and hold OUT for seconds after a kill of this process.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise RequestError(f"OUT {folder.url}: another stillreel is writing it") from None
        except OSError:
            pass
        yield
