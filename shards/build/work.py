"""Work that is no build, on the executors that make shards: its tasks have attempts, and hosts that end or are ill, as shards do.

Whoever hands it in keeps its own books: there is no plan to follow and no manifest to write.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from stillreel.configs import DataError, RequestError, StorageRefused
from stillreel.shards.build.executors import Executor, Outcome, ShardTask
from stillreel.shards.build.journal import one_line

ATTEMPTS = 3  # of a task whose worker fails
_BEAT_S = 1.0

_log = logging.getLogger(__name__)


class Doubtful(DataError):
    """What a task has found, if its host is believed: raised there, so that it shows first that it sees what the driver sees."""

    def __init__(self, found: Any) -> None:
        super().__init__(found)
        self.found = found


def work_off(
    executor: Executor,
    tasks: Iterable[ShardTask],
    name: Callable[[ShardTask], str],
    beat: Callable[[], None] = lambda: None,
) -> Iterator[Outcome]:
    """What became of each task, as they end: what it returned or found, or why the last attempt failed, which was told. `name` is
    what a task is called; `beat` is called once a second or oftener."""
    coming, again = iter(tasks), deque[ShardTask]()
    while True:
        while executor.busy < executor.capacity and (task := again.popleft() if again else next(coming, None)):
            executor.submit(task)
        if not executor.busy:
            return
        outcome = executor.wait(_BEAT_S)
        beat()
        if outcome is None:
            continue
        error, task = outcome.error, outcome.task
        if error is None or isinstance(error, Doubtful):
            yield outcome if error is None else outcome._replace(receipt=error.found, error=None)
            continue
        if isinstance(error, (RequestError, StorageRefused)):
            raise error
        where = f", on {outcome.host}" if outcome.host else ""
        _log.warning(f"{name(task)}: attempt {task.attempt} of {ATTEMPTS} failed: {one_line(error)}{where}")
        if task.attempt < ATTEMPTS:
            again.append(replace(task, attempt=task.attempt + 1))
        else:
            yield outcome
