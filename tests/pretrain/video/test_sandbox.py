"""What a process that decodes a stranger's file cannot do."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.making import ROOT

_CHILD = """
import json, os, socket, subprocess, sys
from stillreel.pretrain.video.sandbox import limit_process, shut_in

def fails(work):
    try:
        work()
    except (OSError, subprocess.SubprocessError):
        return True
    return False

def fork():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)

file, other, shuts = sys.argv[1:]
limit_process()
if shuts == "yes":
    shut_in(file)
print(json.dumps({
    "read it": fails(lambda: open(file, "rb").read()),
    "write it": fails(lambda: open(file, "r+b").write(b"abcd")),
    "read another": fails(lambda: open(other, "rb").read()),
    "write another": fails(lambda: print("x" * 9999, file=open(other, "w"), flush=True)),
    "connect": fails(lambda: socket.create_connection(("127.0.0.1", 9)).close()) and shuts == "yes",
    "run": fails(lambda: os.execv("/bin/true", ["true"])) if shuts == "yes" else True,
    "many": fails(lambda: [os.open(file, os.O_RDONLY) for _ in range(100)]),
    "fork": fails(fork),
}))
"""


def tried(file: Path, other: Path, shuts: bool) -> dict[str, bool]:
    command = [sys.executable, "-c", _CHILD, str(file), str(other), "yes" if shuts else "no"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, bool] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(
    ctypes.CDLL(None).syscall(444, None, 0, 1) < 4, reason="this kernel's Landlock is absent, or knows no network"
)
def test_nothing_but_the_file_is_there(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_bytes(b"abc")
    other.write_bytes(b"secret")
    found = tried(file, other, shuts=True)
    assert not found.pop("read it")
    found.pop("fork")
    assert all(found.values()), found
    assert other.read_bytes() == b"secret" and file.read_bytes() == b"abc"


@pytest.mark.skipif(os.getuid() == 0, reason="no limit on processes holds for root")
def test_no_process_is_started(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert tried(tmp_path / "file", tmp_path / "file", shuts=False)["fork"]


def test_files_are_few(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert tried(tmp_path / "file", tmp_path / "file", shuts=False)["many"]
