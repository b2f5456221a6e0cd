"""A shard whose worker died is made sample by sample in a process beside the worker, which may die in its place.

A sample is found guilty only after it has ended two fresh processes that did nothing else, by a signal of its own making or
by CPU time. Whatever else ends them (SIGKILL: no memory left, or a hand) is the machine's fault, and says nothing of the sample.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, Self, TypeVar

from stillreel.configs.system.pool import ending, exit_code_of, process_pool, stop_pool
from stillreel.shards.format.record import Rejection

T = TypeVar("T")

GUILTY = frozenset({"crashed", "timed_out"})  # reasons of rejects that are found here
_OWN_MAKING = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT, signal.SIGILL)
_TRIES_ALONE = 2
_function: Callable[..., Any]  # in the process: what it was prepared for


class Isolated(Generic[T]):
    """Calls a function, once a sample, in a process of its own: the one that `prepare` returns there. What travels is picklable.
    `cpu_seconds` is the limit that the function sets itself, by `cpu_limit`, if it does. A context manager."""

    def __init__(self, prepare: Callable[[], Callable[..., T]], cpu_seconds: float) -> None:
        self._prepare = prepare
        self._cpu_seconds = cpu_seconds
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            stop_pool(self._pool)

    def __call__(self, *arguments: object) -> T:
        """What the function returns or raises. Rejection `crashed` or `timed_out` of a sample that is guilty; ChildProcessError
        when the process has ended of anything else."""
        ended_alone = 0
        while True:
            alone = self._pool is None  # else it may have died of what samples before have left in it
            try:
                made: T = self._ask(_call, *arguments)
                return made
            except Rejection:
                ended_alone += alone
                if ended_alone == _TRIES_ALONE:
                    raise

    def _ask(self, what: Callable[..., Any], *arguments: object) -> Any:
        if self._pool is None:
            self._pool = process_pool(1)
            # First without a sample: a library that does not even load here is no sample's fault.
            try:
                self._ask(_begin, self._prepare)
            except Rejection as death:
                raise ChildProcessError(f"no sample was tried yet: {death.detail}") from None
        pool = self._pool
        try:
            return pool.submit(what, *arguments).result()
        except BrokenProcessPool:
            self._pool = None
            raise self._verdict(exit_code_of(pool)) from None

    def _verdict(self, code: int | None) -> Exception:
        if code == -signal.SIGPROF:  # of `cpu_limit`
            return Rejection("timed_out", f"decoding it takes over {self._cpu_seconds:g} CPU seconds")
        if code in {-number for number in _OWN_MAKING}:
            return Rejection("crashed", f"the process that decodes it {ending(code)}, each time")
        return ChildProcessError(
            f"the process that makes its samples {ending(code)}: no sample's doing. Is memory short?"
        )


def _begin(prepare: Callable[[], Callable[..., Any]]) -> None:
    global _function
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it is there to crash
    _function = prepare()


def _call(*arguments: object) -> Any:
    return _function(*arguments)
