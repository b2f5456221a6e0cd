"""Promise 5 of a build: one Ray task is one shard; it reads its input and writes its output itself, and gives back a
receipt under a kilobyte; few are in flight. `ray=ADDRESS` runs the same build on a cluster."""

from __future__ import annotations

import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from stillreel.animate.clips.clip import make_shard
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.cluster import OnRay
from stillreel.shards.build.executors import InPool, InProcess, ShardTask, open_executor
from stillreel.shards.build.hosts import Proof
from stillreel.shards.build.journal import read_events
from stillreel.shards.format.plan import read_plans
from tests.making import animate, data_digests, free_port, picture_folder, stillreel
from tests.shards.build.nodes import TOKEN


def test_what_travels_is_small(stills: Path, built: dict[str, Path], tmp_path: Path) -> None:
    plan = read_plans(Folder(str(built["recipe"])))[0]
    task = ShardTask(str(tmp_path), 0, plan.digest, 0, attempt=1, max_rejected=5, job=str(stills))
    assert len(pickle.dumps(task)) < 1000
    assert len(pickle.dumps(replace(task, rows=plan.locate(0)))) < 2000
    (tmp_path / "plan-000.parquet").write_bytes((built["recipe"] / "plan-000.parquet").read_bytes())
    receipt = make_shard(task)
    assert len(receipt.encode()) < 1400  # indented for people; on the wire:
    assert len(pickle.dumps(receipt)) < 1024


def test_few_tasks_are_in_flight() -> None:
    with open_executor(make_shard, "inline", 4, Proof()) as executor:
        assert isinstance(executor, InProcess)
        assert executor.capacity == 1
    with open_executor(make_shard, "off", 0, Proof()) as executor:
        assert isinstance(executor, InPool)
        assert executor.capacity == 1
    with open_executor(make_shard, "off", 4, Proof()) as executor:
        assert isinstance(executor, InPool)
        assert executor.capacity == 4
    with open_executor(make_shard, "local", 1, Proof()) as executor:
        assert isinstance(executor, OnRay)
        assert executor.capacity == 2, "the one that runs, and one that waits for it"


@contextmanager
def cluster(home: Path) -> Iterator[dict[str, str]]:
    """A head node started by hand, as an operator does, and what to set to reach it. It shares nothing with whatever else
    Ray runs here: `ray stop` would end that, and a fixed port or Ray's usual folder would meet it."""
    token = {**TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    port = free_port()
    said = home / "head.log"
    with (
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temp,
        open(said, "wb") as log,
    ):  # a socket's name is short
        head = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"),
                *(
                    f"--ray-client-server-port={free_port()}",
                    f"--dashboard-port={free_port()}",
                    "--include-dashboard=false",
                ),
                *("--num-cpus=2", f"--temp-dir={temp}"),
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, **token},
            start_new_session=True,
        )
        try:
            end = time.monotonic() + 240
            while b"Ray runtime started" not in said.read_bytes():
                assert head.poll() is None and time.monotonic() < end, said.read_text()
                time.sleep(0.1)
            address = re.findall(r"--address='([\d.:]+)'", said.read_text())[0]
            yield {**token, "RAY_ADDRESS": address}
        finally:
            head.terminate()  # it ends what it has started, workers in groups of their own among it
            with suppress(subprocess.TimeoutExpired):
                head.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)
            head.wait()


def test_running_cluster_makes_the_same(tmp_path: Path) -> None:
    """Ray asks for a token once it listens beyond loopback."""
    source = picture_folder(tmp_path / "stills", 12)
    assert animate(source, tmp_path / "alone", shard_size=4) == 0
    with cluster(tmp_path) as env:
        said = stillreel("animate", source, tmp_path / "cluster", "ray=auto", "shard_size=4", **env)
        words = (f"ray={env.pop('RAY_ADDRESS')}", "workers=1", "shard_size=4")
        bounded = stillreel("animate", source, tmp_path / "bounded", *words, **env)
    assert said.returncode == 0, said.stderr
    assert bounded.returncode == 0, bounded.stderr
    assert data_digests(tmp_path / "cluster") == data_digests(tmp_path / "bounded") == data_digests(tmp_path / "alone")
    hosts = [event["host"] for event in read_events(Folder(str(tmp_path / "cluster"))) if event["event"] == "shard"]
    assert len(hosts) == 3 and all(host.startswith(socket.gethostname()) for host in hosts), "who made it is told"


def test_unreachable_cluster_is_said(tmp_path: Path) -> None:
    said = stillreel("animate", picture_folder(tmp_path / "stills", 2), tmp_path / "out", "ray=127.0.0.1:1")
    assert said.returncode == 2
    assert "ray=127.0.0.1:1" in said.stderr
    assert "Traceback" not in said.stderr
