"""No command asks anything of a network that nobody named: it opens no connection beyond this machine.

And what is installed is what was locked.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.finetune.search.making import index, write_model, write_videos
from tests.making import ROOT, picture_folder

STRACE = shutil.which("strace")
_CALLS = "trace=connect,sendto,sendmsg,sendmmsg"
_ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
needs_strace = pytest.mark.skipif(
    STRACE is None or subprocess.run([STRACE, "-qq", "-o", os.devnull, "true"], check=False).returncode != 0,
    reason="no strace on this machine, or it may not trace",
)


def told(log: Path) -> list[str]:
    """Lines of a trace that name an address beyond this machine."""
    lines = []
    for line in log.read_text(errors="replace").splitlines():
        addresses = [ip_address("".join(found)) for found in _ADDRESS.findall(line)]
        mapped = [getattr(address, "ipv4_mapped", None) or address for address in addresses]
        if not all(address.is_loopback or address.is_unspecified for address in mapped):
            lines.append(line)
    return lines


def started(log: Path, *words: object) -> subprocess.Popen[str]:
    """A command, and all that it starts, with its calls to others in `log`."""
    command = [str(STRACE), "-f", "--seccomp-bpf", "-qq", "-e", _CALLS, "-o", str(log), sys.executable]
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("NO_ALBUMENTATIONS", "RAY_"))}
    return subprocess.Popen(
        [*command, "-m", "stillreel", *map(str, words)], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=plain
    )


def run(log: Path, *words: object) -> None:
    process = started(log, *words)
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert told(log) == []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("network")
    picture_folder(home / "stills", 8)
    write_videos(home / "videos", 2)
    assert index(home / "videos", home / "index", write_model(home / "model")) == 0
    return home


@needs_strace
def test_a_connection_elsewhere_is_seen(tmp_path: Path) -> None:
    code = "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.9', 9))"
    command = [str(STRACE), "-f", "-qq", "-e", _CALLS, "-o", str(tmp_path / "log"), sys.executable, "-c", code]
    subprocess.run(command, check=False)
    assert "192.0.2.9" in "".join(told(tmp_path / "log"))


@needs_strace
def test_animate_and_search_ask_nobody(made: Path, tmp_path: Path) -> None:
    run(tmp_path / "log", "animate", made / "stills", tmp_path / "clips", "ray=off")
    run(tmp_path / "log", "search", made / "index", "a red ball", "device=cpu")


@needs_strace
@pytest.mark.slow
def test_a_build_on_ray_and_an_index_ask_nobody(made: Path, tmp_path: Path) -> None:
    run(tmp_path / "log", "animate", made / "stills", tmp_path / "clips", "ray=local", "workers=2", "shard_size=4")
    settings = ("frames=2", "size=64", "device=cpu", "workers=1")
    run(tmp_path / "log", "index", made / "videos", tmp_path / "out", f"checkpoint={made / 'model'}", *settings)


@needs_strace
@pytest.mark.slow
def test_the_demo_pretrains_and_finetunes_and_asks_nobody(tmp_path: Path) -> None:
    small = ("stills=60", "heldout=16", "contents=4", "steps=3", "ray=off", "progress=lines")
    run(tmp_path / "log", "demo", f"out={tmp_path / 'demo'}", *small)


@needs_strace
@pytest.mark.slow
def test_serve_asks_nobody(made: Path, tmp_path: Path) -> None:
    process = started(tmp_path / "log", "serve", made / "index", "port=0", "device=cpu")
    assert process.stdout is not None
    url = re.search(r"http://\S+", process.stdout.readline())
    assert url is not None
    upload = urllib.request.Request(f"{url[0]}api/like", (made / "videos" / "video-00.mp4").read_bytes())
    for asked in (url[0], f"{url[0]}video/0", f"{url[0]}frames/0", upload):
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert answer.status == 200
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    assert process.wait(30) == 0
    assert told(tmp_path / "log") == []


def test_what_is_locked_has_hashes_and_no_address() -> None:
    text = (ROOT / ".ci" / "requirements.txt").read_text()
    pins = re.split(r"\n(?=[A-Za-z0-9])", text)[1:]
    assert len(pins) > 150 and "://" not in text
    for pin in pins:
        assert re.match(r"[\w.-]+==\S+", pin) and "--hash=sha256:" in pin, pin[:80]
    makefile = (ROOT / "Makefile").read_text()
    assert makefile.count("--require-hashes") == 2 and "--generate-hashes" in makefile
