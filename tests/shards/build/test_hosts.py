"""A host proves that it sees OUT and the source, and has the planned libraries, or is left out; Ray's head is watched."""

from __future__ import annotations

import os
import re
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from stillreel.configs import DataError, Interrupted, RequestError
from stillreel.configs.build import RunSettings, TaskSettings
from stillreel.configs.system.storage import Folder
from stillreel.shards.build import hosts
from stillreel.shards.build.hosts import Witness, make_if_fit, proof_in, why_ill
from stillreel.shards.build.ray_start import HeadWatch
from stillreel.shards.format.receipt import read_receipt
from stillreel.shards.format.writer import TooManyRejects
from tests.making import ROOT, check, data_digests
from tests.shards.build.nodes import cluster, node
from tests.shards.build.numbers import PATIENCE_S, NumberJob, run


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_PAUSE_S", 0.01)
    monkeypatch.setattr(hosts, "_token_that_was_seen", "")


@pytest.fixture
def place(tmp_path: Path) -> tuple[Folder, Witness]:
    """OUT, and a file of a source."""
    (tmp_path / "stills").mkdir()
    (tmp_path / "stills" / "a.jpg").write_bytes(b"12345")
    (tmp_path / "out").mkdir()
    return Folder(str(tmp_path / "out")), Witness(str(tmp_path / "stills"), "a.jpg", 5)


def test_a_host_that_sees_all_is_fit(place: tuple[Folder, Witness]) -> None:
    out, seen = place
    with proof_in(out, {}, [[seen]]) as proof:
        assert proof.witnesses == (seen,)
        assert why_ill(proof) == ""
        assert [path.name for path in Path(out.path).iterdir()] == [proof.token], "what tries to write leaves nothing"
    assert not list(Path(out.path).iterdir())


def test_what_a_host_lacks_is_said(place: tuple[Folder, Witness], tmp_path: Path) -> None:
    out, seen = place
    with proof_in(out, {"stillreel": "0.0.1"}, [[seen]]) as proof:
        assert re.match(r"it has other library versions than the plan: stillreel .*, planned 0\.0\.1", why_ill(proof))
        proof = proof._replace(libraries={})
        Path(seen.folder, "a.jpg").write_bytes(b"1234")
        assert why_ill(proof).endswith("a.jpg of 5 bytes has 4 bytes")
        Path(seen.folder, "a.jpg").unlink()
        assert "it does not see the source" in why_ill(proof) and why_ill(proof).endswith("is not there")
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        assert f"it does not see OUT {elsewhere}" in why_ill(proof._replace(out=str(elsewhere)))
        (elsewhere / proof.token).write_bytes(b"another driver's")
        assert "it sees another OUT" in why_ill(proof._replace(out=str(elsewhere)))
        (elsewhere / proof.token).unlink()
        (elsewhere / proof.token).mkdir()
        assert f"it cannot read and write OUT {elsewhere}: IsADirectoryError" in why_ill(
            proof._replace(out=str(elsewhere))
        )


def test_hosts_are_asked_for_what_the_driver_sees_itself(place: tuple[Folder, Witness]) -> None:
    out, seen = place
    with proof_in(out, {}, [[seen._replace(name="gone.jpg"), seen], [seen._replace(size=7)], []]) as proof:
        assert proof.witnesses == (seen,)


def test_a_process_is_asked_once_and_again_after_a_failure(place: tuple[Folder, Witness]) -> None:
    out, seen = place
    source = Path(seen.folder, "a.jpg")

    def fail(error: Exception) -> None:
        raise error

    with proof_in(out, {}, [[seen]]) as proof:
        assert make_if_fit(proof, str.upper, "a") == ("made", "A")
        source.unlink()
        assert make_if_fit(proof, str.upper, "b") == ("made", "B"), "it was asked before"
        rejects = TooManyRejects("too many", Counter({"corrupt": 1}))
        assert make_if_fit(proof, fail, rejects) == ("failed", rejects)
        kind, why = make_if_fit(proof, fail, OSError("no luck"))
        assert kind == "ill" and why.endswith("is not there (OSError: no luck)")
        assert make_if_fit(proof, str.upper, "c")[0] == "ill", "before anything is made"
        source.write_bytes(b"12345")
        error = OSError("no luck")
        assert make_if_fit(proof, fail, error) == ("failed", error), "of a host that is fit, the shard's own"


def test_the_token_of_a_killed_driver_is_no_part_of_the_data_and_is_cleaned_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out)
    left = out / ".driver.1.0123456789abcdef.part"
    left.write_bytes(b"left")
    verdict = check(out)
    assert not verdict.problems and not verdict.strangers
    run(out)
    assert not left.exists()


def test_a_failed_shard_names_its_host(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    host = re.escape(socket.gethostname())
    for ray in ("off", "inline"):
        with pytest.raises(DataError, match=rf"numbers-000001 \(OSError: this time, on {host}\)"):
            run(tmp_path / ray / "out", NumberJob(fails=1, times=9), ray=ray, attempts=1)
        (tmp_path / ray / "out" / ".lock").unlink()
        assert re.search(rf"numbers-000001: attempt 1 of 1 failed: OSError: this time, on {host}", caplog.text)


def test_the_head_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "1")
    monkeypatch.setattr("stillreel.shards.build.ray_start._ASK_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as head:
        watch = HeadWatch(None, f"ray://127.0.0.1:{head.getsockname()[1]}")
        time.sleep(0.5)
        watch.check()
    watch_until_lost(watch)
    with pytest.raises(Interrupted, match=r"has not answered for 0 s.*run the same command again to go on") as lost:
        watch.check()
    assert lost.value.exit_code == 75


def watch_until_lost(watch: HeadWatch) -> None:
    end = time.monotonic() + PATIENCE_S
    while not watch.is_lost:
        assert time.monotonic() < end, "the head is gone, and nobody has noticed"
        time.sleep(0.01)


def test_what_a_task_needs_is_a_setting() -> None:
    need = TaskSettings.resolve({"cpus": "0.5", "memory": "2", "resources": "disk=1, fast = 0.25"})
    assert need.options() == {"num_cpus": 0.5, "memory": 2_000_000_000, "resources": {"disk": 1.0, "fast": 0.25}}
    assert TaskSettings().options() == {"num_cpus": 1.0, "resources": {}}
    for wrong in ("disk", "disk=", "disk=-1", "CPU=2", "=1", "disk=x"):
        with pytest.raises(RequestError, match=r"task\.resources.*expected NAME=AMOUNT"):
            RunSettings.resolve({"task": {"resources": wrong}})


def test_a_task_that_this_machine_has_no_room_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"this machine has no room for a shard's task \(num_cpus 1.0, memory"):
        run(tmp_path / "out", ray="local", workers=1, task={"memory": "1e6"})


@pytest.mark.long
def test_where_memory_is_short_it_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "50")
    with pytest.raises(
        DataError, match=r"MemoryError: Ray has ended its worker, as memory is short there: \S+ used / \S+ limit"
    ):
        run(tmp_path / "out", NumberJob(fails=0, times=1, way="waits"), ray="local", workers=1, attempts=1)


def test_a_host_with_other_libraries_is_left_out_and_where_no_other_is_left_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two nodes, of which one finds another pyarrow's metadata first. `odd` is what only that one has."""
    (tmp_path / "site" / "pyarrow-0.0.1.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "pyarrow-0.0.1.dist-info" / "METADATA").write_text("Name: pyarrow\nVersion: 0.0.1\n")
    run(tmp_path / "alone" / "out")
    other = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    with (
        cluster(tmp_path) as address,
        node(tmp_path / "odd", f"--address={address}", '--resources={"odd": 1}', PYTHONPATH=other),
    ):
        run(tmp_path / "out", ray=address, count=40)
        with pytest.raises(DataError, match=r"no host is left that can make shards\. \S+ \([\d.]+\): it has other lib"):
            run(tmp_path / "refused" / "out", ray=address, task={"resources": "odd=1"})
    told = [line for line in caplog.text.splitlines() if "is left out" in line]
    assert len(told) <= 2 and all("pyarrow 0.0.1, planned" in line for line in told)
    assert "attempt" not in caplog.text
    folder = Folder(str(tmp_path / "out"))
    assert {read_receipt(folder, path.stem).attempt for path in (tmp_path / "out").glob("shards/*.json")} == {1}
    run(tmp_path / "forty" / "out", count=40)
    assert data_digests(tmp_path / "out") == data_digests(tmp_path / "forty" / "out")
