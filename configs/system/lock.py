"""One driver writes a folder at a time, as far as its file system can tell."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from stillreel.configs import RequestError
from stillreel.configs.system.storage import Folder


@contextmanager
def sole_writer(folder: Folder) -> Iterator[None]:
    """Hold OUT for this driver, as far as the file system can tell; RequestError when another one has it."""
    if not folder.is_local:
        yield
        return
    Path(folder.path).mkdir(parents=True, exist_ok=True)
    with open(folder.locate(".lock"), "w") as file:
        if not _lock(file):
            raise RequestError(f"OUT {folder.url}: another stillreel is building it")
        yield


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: nothing can be said
    return True
