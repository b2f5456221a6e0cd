"""A build on a cluster of three hosts, each with a network, processes and mounts of its own: whoever is killed or ill meanwhile,
it ends with the bytes of a build in one process, and no shard has lost an attempt by a host.

`make test-cluster` runs it; SEEDS=2 makes it shorter. The cost of a plan's size (fault 4 of this suite's list) is no matter of
hosts, and is measured elsewhere.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from stillreel.configs.system.storage import Folder
from stillreel.shards.format.receipt import read_receipt
from tests.cluster.conftest import Cluster
from tests.cluster.hosts import ADDRESS, MARKS, Host, wait_for
from tests.making import ROOT, animate, check, data_digests, picture_folder

_SHARDS = 200
_LINES = 20  # on the terminal, a fault
_SAID_ANYHOW = 12  # without any
_SETTINGS = {"shard_size": 1, "name": "clips"}
_PATIENCE_S = 400.0
pytestmark = MARKS


class Driver:
    """A build that runs on a host of a cluster."""

    def __init__(self, host: Host, source: Path, out: Path, *words: str) -> None:
        self._log = out.parent / "said"
        settings = [f"{key}={value}" for key, value in _SETTINGS.items()]
        with self._log.open("ab") as output:
            self.process = host.start(
                *(sys.executable, "-m", "stillreel", "animate", str(source), str(out), f"ray={ADDRESS}"),
                *("progress=off", *settings, *words),
                output=output,
            )
        self._out = out

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait_for_shards(self, count: int) -> None:
        """Until so many are finished."""
        wait_for(lambda: len(finished(self._out)) >= count, self.process, self._log)

    def end(self) -> int:
        return self.process.wait(_PATIENCE_S)


@pytest.fixture(scope="module")
def source(home: Path) -> Path:
    return picture_folder(home / "stills", _SHARDS, width=64, height=48)


@pytest.fixture(scope="module")
def expected(home: Path, source: Path) -> dict[str, str]:
    assert animate(source, home / "alone", **_SETTINGS) == 0
    return data_digests(home / "alone")


def finished(out: Path) -> list[str]:
    return sorted(path.stem for path in out.glob("shards/*.json"))


def attempts_spent(out: Path) -> int:
    return sum(read_receipt(Folder(str(out)), name).attempt - 1 for name in finished(out))


def assert_whole(driver: Driver, out: Path, expected: dict[str, str], *, faults: int, spent: int = 0) -> None:
    """The build is done, as if nothing had been; it has said little; and shards have lost so many attempts at most."""
    assert driver.end() == 0, driver.said
    assert data_digests(out) == expected
    assert not check(out).problems
    assert attempts_spent(out) <= spent, driver.said
    assert len(driver.said.splitlines()) <= _SAID_ANYHOW + _LINES * faults, driver.said
    assert not [path for path in out.rglob(".*") if path.name != ".lock"], "tokens and drafts are cleaned up"


def kill(ids: list[int], how: signal.Signals = signal.SIGKILL) -> None:
    for one in ids:
        with suppress(ProcessLookupError):
            os.kill(one, how)


def stop_ray(host: Host) -> None:
    with suppress(subprocess.CalledProcessError):  # it may end itself with the rest
        host.run(sys.executable, "-m", "ray.scripts.scripts", "stop")


def terminate(host: Host) -> None:
    """As a pod, a batch system or a spot's notice does."""
    assert host.ray is not None
    kill(host.processes("ray.scripts.scripts"), signal.SIGTERM)


_ENDS: dict[str, Callable[[Host], None]] = {"power": Host.power_off, "ray stop": stop_ray, "SIGTERM": terminate}


@pytest.mark.parametrize("seed", range(int(os.environ.get("SEEDS", "10"))))
def test_any_of_them_is_killed(cluster: Cluster, source: Path, out: Path, expected: dict[str, str], seed: int) -> None:
    """Two workers, a whole host and the driver, in any order, at any time."""
    dice = random.Random(seed)
    whom = ["worker", "worker", "host", "driver"]
    dice.shuffle(whom)
    driver = Driver(cluster.machines[0], source, out)
    runs = 1
    for victim, count in zip(whom, sorted(dice.sample(range(5, _SHARDS - 40), len(whom))), strict=True):
        driver.wait_for_shards(count)
        if victim == "driver":
            driver.process.kill()
            kill([one for one in cluster.machines[0].processes(str(out)) if one != driver.process.pid])
            driver.process.wait()
            driver = Driver(cluster.machines[0], source, out)
            runs += 1
        elif victim == "host":
            _ENDS[dice.choice(list(_ENDS))](cluster.machines[dice.choice([1, 2])])
        else:
            workers = [one for host in cluster.machines for one in host.processes("ray::run_errand")]
            kill(dice.sample(workers, min(1, len(workers))))
    assert_whole(driver, out, expected, faults=len(whom) + runs, spent=whom.count("worker"))


def test_a_host_that_does_not_see_the_source_is_left_out(
    cluster: Cluster, source: Path, out: Path, expected: dict[str, str]
) -> None:
    cluster.machines[2].hide(source)
    try:
        driver = Driver(cluster.machines[0], source, out)
        assert_whole(driver, out, expected, faults=1)
    finally:
        cluster.machines[2].show(source)
    assert driver.said.count("host2 (10.77.0.3) is left out: it does not see the source") == 1


def test_a_host_that_does_not_see_out_is_left_out(
    cluster: Cluster, source: Path, out: Path, expected: dict[str, str]
) -> None:
    out.mkdir()
    cluster.machines[2].hide(out)
    driver = Driver(cluster.machines[0], source, out)
    assert_whole(driver, out, expected, faults=1)
    assert driver.said.count("host2 (10.77.0.3) is left out: it does not see OUT") == 1
    cluster.machines[2].show(out)


def test_a_host_that_loses_out_while_it_works_is_left_out(
    cluster: Cluster, source: Path, out: Path, expected: dict[str, str]
) -> None:
    """Each shard that it tries from then on fails, and costs no attempt."""
    driver = Driver(cluster.machines[0], source, out)
    driver.wait_for_shards(20)
    cluster.machines[2].run("mount", "-o", "bind,ro", str(out), str(out))
    assert_whole(driver, out, expected, faults=1)
    assert driver.said.count("host2 (10.77.0.3) is left out: it cannot read and write OUT") == 1
    cluster.machines[2].show(out)


def test_where_no_host_is_left_each_is_named(
    cluster: Cluster, source: Path, out: Path, expected: dict[str, str]
) -> None:
    """`far` is what the head lacks, where the driver is."""
    out.mkdir()
    cluster.machines[1].hide(source)
    cluster.machines[2].hide(out)
    driver = Driver(cluster.machines[0], source, out, "task.resources=far=1")
    code = driver.end()
    cluster.machines[1].show(source)
    cluster.machines[2].show(out)
    assert code == 1, driver.said
    sentence = driver.said.splitlines()[-1]
    assert "no host is left that can make shards" in sentence
    assert "host1 (10.77.0.2): it does not see the source" in sentence
    assert "host2 (10.77.0.3): it does not see OUT" in sentence
    assert len(driver.said.splitlines()) <= _SAID_ANYHOW + _LINES
    again = Driver(cluster.machines[0], source, out, "task.resources=far=1", "task.memory=0.2")
    assert_whole(again, out, expected, faults=1)


def test_a_host_with_other_libraries_that_joins_late_is_left_out(
    cluster: Cluster, source: Path, out: Path, expected: dict[str, str]
) -> None:
    import importlib.metadata

    (metadata,) = [one for one in importlib.metadata.files("pillow") or () if one.name == "METADATA"]
    there = Path(str(metadata.locate()))
    other = out.parent / "METADATA"
    other.write_text(
        there.read_text().replace(f"\nVersion: {importlib.metadata.version('pillow')}\n", "\nVersion: 1.2.3\n")
    )
    late = cluster.machines[2]
    late.power_off()
    driver = Driver(cluster.machines[0], source, out)
    driver.wait_for_shards(20)
    building = cluster.machines[0].processes(str(out))
    kill(building, signal.SIGSTOP)  # there shall be work left for it
    late.power_on()
    late.replace(there, other)
    late.start_ray(out.parent / "late.log")
    kill([*building, driver.process.pid], signal.SIGCONT)  # which has stopped with what it waits for
    assert_whole(driver, out, expected, faults=1)
    assert (
        driver.said.count("host2 (10.77.0.3) is left out: it has other library versions than the plan: pillow 1.2.3")
        == 1
    )
    late.power_off()


@pytest.mark.parametrize("how", ["power", "kill"])
def test_the_head_is_lost(cluster: Cluster, source: Path, out: Path, expected: dict[str, str], how: str) -> None:
    head = cluster.machines[0]
    driver = Driver(cluster.machines[1] if how == "power" else head, source, out)
    driver.wait_for_shards(20)
    if how == "power":
        head.power_off()
    else:
        kill([*head.processes("gcs/gcs_server"), *head.processes("raylet/raylet")])
    assert driver.end() == 75, driver.said
    assert "Ray's head at 10.77.0.1:6379 has not answered for 30 s" in driver.said
    assert "run the same command again to go on" in driver.said
    assert len(driver.said.splitlines()) <= _SAID_ANYHOW + _LINES, driver.said
    cluster.heal()
    again = Driver(head, source, out)
    assert_whole(again, out, expected, faults=2)


@pytest.mark.parametrize("how", list(_ENDS))
def test_a_host_ends_under_a_shard_which_loses_no_attempt(
    cluster: Cluster, source: Path, out: Path, expected: dict[str, str], how: str
) -> None:
    host = cluster.machines[2]
    driver = Driver(cluster.machines[0], source, out)
    driver.wait_for_shards(20)
    wait_for(lambda: host.processes("ray::run_errand"), driver.process)
    kill(host.processes("ray::run_errand"), signal.SIGSTOP)  # so that it is in the middle of one
    _ENDS[how](host)
    assert_whole(driver, out, expected, faults=1)
    assert driver.said.count("host2 (10.77.0.3) has ended") <= 1


def test_a_host_ends_before_a_shard_there_has_begun(
    cluster: Cluster, source: Path, out: Path, expected: dict[str, str]
) -> None:
    """Where a shard is must be known from its first moment: Ray itself goes on waiting for a host that does not answer."""
    host = cluster.machines[2]
    driver = Driver(cluster.machines[0], source, out)
    wait_for(lambda: host.processes("ray::run_errand"), driver.process)
    kill(
        host.processes("ray::run_errand"), signal.SIGSTOP
    )  # its first one, which has to import all of stillreel before
    driver.wait_for_shards(_SHARDS // 2)
    host.power_off()
    assert_whole(driver, out, expected, faults=1)


def test_the_batch_recipe_builds_on_nodes_that_start_their_own_ray(
    machines: Cluster, source: Path, out: Path, expected: dict[str, str]
) -> None:
    """The command of configs/cluster/slurm.sh, as `srun` starts it on each node."""
    script = (ROOT / "configs" / "cluster" / "slurm.sh").read_text().replace("\\\n", " ")
    command = re.findall(r"^srun --kill-on-bad-exit=1 (.*) &$", script, re.MULTILINE)[0]
    words = " ".join([str(source), str(out), "progress=off", *(f"{key}={value}" for key, value in _SETTINGS.items())])
    inside = f"set -- {words}; address={ADDRESS} SLURM_NNODES=3 SLURM_CPUS_PER_TASK=1; {command}"
    path = f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}"
    for machine in machines.machines:
        machine.power_off()
        machine.power_on()
    logs = [out.parent / f"{machine.name}.log" for machine in machines.machines]
    started = []
    for machine, log in zip(machines.machines, logs, strict=True):
        own = ("RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=240", f"RAY_TMPDIR={machine.temp}")
        with log.open("wb") as output:
            started.append(machine.start("env", path, *own, "bash", "-c", inside, output=output))
    for process in started:
        process.wait(_PATIENCE_S)
    said = [log.read_text() for log in logs]
    assert started[0].returncode == 0, "\n".join(said)
    assert data_digests(out) == expected
    assert not check(out).problems
