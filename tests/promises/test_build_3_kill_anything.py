"""Promise 3 of a build: kill -9 of any worker or of the driver, at any moment, loses no finished shard and leaves no half
shard under a final name; and (promise 2) the rerun ends with the bytes of a build that was never disturbed.

Nothing here is simulated: real processes are killed while they write. A worker's unfinished tar is named
`.NAME-000001.tar.PID.RANDOM.part`, which tells whom to kill.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from stillreel.configs import Interrupted
from stillreel.configs.system.interrupt import stoppable
from tests.making import animate, check, data_digests, picture_folder

_SETTINGS = ("store=frames", "frames=24", "shard_size=20", "name=clips", "progress=off")
_PATIENCE_S = 240.0
_AGENTS: set[int] = set()  # of Rays whose driver was killed


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("kill") / "stills", 120, width=320, height=240)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed")
    assert animate(source, out, store="frames", frames=24, shard_size=20, name="clips") == 0
    return data_digests(out)


def build(source: Path, out: Path, *words: str) -> AbstractContextManager[subprocess.Popen[str]]:
    return run("animate", str(source), str(out), *_SETTINGS, *words)


@contextmanager
def run(*words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "stillreel", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(what: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not what():
        assert time.monotonic() < end, "nothing came"
        assert process is None or process.poll() is None, process.stdout.read() if process and process.stdout else ""
        time.sleep(0.005)


def writers(out: Path, shard: str = "*") -> set[int]:
    """Process ids of those who write a shard now."""
    return {int(path.name.split(".")[3]) for path in out.glob(f"shards/.clips-{shard}.tar.*.part")}


def descendants(process_id: int) -> set[int]:
    """Process ids of all children of a process, and of theirs."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {process_id}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {process_id}


def is_alive(process_id: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def finished(out: Path) -> dict[str, bytes]:
    """Receipts as they lie there."""
    return {path.name: path.read_bytes() for path in out.glob("shards/clips-*.json")}


def assert_no_half_shard(out: Path) -> None:
    """Every receipt's shard is whole, whatever else was lost."""
    problems = [str(problem) for problem in check(out).problems]
    lost = {path.stem for path in out.glob("shards/clips-*.json")}
    assert not [problem for problem in problems if any(problem.startswith(name) for name in lost)], problems


def kill(process_id: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGKILL)


@pytest.mark.parametrize("ray", ["off", "local"])
def test_driver_is_killed_and_the_rerun_goes_on(
    source: Path, undisturbed: dict[str, str], tmp_path: Path, ray: str
) -> None:
    words = (f"ray={ray}",) if ray == "off" else ("ray=local", "workers=2")
    with build(source, tmp_path, *words) as driver:
        wait_for(lambda: len(finished(tmp_path)) >= 2 and writers(tmp_path), driver)
        followers = descendants(driver.pid)
        agents = {one for one in followers if b"Agent" in Path(f"/proc/{one}/cmdline").read_bytes()}
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    wait_for(lambda: not any(is_alive(one) for one in followers - agents))
    kept = finished(tmp_path)
    assert 2 <= len(kept) < 6
    assert_no_half_shard(tmp_path)
    with build(source, tmp_path, *words) as rerun:
        said = rerun.communicate(timeout=_PATIENCE_S)[0]
    assert rerun.returncode == 0, said
    assert f"{len(kept)} valid" in said
    assert {name: data for name, data in finished(tmp_path).items() if name in kept} == kept, (
        "a finished shard was made again"
    )
    assert data_digests(tmp_path) == undisturbed
    assert not check(tmp_path).problems
    assert not list(tmp_path.glob("shards/.*.part")), "the rerun cleans up"
    _AGENTS.update(agents)


def test_a_copy_of_samples_is_killed_and_the_rerun_goes_on(source: Path, tmp_path: Path) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    assert animate(source, clips, name="clips", ray="off") == 0
    words = ("select", str(clips), str(out), "where=fold < 0.9", "unique=exact", "shard_size=2", "workers=2")
    with run("select", str(clips), str(tmp_path / "whole"), *words[3:]) as whole:
        assert whole.wait(_PATIENCE_S) == 0
    with run(*words) as driver:
        wait_for(lambda: len(finished(out)) >= 2, driver)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    kept = finished(out)
    assert 2 <= len(kept) < 50 and not (out / "manifest.json").exists()
    with run(*words) as rerun:
        said = rerun.communicate(timeout=_PATIENCE_S)[0]
    assert rerun.returncode == 0, said
    assert f"{len(kept)} valid" in said
    assert data_digests(out) == data_digests(tmp_path / "whole")
    assert not check(out).problems


def test_worker_is_killed_and_its_shard_is_tried_again(
    source: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    with build(source, tmp_path, "ray=local", "workers=2") as driver:
        wait_for(lambda: writers(tmp_path, "000001"), driver)
        for worker in writers(tmp_path, "000001"):
            kill(worker)
        said = driver.communicate(timeout=_PATIENCE_S)[0]
    assert driver.returncode == 0, said
    assert "clips-000001: attempt 1 of 3 failed" in said
    assert data_digests(tmp_path) == undisturbed
    assert not check(tmp_path).problems


def test_shard_that_kills_its_worker_every_time_is_failed(
    source: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    killed: set[int] = set()
    with build(source, tmp_path, "ray=local", "workers=2", "attempts=3") as driver:
        end = time.monotonic() + _PATIENCE_S
        while driver.poll() is None:
            assert time.monotonic() < end, "the build hangs"
            for worker in writers(tmp_path, "000001") - killed:
                kill(worker)
                killed.add(worker)
            time.sleep(0.002)
        said = driver.stdout.read() if driver.stdout else ""
    assert driver.returncode == 1, said
    assert len(killed) == 3
    assert "1 of 6 shards failed after 3 attempts: clips-000001" in said
    assert sorted(finished(tmp_path)) == [f"clips-{shard:06d}.json" for shard in (0, 2, 3, 4, 5)]
    assert not (tmp_path / "manifest.json").exists()
    assert any("clips-000001" in str(problem) for problem in check(tmp_path).problems)
    with build(source, tmp_path, "ray=off") as rerun:
        rerun.communicate(timeout=_PATIENCE_S)
    assert rerun.returncode == 0
    assert data_digests(tmp_path) == undisturbed


@pytest.mark.parametrize(
    ("ray", "stop", "code"),
    [
        ("off", signal.SIGINT, 130),
        ("off", signal.SIGTERM, 75),
        ("local", signal.SIGTERM, 75),
        pytest.param("local", signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_stopping_keeps_what_is_finished(
    source: Path, tmp_path: Path, ray: str, stop: signal.Signals, code: int
) -> None:
    with build(source, tmp_path, f"ray={ray}") as driver:
        wait_for(lambda: finished(tmp_path) and writers(tmp_path), driver)
        driver.send_signal(stop)
        said = driver.communicate(timeout=_PATIENCE_S)[0]
    assert driver.returncode == code, said
    assert "finished shards are kept. Run the same command again to go on" in said
    assert "Traceback" not in said
    assert_no_half_shard(tmp_path)


def test_sigterm_is_told_from_ctrl_c_when_ray_replaces_the_exception() -> None:
    """As Ray does on a cluster: it catches the interrupt and raises one that says nothing of its cause."""

    @stoppable("what is finished is kept")
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None

    with pytest.raises(Interrupted) as stopped:
        work()
    assert stopped.value.exit_code == 75


def test_a_private_ray_follows_a_driver_that_was_killed() -> None:
    """Its agents do a minute later, and so they are asked after at this file's end."""
    wait_for(lambda: not any(is_alive(one) for one in _AGENTS))
