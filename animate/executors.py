"""Where shard tasks run: in this process, or on Ray. Ray is imported only here, and only when it is asked for."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, Self

from stillreel.animate.task import ShardTask, build_shard, check_libraries, library_versions
from stillreel.configs import RequestError
from stillreel.shards.format.receipt import Receipt

_CALLS_PER_WORKER = 64  # then a fresh process takes over, so that no leak of a decoder grows for days
_COUNT_CPUS_S = 10.0
_CONNECT_S = 10.0
_WARMED, _WARM_UP_S = 64, 60.0  # workers at most, seconds at most


class Outcome(NamedTuple):
    """What became of a task: a receipt, or why there is none."""

    task: ShardTask
    receipt: Receipt | None
    error: Exception | None


def check_worker(libraries: Mapping[str, str]) -> None:
    """Runs in a worker, which has then imported all that it needs. RequestError when its versions are not the driver's."""
    check_libraries(libraries)
    time.sleep(0.2)  # long enough for the next such task to go to another worker


class Executor(Protocol):
    """Runs up to `capacity` tasks at once. A context manager; leaving it stops what still runs."""

    @property
    def capacity(self) -> int: ...
    @property
    def busy(self) -> int: ...
    def submit(self, task: ShardTask) -> None: ...
    def wait(self, seconds: float) -> Outcome | None:
        """The next outcome, or None when none came within this time."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


class InProcess:
    """Runs a task when its outcome is waited for."""

    def __init__(self) -> None:
        self._waiting: deque[ShardTask] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.clear()

    @property
    def capacity(self) -> int:
        return 1

    @property
    def busy(self) -> int:
        return len(self._waiting)

    def submit(self, task: ShardTask) -> None:
        self._waiting.append(task)

    def wait(self, seconds: float) -> Outcome | None:
        task = self._waiting.popleft()
        try:
            return Outcome(task, build_shard(task), None)
        # As on Ray, whatever a task dies of is one failed attempt; the driver decides what it means.
        except Exception as error:
            return Outcome(task, None, error)


class OnRay:
    """Runs each task as a Ray task, on a private local Ray or on a cluster."""

    def __init__(self, address: str, workers: int) -> None:
        self._ray = _start_ray(address, workers)
        # On a private Ray the number of workers is its number of CPUs; on a cluster it is a bound of ours.
        self._bound = workers if address != "local" else 0
        self._cpus = 0
        self._counted = -math.inf
        self._warm_up()
        # Attempts are counted by the driver, so Ray must not retry on its own.
        self._remote = self._ray.remote(num_cpus=1, max_retries=0, max_calls=_CALLS_PER_WORKER)(build_shard)
        self._running: dict[Any, ShardTask] = {}

    def _warm_up(self) -> None:
        """Let each worker import what it needs, so that one that cannot is found out before any shard fails on it."""
        touch = self._ray.remote(num_cpus=1, max_retries=0)(check_worker)
        references = [touch.remote(library_versions()) for _ in range(min(self.capacity, _WARMED))]
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

    def __enter__(self) -> Self:
        return self

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

    @property
    def busy(self) -> int:
        return len(self._running)

    def submit(self, task: ShardTask) -> None:
        self._running[self._remote.remote(task)] = task

    def wait(self, seconds: float) -> Outcome | None:
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        if not ready:
            return None
        task = self._running.pop(ready[0])
        try:
            return Outcome(task, self._ray.get(ready[0]), None)
        except self._ray.exceptions.RayTaskError as error:
            return Outcome(task, None, error.cause if isinstance(error.cause, Exception) else error)
        except self._ray.exceptions.RayError as error:
            return Outcome(task, None, error)


def open_executor(ray: str, workers: int) -> Executor:
    """The executor that the settings `ray` and `workers` ask for."""
    if ray == "off":
        if workers > 1:
            raise RequestError(f"workers={workers} with ray=off: that is one process; leave one of the two out")
        return InProcess()
    return OnRay(ray, workers)


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
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RequestError(f"ray={address}: {error}") from None
    # Ray's own handler dies with a stack trace, before a driver can say what it has kept.
    signal.signal(signal.SIGTERM, on_terminate)
    return ray


def _check_reachable(address: str) -> None:
    """RequestError when nobody listens at HOST:PORT; Ray itself would go on asking for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # `auto` and other names: Ray knows at once
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise RequestError(f"ray={address}: no Ray cluster answers there: {error}") from None
