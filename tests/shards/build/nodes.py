"""Nodes of a Ray cluster on this machine, for tests that need more than a private one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.making import ROOT, free_port

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}  # of all tests' nodes and drivers


def start(log: Path, *words: str, **environment: str) -> subprocess.Popen[bytes] | None:
    """A node of a cluster, on this machine; None where it did not start in the thirty seconds that Ray gives it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", *words],
            stdout=output,
            stderr=output,
            env={
                **os.environ,
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
                **environment,
            },
            start_new_session=True,
        )
    while b"Ray runtime started" not in log.read_bytes():
        if process.poll() is not None:
            return None
        time.sleep(0.1)
    return process


@contextmanager
def node(log: Path, *words: str, **environment: str) -> Iterator[None]:
    """Within it there is a node."""
    tried = (start(log, *words, **environment) for _ in range(4))
    process = next((one for one in tried if one is not None), None)
    assert process is not None, log.read_text()
    try:
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def cluster(folder: Path, *words: str) -> Iterator[str]:
    """The address of one whose head, its only node yet, is started with these words."""
    own = (f"--ray-client-server-port={free_port()}", f"--dashboard-port={free_port()}", "--include-dashboard=false")
    with (
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temp,  # a socket's name is short
        node(
            folder / "head", "--head", f"--port={free_port()}", f"--temp-dir={temp}", *own, *words, PYTHONPATH=str(ROOT)
        ),
    ):
        yield re.findall(r"--address='([\d.:]+)'", (folder / "head").read_text())[0]
