"""Where shards are made: in this process, in processes beside it, or on Ray. Ray is imported only here, and only when it is
asked for."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

from stillreel.configs import RequestError
from stillreel.configs.system.pool import ending, exit_code_of, process_pool, stop_pool
from stillreel.configs.system.storage import Folder, writing
from stillreel.shards.build.libraries import check_libraries
from stillreel.shards.format.footer import GroupAt
from stillreel.shards.format.plan import Plan, open_plan
from stillreel.shards.format.receipt import Receipt

_CALLS_PER_WORKER = 64  # then a fresh process takes over, so that no leak of a decoder grows for days
_COUNT_CPUS_S = 10.0
_CONNECT_S = 10.0
_BOARD = "stillreel"  # name space of notes in Ray's key-value store
_WARMED, _WARM_UP_S = 64, 60.0  # workers at most, seconds at most


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


MakeShard = Callable[[ShardTask], Receipt]  # of a module, so that it can be sent to other processes


class Outcome(NamedTuple):
    """What became of a task, and on which host (empty where that is not known): a receipt, or why there is none; `died`: its
    worker did."""

    task: ShardTask
    receipt: Receipt | None
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def open_executor(make_shard: MakeShard, ray: str, workers: int, libraries: Mapping[str, str]) -> Executor:
    """The executor that the settings `ray` and `workers` ask for. RequestError when no worker of it could work."""
    if ray == "inline":
        return InProcess(make_shard)
    # One worker is a process, too: a driver must not die of a picture.
    return InPool(make_shard, max(workers, 1)) if ray == "off" else OnRay(make_shard, ray, workers, libraries)


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
        self._running: dict[Future[Receipt], tuple[ProcessPoolExecutor, ShardTask]] = {}

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


class OnRay(Executor):
    """Makes each shard in a Ray task, on a private local Ray or on a cluster."""

    def __init__(self, make_shard: MakeShard, address: str, workers: int, libraries: Mapping[str, str]) -> None:
        self._ray = _start_ray(address, workers)
        # On a private Ray the number of workers is its number of CPUs; on a cluster it is a bound of ours.
        self._bound = workers if address != "local" else 0
        self._cpus = 0
        self._counted = -math.inf
        self._warm_up(make_shard, libraries)
        # Attempts are counted by the driver, so Ray must not retry on its own.
        self._remote = self._ray.remote(num_cpus=1, max_retries=0, max_calls=_CALLS_PER_WORKER)(make_announced)
        self._make_shard = make_shard
        self._running: dict[Any, ShardTask] = {}

    def _warm_up(self, make_shard: MakeShard, libraries: Mapping[str, str]) -> None:
        """Let each worker import what it needs, so that one that cannot is found out before any shard fails on it."""
        touch = self._ray.remote(num_cpus=1, max_retries=0)(check_worker)
        references = [touch.remote(make_shard, libraries) for _ in range(min(self.capacity, _WARMED))]
        ready, _ = self._ray.wait(references, num_returns=len(references), timeout=_WARM_UP_S)
        try:
            self._ray.get(ready)
        except self._ray.exceptions.RayTaskError as error:
            self._ray.shutdown()
            if isinstance(error.cause, RequestError):
                raise error.cause from None
            raise RequestError(
                f"Ray's workers cannot run stillreel; install it on every node: {error.cause or error}"
            ) from None

    def __exit__(self, *_: object) -> None:
        # Ray ends the workers of a driver that leaves. Cancelling their tasks first would be a race: one that completes
        # meanwhile fails a check in Ray's core, which takes the driver down with it.
        self._ray.shutdown()

    @property
    def capacity(self) -> int:
        """One task more than can run keeps a worker from waiting for the driver. A cluster may grow meanwhile."""
        if self._bound:
            return self._bound
        if time.monotonic() - self._counted > _COUNT_CPUS_S:
            self._counted = time.monotonic()
            self._cpus = int(self._ray.cluster_resources().get("CPU", 0))
        return self._cpus + 1

    def submit(self, task: ShardTask) -> None:
        self._running[self._remote.remote(self._make_shard, task)] = task

    def wait(self, seconds: float) -> Outcome | None:
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        if not ready:
            return None
        task = self._running.pop(ready[0])
        try:
            receipt, host = self._ray.get(ready[0])
            return Outcome(task, receipt, None, host=host)
        except self._ray.exceptions.RayTaskError as error:
            return Outcome(task, None, error.cause if isinstance(error.cause, Exception) else error, host=error.ip)
        except self._ray.exceptions.RayError as error:
            return Outcome(task, None, error, died=isinstance(error, self._ray.exceptions.WorkerCrashedError))

    def whereabouts(self, plan: int, shard: int) -> str:
        from ray.experimental.internal_kv import _internal_kv_get

        out = next(task.out for task in self._running.values() if (task.plan, task.shard) == (plan, shard))
        told = _internal_kv_get(_board(out, plan, shard), namespace=_BOARD)
        return told.decode() if told else "waiting for a worker"


def make_announced(make_shard: MakeShard, task: ShardTask) -> tuple[Receipt, str]:
    """Runs in a worker of Ray's; says where that is: while it does, on the cluster's board, and then beside the receipt."""
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

    key = _board(task.out, task.plan, task.shard)
    _internal_kv_put(key, _in_this_process(), namespace=_BOARD)
    try:
        return make_shard(task), socket.gethostname()
    finally:
        _internal_kv_del(key, namespace=_BOARD)


def _board(out: str, plan: int, shard: int) -> str:
    return f"{out} {plan} {shard}"


def _in_this_process() -> str:
    return f"in process {os.getpid()} of {socket.gethostname()}"


def check_worker(make_shard: MakeShard, libraries: Mapping[str, str]) -> None:
    """Runs in a worker, which has then imported all that `make_shard` needs. RequestError when its versions are others."""
    check_libraries(libraries)
    time.sleep(0.2)  # long enough for the next such task to go to another worker


def _start_ray(address: str, workers: int) -> Any:
    # A data tool does not phone home; without these Ray probes an outside address, and talks about accelerators.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import ray
    except ImportError:
        raise RequestError('Ray is not installed: pip install "stillreel[build]", or run with ray=off') from None
    if address != "local":
        _check_reachable(address)
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        if address == "local":
            with _on_loopback(ray):
                ray.init(
                    "local",
                    num_cpus=workers or os.cpu_count(),
                    object_store_memory=80 << 20,  # tasks exchange receipts, nothing more
                    include_dashboard=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    _node_ip_address="127.0.0.1",
                )
        else:
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # among Ray's own kinds is this plain one, of a machine too busy to start it in time
        raise RequestError(f"ray={address}: {error}") from None
    # Ray's own handler dies with a stack trace, before a driver can say what it has kept.
    signal.signal(signal.SIGTERM, on_terminate)
    return ray


@contextmanager
def _on_loopback(ray: Any) -> Iterator[None]:
    """What Ray starts within it keeps to itself. Else Ray takes 127.0.0.1 for the address that others see, and its server for
    pages asks the network whose cloud this is, even where neither pages nor reports of usage are wanted."""
    constants, services = ray._private.ray_constants, ray._private.services
    before = constants.ENABLE_RAY_CLUSTER, services.start_api_server
    constants.ENABLE_RAY_CLUSTER, services.start_api_server = False, lambda *_, **__: (None, None)
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for those that are started
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER, services.start_api_server = before
        del os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]


def _check_reachable(address: str) -> None:
    """RequestError when nobody listens at HOST:PORT; Ray itself would go on asking for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # `auto` and other names: Ray knows at once
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise RequestError(f"ray={address}: no Ray cluster answers there: {error}") from None
