"""Three hosts with Ray on them, for all tests of a module; whom a test has ended is up again for the next."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, hosts

# The three share the memory of this machine with whatever else runs on it, by which Ray would end their workers.
# A host that has ended is known to have in some seconds, and one that is asked to end has eight.
_RAY = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "8",
}


class Cluster:
    """Three hosts with Ray on them, of which the first is the head."""

    def __init__(self, machines: list[Host], logs: Path) -> None:
        self.machines = machines
        self._logs = logs

    def heal(self) -> None:
        """All of them are up, and have their Ray."""
        head = self.machines[0]
        if not head.has_ray:
            for machine in self.machines:  # who has lost the head goes with it
                self.restart(machine)
        for machine in self.machines:
            if not machine.has_ray:
                self.restart(machine)

    def restart(self, machine: Host) -> None:
        machine.power_off()
        machine.power_on()
        machine.start_ray(self._logs / f"{machine.name}.log")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="stillreel-cluster-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def machines(home: Path) -> Iterator[Cluster]:
    with hosts(3, **_RAY) as made:
        yield Cluster(made, home)


@pytest.fixture
def cluster(machines: Cluster) -> Cluster:
    machines.heal()
    return machines


@pytest.fixture
def out(home: Path, request: pytest.FixtureRequest) -> Path:
    folder = home / request.node.name
    folder.mkdir()
    return folder / "out"
