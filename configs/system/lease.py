"""One driver writes a bucket's folder at a time: OUT/.lock says which, and is written anew as long as it does.

It appears by a conditional PUT (If-None-Match), which one of two drivers wins. One that has not been written anew for a while is
of a driver that was killed, and is taken over; ages are told by the store's clock alone. Whoever finds another's name in it has
lost the folder, and stops. A store that knows no such condition, or refuses the object, is written without it.
"""

from __future__ import annotations

import _thread
import json
import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from stillreel.configs.errors import RequestError
from stillreel.configs.system.storage import Folder, check_bucket

RENEW_S, LAPSE_S = 20.0, 90.0
_LOCK = ".lock"
_log = logging.getLogger(__name__)


@contextmanager
def leased(folder: Folder) -> Iterator[None]:
    """Hold a bucket's folder for this process. RequestError, which names the holder, when another one has it."""
    check_bucket(folder)
    mine = {"host": socket.gethostname(), "process": os.getpid(), "token": uuid.uuid4().hex}
    try:
        if not _create(folder, mine):
            _take_over(folder, mine)
        _check_mine(folder, mine)
    except (OSError, TypeError, NotImplementedError) as error:
        _log.debug(f"{folder.url}/{_LOCK}: {error}; written without it")
        yield
        return
    done = threading.Event()
    keeper = threading.Thread(target=_keep, args=(folder, mine, done), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        with suppress(Exception):  # a bucket that is down: the lock lapses by itself
            if _holder(folder).get("token") == mine["token"]:
                folder.remove(_LOCK)


def _create(folder: Folder, mine: dict[str, Any]) -> bool:
    """Whether there was no lock, and now is this one."""
    try:
        folder.fs.pipe_file(folder.locate(_LOCK), json.dumps(mine).encode(), mode="create")
    except FileExistsError:
        return False
    return True


def _take_over(folder: Folder, mine: dict[str, Any]) -> None:
    """Put this lock in the place of one whose driver has ended. RequestError where it has not, as far as can be told."""
    held = _holder(folder)
    if held.get("token") == mine["token"]:
        return  # it was made by a request whose answer was lost, and which was sent again
    silent = _age(folder)
    if _is_alive(held) and silent < LAPSE_S:
        raise RequestError(
            f"OUT {folder.url}: another stillreel is writing it: process {held.get('process')} of {held.get('host')}, last heard "
            f"of {silent:.0f} s ago. If it was killed, this can go on in {LAPSE_S - silent:.0f} s"
        )
    with suppress(FileNotFoundError):
        folder.remove(_LOCK)
    if not _create(folder, mine):
        raise RequestError(f"OUT {folder.url}: another stillreel has begun to write it at this moment")


def _check_mine(folder: Folder, mine: dict[str, Any]) -> None:
    """RequestError where another has taken the lock meanwhile."""
    if _holder(folder).get("token") != mine["token"]:
        raise RequestError(f"OUT {folder.url}: another stillreel has begun to write it at this moment")


def _keep(folder: Folder, mine: dict[str, Any], done: threading.Event) -> None:
    """Write the lock anew until it is `done`; end the main thread's work, as SIGTERM does, when it is another's."""
    while not done.wait(RENEW_S):
        try:
            held = _holder(folder)
            if held.get("token", mine["token"]) != mine["token"]:
                _log.warning(
                    f"OUT {folder.url} is another stillreel's now: process {held.get('process')} of {held.get('host')}. This "
                    f"one was not heard of for {LAPSE_S:.0f} s or more, and stops"
                )
                _thread.interrupt_main(signal.SIGTERM)
                return
            folder.fs.pipe_file(folder.locate(_LOCK), json.dumps(mine).encode())
        except Exception as error:  # a network that is down for a moment: the next turn may do it
            _log.debug(f"{folder.url}/{_LOCK} is not renewed: {error}")


def _holder(folder: Folder) -> dict[str, Any]:
    """Who is named in the lock; nobody where there is none, or it cannot be read."""
    try:
        held = json.loads(folder.read(_LOCK))
    except (FileNotFoundError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _is_alive(held: dict[str, Any]) -> bool:
    """Whether a driver may be at work; it is known not to be where it was this machine's and its process is gone."""
    if held.get("host") != socket.gethostname() or not isinstance(held.get("process"), int):
        return True
    try:
        os.kill(held["process"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _age(folder: Folder) -> float:
    """Seconds since the lock was written, by the store's clock: that of an object that is written now."""
    probe = f"{_LOCK}.{uuid.uuid4().hex}"
    try:
        written = folder.fs.modified(folder.locate(_LOCK))
        folder.fs.pipe_file(folder.locate(probe), b"")
        now = folder.fs.modified(folder.locate(probe))
    except FileNotFoundError:
        return LAPSE_S  # it was given back meanwhile
    finally:
        with suppress(OSError):
            folder.remove(probe)
    return max(float((now - written).total_seconds()), 0.0)
