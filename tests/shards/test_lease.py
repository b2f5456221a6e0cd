"""Two drivers and one bucket: a real S3 server (moto) on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stillreel.configs import Interrupted, RequestError
from stillreel.configs.build import BuildSettings
from stillreel.configs.system import lease
from stillreel.configs.system.interrupt import stoppable
from stillreel.configs.system.lock import sole_writer
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.engine import Build, run_build
from stillreel.shards.build.journal import read_events
from tests.making import ROOT, s3_bucket
from tests.shards.build.numbers import NumberJob, make_shard, open_or_write_plans


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket("leases") as url:
        yield url


@pytest.fixture
def folder(bucket: str, tmp_path: Path) -> Folder:
    return Folder(f"{bucket}/{tmp_path.name}")


def test_the_second_driver_is_refused_and_told_who_it_is(folder: Folder) -> None:
    who = f"process {os.getpid()} of {socket.gethostname()}"
    with sole_writer(folder):
        said = f"another stillreel is writing it: {who}, last heard of [0-9]+ s ago"
        with pytest.raises(RequestError, match=said), sole_writer(folder):
            pass
        assert folder.exists(".lock"), "the one that was refused has taken nothing"
    assert not folder.exists(".lock")
    with sole_writer(folder):
        pass


def test_a_driver_that_was_killed_is_followed_at_once_on_its_machine(folder: Folder) -> None:
    code = (
        "import sys; from stillreel.configs.system.lock import sole_writer\n"
        "from stillreel.configs.system.storage import Folder\n"
        "with sole_writer(Folder(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, folder.url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(RequestError, match=f"process {holder.pid} of "), sole_writer(folder):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with sole_writer(folder):
        pass


def test_another_machine_s_lapses(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.publish(".lock", json.dumps({"host": "elsewhere", "process": 1, "token": "theirs"}).encode())
    with (
        pytest.raises(RequestError, match=r"process 1 of elsewhere, .* this can go on in [0-9]+ s"),
        sole_writer(folder),
    ):
        pass
    monkeypatch.setattr(lease, "LAPSE_S", 1.0)
    time.sleep(2.1)  # the store's times are whole seconds
    with sole_writer(folder):
        assert json.loads(folder.read(".lock"))["process"] == os.getpid()
    assert not list(folder.fs.find(folder.path)), "neither the lock nor the clock's object is left"


def test_a_driver_that_lost_its_folder_stops(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.1)
    theirs = json.dumps({"host": "elsewhere", "process": 1, "token": "theirs"}).encode()

    def work() -> None:
        with sole_writer(folder), stoppable("finished shards are kept"):
            before = folder.fs.modified(folder.locate(".lock"))
            time.sleep(2.1)
            assert folder.fs.modified(folder.locate(".lock")) > before, "it is written anew meanwhile"
            folder.publish(".lock", theirs)
            time.sleep(30)

    with pytest.raises(Interrupted) as stopped:
        work()
    assert stopped.value.exit_code == 75
    assert folder.read(".lock") == theirs, "what is another's is left"


def test_uploads_that_a_killed_writer_left_are_aborted(folder: Folder) -> None:
    bucket, key, _ = folder.fs.split_path(folder.path)
    for name in (f"{key}/shards/numbers-000000.tar", f"{key}-2/shards/numbers-000000.tar"):
        folder.fs.call_s3("create_multipart_upload", Bucket=bucket, Key=name)
    plans = partial(open_or_write_plans, count=12, size=4)
    build = Build(plans, make_shard, job=lambda _: NumberJob(), unit="numbers")
    run_build(folder, build, BuildSettings(ray="inline", progress="off"))
    left = folder.fs.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads", [])
    assert [one["Key"] for one in left] == [f"{key}-2/shards/numbers-000000.tar"], "another data set's is not ours"
    events = read_events(folder)
    assert [event["event"] for event in events] == ["started", "shard", "shard", "shard", "ended"]
    assert not folder.exists(".lock")
