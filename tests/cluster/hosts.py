"""Hosts of a cluster on one machine: each has a network, a name, processes and mounts of its own, by Linux namespaces.

They hang on one bridge, see the same disk, and can lose either: a host's view of a folder is hidden by an empty mount, and a host
that is powered off loses its link first, so that nobody is told. All ends with the process that began it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from tests.making import ROOT
from tests.shards.build.nodes import TOKEN

_NET = "10.77.0"
_PATIENCE_S = 240.0
_STARTS = 4
_FOLLOW = ("setpriv", "--pdeathsig", "KILL")  # who is killed leaves no host behind
_PORT = 6379  # a host's own, whatever else runs on the machine
ADDRESS = f"{_NET}.1:{_PORT}"


def why_not() -> str:
    """Why there can be no such hosts here; empty where there can."""
    if lacking := [name for name in ("unshare", "nsenter", "setpriv", "ip", "mount") if shutil.which(name) is None]:
        return f"no {', '.join(lacking)} here"
    inside = "mount -t tmpfs none /mnt && ip link add one type veth peer name two && hostname other"
    tried = subprocess.run(
        [*_unshare("--net", "--uts", "--mount", "--pid", "--fork", "--mount-proc"), "sh", "-c", inside],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"namespaces are forbidden here: {tried.stderr.strip()}" if tried.returncode else ""


class Switch:
    """The bridge that hosts hang on."""

    def __init__(self) -> None:
        self._anchor = subprocess.Popen([*_FOLLOW, *_unshare("--net", "--mount"), "sleep", "infinity"])
        wait_for(lambda: _namespace(self._anchor.pid) != _namespace(os.getpid()))
        self.run("ip", "link", "add", "bridge", "type", "bridge")
        self.run("ip", "link", "set", "bridge", "up")

    def inside(self) -> list[str]:
        """What precedes a command that is to run there."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self._anchor.pid}", *user, "--net", "--mount"]

    def run(self, *command: str) -> None:
        subprocess.run([*self.inside(), *command], check=True, capture_output=True)

    def close(self) -> None:
        self._anchor.kill()
        self._anchor.wait()


class Host:
    """A host of one CPU, as far as Ray is told; the first one is the head."""

    def __init__(self, switch: Switch, number: int, temp: Path, environment: Mapping[str, str]) -> None:
        self._switch = switch
        self.temp = temp
        self.number = number
        self.name = f"host{number}"
        self.address = f"{_NET}.{number + 1}"
        self.environment = {
            **os.environ,
            **TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(ROOT),
            **environment,
        }
        self.ray: subprocess.Popen[bytes] | None = None
        self._power_on()

    def _power_on(self) -> None:
        begin = f"hostname {self.name} && mount -t tmpfs none {self.temp} && ip link set lo up && exec sleep infinity"
        self._anchor = subprocess.Popen(
            [
                *(*_FOLLOW, *self._switch.inside()),
                *("unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("sh", "-c", begin),
            ]
        )
        wait_for(lambda: _children(self._anchor.pid))
        (self._init,) = _children(self._anchor.pid)
        wait_for(lambda: Path(f"/proc/{self._init}/comm").read_text() == "sleep\n")
        ends = ("type", "veth", "peer", "name", "eth0", "netns", str(self._init))
        self._switch.run("ip", "link", "add", self.name, *ends)
        self._switch.run("ip", "link", "set", self.name, "master", "bridge", "up")
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def inside(self) -> list[str]:
        """What precedes a command that is to run there."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self._init}", *user, "--net", "--uts", "--mount", "--pid"]

    def run(self, *command: str) -> str:
        return subprocess.run(
            [*self.inside(), *command], check=True, capture_output=True, text=True, env=self.environment
        ).stdout

    def start(self, *command: str, output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        """A process there; it ends with the host."""
        return subprocess.Popen(
            [*self.inside(), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=self.environment,
            cwd=ROOT,
        )

    def start_ray(self, log: Path) -> None:
        """Returns when its node is up. Ray gives each start thirty seconds, which a machine that is busy may not have."""
        head = ("--head", f"--port={_PORT}", "--include-dashboard=false", f"--temp-dir={self.temp}")
        where = head if self.number == 0 else (f"--address={ADDRESS}", '--resources={"far": 1}')
        for turn in range(_STARTS):
            with log.open("wb") as output:
                self.ray = self.start(
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *where),
                    *(f"--node-ip-address={self.address}", "--num-cpus=1", "--object-store-memory=80000000"),
                    output=output,
                )
            try:
                wait_for(lambda: b"Ray runtime started" in log.read_bytes(), self.ray, log)
            except AssertionError:
                if turn + 1 == _STARTS:
                    raise
                self.power_off()
                self.power_on()
            else:
                return

    def processes(self, named: str) -> list[int]:
        """Ids, as this machine counts, of the processes there whose command line holds a word; none of a host that is off."""
        found: list[int] = []
        try:
            space = Path(f"/proc/{self._init}/ns/pid").readlink()
        except OSError:
            return found
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (entry / "ns/pid").readlink() == space and named.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return sorted(found)

    def hide(self, folder: Path) -> None:
        """From now on what is begun there, or opens it, finds it empty."""
        self.run("mount", "-t", "tmpfs", "none", str(folder))

    def show(self, place: Path) -> None:
        """The end of `hide` or `replace`."""
        self.run("umount", str(place))

    def replace(self, file: Path, other: Path) -> None:
        """From now on the host sees another file in its place."""
        self.run("mount", "--bind", str(other), str(file))

    def power_off(self) -> None:
        """Its link goes first, so that no other host hears of it."""
        with suppress(subprocess.CalledProcessError):
            self._switch.run("ip", "link", "delete", self.name)
        with suppress(ProcessLookupError):
            os.kill(self._init, signal.SIGKILL)
        self._anchor.wait()
        if self.ray is not None:
            self.ray.wait()
        self.ray = None

    def power_on(self) -> None:
        self._power_on()

    @property
    def has_ray(self) -> bool:
        return self.ray is not None and self.ray.poll() is None and bool(self.processes("raylet/raylet"))


@contextmanager
def hosts(count: int, **environment: str) -> Iterator[list[Host]]:
    """Within it there are hosts, without Ray yet."""
    temp = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a socket's name is short
    switch, made = Switch(), []
    try:
        for number in range(count):
            made.append(Host(switch, number, temp, environment))  # noqa: PERF401
        yield made
    finally:
        for host in made:
            host.power_off()
        switch.close()
        shutil.rmtree(temp, ignore_errors=True)


def wait_for(
    what: object, process: subprocess.Popen[bytes] | None = None, log: Path | None = None, seconds: float = _PATIENCE_S
) -> None:
    """Until `what()` is true; an AssertionError, with what the log says, when the process ends before, or nothing comes."""
    assert callable(what)
    end = time.monotonic() + seconds
    while not what():
        said = log.read_text() if log is not None else ""
        assert process is None or process.poll() is None, said
        assert time.monotonic() < end, f"nothing came\n{said}"
        time.sleep(0.02)


def _unshare(*what: str) -> Sequence[str]:
    return ("unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), *what)


def _namespace(process: int) -> Path:
    return Path(f"/proc/{process}/ns/net").readlink()


def _children(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        found += [int(word) for word in task.read_text().split()]
    return found


_why = why_not()
MARKS = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(_why), reason=_why),
]
