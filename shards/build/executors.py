"""Where shards are made: in this process or in processes beside it; on Ray, in `cluster`."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

from stillreel.configs.build import TaskSettings
from stillreel.configs.system.pool import ending, exit_code_of, process_pool, stop_pool
from stillreel.configs.system.storage import Folder, writing
from stillreel.shards.build.hosts import Proof
from stillreel.shards.build.libraries import check_libraries
from stillreel.shards.format.footer import GroupAt
from stillreel.shards.format.plan import Plan, open_plan


@dataclass(frozen=True)
class ShardTask:
    """One shard to be made, and all that a worker is told of it: it reads the rest from the plan. `max_rejected` is a count for
    the whole build; `job` is what the function that makes the shard needs besides, small and picklable. `isolated`: a worker
    died of this shard, so one of its samples may be what ends processes (see `Isolated`). `rows` say where its rows lie in the
    plan; without them the whole footer of the plan is read."""

    out: str
    plan: int
    plan_digest: str
    shard: int
    attempt: int
    max_rejected: int
    job: Any = None
    isolated: bool = False
    rows: GroupAt | None = None

    def open_plan(self) -> Plan:
        """Its plan. RequestError when the libraries here are not the plan's."""
        with writing(self.out):
            plan = open_plan(Folder(self.out), self.plan, self.plan_digest, self.rows)
        check_libraries(plan.header.libraries)
        return plan


# Of a module, so that it can be sent to other processes. Returns a receipt, or whatever its caller waits for, but not None.
MakeShard = Callable[[ShardTask], Any]


# What a task whose host has ended had finished before, unheard; None where it has to be run again.
Finished = Callable[[ShardTask], Any]


def nothing_finished(_task: ShardTask) -> None:
    return None


class Outcome(NamedTuple):
    """What became of a task, and on which host (empty where that is not known): what was returned (of a build, a receipt), or
    why there is nothing; `died`: its worker did."""

    task: ShardTask
    receipt: Any
    error: BaseException | None
    died: bool = False
    host: str = ""


class Executor(Protocol):
    """Makes up to `capacity` shards at once. A context manager; leaving it stops what still runs."""

    _running: Sized

    @property
    def capacity(self) -> int: ...

    @property
    def busy(self) -> int:
        return len(self._running)

    def submit(self, task: ShardTask) -> None: ...

    def wait(self, seconds: float) -> Outcome | None:
        """The next outcome, or None when none came within this time."""

    def whereabouts(self, plan: int, shard: int) -> str:
        """Where a shard is at work, in words."""

    def left_out(self) -> Mapping[str, str]:
        """Hosts that get no more work, and why."""
        return {}

    @property
    def has_gpus(self) -> bool:
        """Whether a host has a GPU, as far as Ray is told."""
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def open_executor(
    make_shard: MakeShard,
    ray: str,
    workers: int,
    proof: Proof,
    need: TaskSettings | None = None,
    finished: Finished = nothing_finished,
) -> Executor:
    """The executor that the settings `ray`, `workers` and `task` ask for. RequestError when no worker of it could work."""
    if ray == "inline":
        return InProcess(make_shard)
    if ray == "off":  # one worker is a process, too: a driver must not die of a picture
        return InPool(make_shard, max(workers, 1))
    from stillreel.shards.build.cluster import OnRay

    return OnRay(make_shard, ray, workers, proof, need or TaskSettings(), finished)


class InProcess(Executor):
    """Makes a shard when its outcome is waited for; what ends a worker ends this process."""

    capacity = 1

    def __init__(self, make_shard: MakeShard) -> None:
        self._make_shard = make_shard
        self._running: deque[ShardTask] = deque()

    def __exit__(self, *_: object) -> None:
        self._running.clear()

    def submit(self, task: ShardTask) -> None:
        self._running.append(task)

    def wait(self, seconds: float) -> Outcome | None:
        task = self._running.popleft()
        try:
            return Outcome(task, self._make_shard(task), None, host=socket.gethostname())
        # As in a worker, whatever a task dies of is one failed attempt; the driver decides what it means.
        except Exception as error:
            return Outcome(task, None, error, host=socket.gethostname())

    def whereabouts(self, plan: int, shard: int) -> str:
        return _in_this_process()


class InPool(Executor):
    """Makes shards in `workers` processes. Each is a pool of its own, so one that dies takes no other's shard along."""

    def __init__(self, make_shard: MakeShard, workers: int) -> None:
        self._make_shard = make_shard
        self._workers = workers
        self._idle: list[ProcessPoolExecutor] = []
        self._running: dict[Future[Any], tuple[ProcessPoolExecutor, ShardTask]] = {}

    def __exit__(self, *_: object) -> None:
        for pool in (*self._idle, *(pool for pool, _ in self._running.values())):
            stop_pool(pool)

    @property
    def capacity(self) -> int:
        return self._workers

    def submit(self, task: ShardTask) -> None:
        pool = self._idle.pop() if self._idle else process_pool(1)
        try:
            future = pool.submit(self._make_shard, task)
        except BrokenProcessPool:  # it died while it had nothing to do
            pool = process_pool(1)
            future = pool.submit(self._make_shard, task)
        self._running[future] = pool, task

    def wait(self, seconds: float) -> Outcome | None:
        done, _ = wait_for(self._running, timeout=seconds, return_when=FIRST_COMPLETED)
        if not done:
            return None
        future = done.pop()
        pool, task = self._running.pop(future)
        error = future.exception()
        host = socket.gethostname()
        if isinstance(error, BrokenProcessPool):
            error = BrokenProcessPool(f"its worker {ending(exit_code_of(pool))}")
            return Outcome(task, None, error, died=True, host=host)
        self._idle.append(pool)
        return Outcome(task, None if error else future.result(), error, host=host)

    def whereabouts(self, plan: int, shard: int) -> str:
        pool = next(pool for pool, task in self._running.values() if (task.plan, task.shard) == (plan, shard))
        return f"in process {', '.join(map(str, pool._processes))} of {socket.gethostname()}"


def _in_this_process() -> str:
    return f"in process {os.getpid()} of {socket.gethostname()}"
