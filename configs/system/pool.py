"""Processes that share a command's work beside Ray's."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def process_pool(workers: int = 0) -> ProcessPoolExecutor:
    """A pool of `workers` processes (0: one a CPU), each with one thread of OpenCV's, which leave Ctrl-C to this one.

    They are spawned. A fork takes along locks of threads that it leaves behind, OpenCV's among them; and a signal that arrives
    while Python forks is lost, with logging's lock held for ever.
    """
    return ProcessPoolExecutor(workers or os.cpu_count() or 1, get_context("spawn"), initializer=_settle)


def _settle() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the first one stops the others
    import cv2  # here, since this room is imported where nobody looks at pixels

    cv2.setNumThreads(1)
