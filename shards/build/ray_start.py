"""Ray's beginning and end under a driver, and the watch over a cluster's head between them."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stillreel.configs import Interrupted, RequestError

_AGAIN = 75  # exit code: run it again
_CONNECT_S = 10.0
_RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"  # as Ray spells it
_ASK_S = 2.0
_HEARD_S = 15.0  # then whoever should have heard is stuck in a call of Ray's

_log = logging.getLogger(__name__)


class HeadWatch(threading.Thread):
    """Asks the head's port every few seconds. Ray ends a driver that has not reached it for 60 s, by default, without a word; so
    half of that is how long this waits, which a head that is started anew may take."""

    def __init__(self, ray: Any, address: str) -> None:
        super().__init__(daemon=True)
        is_proxied = address.startswith("ray://")
        self._address = address.removeprefix("ray://") if is_proxied else str(ray.get_runtime_context().gcs_address)
        self._patience_s = float(os.environ.get(_RECONNECT, 60)) / 2
        self._ended = threading.Event()
        self._heard = threading.Event()
        self.answers, self.is_lost = True, False
        self.start()

    def run(self) -> None:
        answered = time.monotonic()
        while not self._ended.wait(_ASK_S):
            try:
                host, _, port = self._address.rpartition(":")
                socket.create_connection((host.strip("[]"), int(port)), timeout=_ASK_S).close()
                answered = time.monotonic()
                self.answers = True
            except OSError:
                self.answers = False  # whoever asks Ray of its nodes now waits for as long as Ray does
                if time.monotonic() - answered > self._patience_s:
                    break
        else:
            return
        self.is_lost = True
        if not self._heard.wait(_HEARD_S) and not self._ended.is_set():
            _log.error(self._sentence())
            _end_at_once()

    def check(self) -> None:
        """Interrupted, with exit 75, where the head is lost."""
        if self.is_lost:
            self._heard.set()
            raise Interrupted(self._sentence(), _AGAIN)

    def end(self) -> None:
        self._ended.set()

    def _sentence(self) -> str:
        return (
            f"Ray's head at {self._address} has not answered for {self._patience_s:.0f} s: it was stopped, its host ended, "
            "or the network is cut. Finished shards are kept. Start the cluster again, or use another, and run the same "
            "command again to go on"
        )


def leave_ray(ray: Any, head: HeadWatch) -> None:
    """End this driver's part of Ray. Of a Ray that has no head any more there is nobody to tell, and its threads, which go on
    asking, would end this process in their own way: so, when it has said all, it ends itself."""
    head.end()
    if head.is_lost:
        atexit.unregister(ray._private.worker.shutdown)
        atexit.register(_end_at_once)
    else:
        ray.shutdown()


def _end_at_once() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_AGAIN)


def start_ray(address: str, cpus: int) -> Any:
    """Ray, connected to a cluster, or begun on this machine with so many CPUs (0: all). RequestError where it is not there."""
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
                    num_cpus=cpus or os.cpu_count(),
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
    # What its nodes tell each driver of workers and nodes that end: a page of theirs each, where there is a line of ours.
    ray._private.worker.print_to_stdstream = lambda data, **_: _log.debug("\n".join(map(str, data["lines"])))
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
