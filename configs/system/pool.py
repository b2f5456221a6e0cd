"""Processes that share a command's work beside Ray's, and what they may end of."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

from stillreel.configs import RequestError

Item = TypeVar("Item")
Result = TypeVar("Result")


def require_ray(ray: str) -> None:
    """RequestError when the setting `ray` asks for Ray and it is not installed: said before anything is planned or made."""
    if ray not in ("off", "inline") and find_spec("ray") is None:
        raise RequestError('Ray is not installed: pip install "stillreel[build]", or run with ray=off')


def process_pool(workers: int = 0) -> ProcessPoolExecutor:
    """A pool of `workers` processes (0: one a CPU), each with one thread of OpenCV's, which leave Ctrl-C to this one.

    They are spawned. A fork takes along locks of threads that it leaves behind, OpenCV's among them; and a signal that arrives
    while Python forks is lost, with logging's lock held for ever.
    """
    return ProcessPoolExecutor(workers or os.cpu_count() or 1, get_context("spawn"), initializer=_begin_worker)


def in_order(pool: ProcessPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`pool.map` without chunks, of which nothing is cancelled when whoever takes the results is interrupted: a pool whose
    processes were ended, too, says of cancelled ones that their state is invalid, in a traceback."""
    futures = deque(pool.submit(work, item) for item in items)
    try:
        while futures:
            yield futures.popleft().result()
    except BaseException:
        stop_pool(pool)
        raise


def stop_pool(pool: ProcessPoolExecutor, patience_s: float = 10.0) -> None:
    """End a pool and whatever its processes are at; those that have their own way with SIGTERM, as training which saves, have so
    many seconds for it. (Python 3.14's `terminate_workers` waits for these for ever.)"""
    processes = {process.sentinel: process for process in (pool._processes or {}).values()}
    for process in processes.values():
        process.terminate()
    end = time.monotonic() + patience_s
    while processes and (ended := wait(list(processes), max(end - time.monotonic(), 0.0))):
        for sentinel in ended:
            del processes[sentinel]  # type: ignore[arg-type]
    for process in processes.values():
        process.kill()
    pool.shutdown(cancel_futures=True)


def exit_code_of(pool: ProcessPoolExecutor) -> int | None:
    """How the process of a pool of one, which is broken, has ended: -N by signal N; None where nobody knows."""
    (process,) = pool._processes.values()
    pool.shutdown()
    return process.exitcode


def ending(code: int | None) -> str:
    """An exit code in words: `was ended by SIGSEGV`, `ended with 3`."""
    if code is None or code >= 0:
        return f"ended with {'an unknown code' if code is None else code}"
    known = code in {-one for one in signal.Signals}
    over = ", over its limit of CPU time" if code == -signal.SIGPROF else ""
    return f"was ended by {signal.Signals(-code).name if known else f'signal {-code}'}{over}"


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Ends this process by SIGPROF when what is within takes more CPU seconds, of all threads, than this: a decoder that
    goes round in C hears nothing else, and time on the clock would be another program's fault."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the first one stops the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import cv2  # here, since this room is imported where nobody looks at pixels

    cv2.setNumThreads(1)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
