"""What a bucket's bad days do to `animate`, `verify`, `stream` and `status`: a proxy before an S3 server (moto) makes them.

    python -m tests.shards.faulty_s3            prints the table of docs/builds.md

Each command runs twice: while the bucket is ill, and once more when it is well again. Which requests are hit is drawn by seed.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple, Self

from stillreel.configs.system.storage import Folder
from tests.making import data_digests, picture_folder, s3_at, s3_server

_ERROR = b"<?xml version='1.0'?><Error><Code>%b</Code><Message>%b</Message></Error>"
_ANSWERS = {  # the bodies that S3 sends
    "500": (500, b"InternalError", b"We encountered an internal error. Please try again."),
    "503": (503, b"SlowDown", b"Please reduce your request rate."),
    "expired": (403, b"ExpiredToken", b"The provided token has expired."),
}
_DRIP, _PAUSE_S = 1 << 11, 0.02  # bytes, and between them, of a slow read
_STALL_S = 600.0
_PATIENCE_S = 400.0  # with a command; then it hangs


@dataclass(frozen=True)
class Fault:
    """What the proxy does to requests: `kind` to a `share` of them, beyond the first `after` and up to number `until`.

    500, 503 and expired are S3's answers; `slow` sends the body in drips; `stall` sends half of it, and then nothing; `cut` sends
    half of it, and hangs up; `dropped` hangs up before the answer, when what was asked for is done.
    """

    name: str
    kind: str = ""
    share: float = 1.0
    after: int = 0
    until: int = 1 << 30


FAULTS = (
    Fault("500 InternalError, 3 of 10 requests", "500", 0.3),
    Fault("500 InternalError, all from the 20th on", "500", after=20),
    Fault("503 SlowDown, 3 of 10 requests", "503", 0.3),
    Fault("503 SlowDown, all from the 20th on", "503", after=20),
    Fault("slow reads, 2 KiB in 20 ms", "slow"),
    Fault("reads that stop halfway, 1 of 20", "stall", 0.05),
    Fault("reads that stop halfway, all from the 20th on", "stall", after=20),
    Fault("cut in the middle of a body, 3 of 10", "cut", 0.3),
    Fault("cut in the middle of a body, all from the 20th on", "cut", after=20),
    Fault("cut before the answer, 2 of 10", "dropped", 0.2),
    Fault("cut before the answer, all from the 20th on", "dropped", after=20),
    Fault("expired credentials, from the 20th on", "expired", after=20),
)


class Proxy(ThreadingHTTPServer):
    """An HTTP server that hands on what it is asked to `behind`, (host, port), but for what `fault` says."""

    daemon_threads = True

    def __init__(self, behind: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.behind = behind
        self._guard = threading.Lock()
        self.inflict(None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def inflict(self, fault: Fault | None, seed: int = 0) -> None:
        """From now on do this to requests, which are counted anew; None: nothing."""
        with self._guard:
            self._fault, self._dice = fault, random.Random(seed)
            self.asked = self.hit = 0

    def next_fault(self) -> str:
        """What happens to the request that has come; empty when nothing does."""
        with self._guard:
            self.asked += 1
            fault = self._fault
            if fault is None or not fault.after < self.asked <= fault.until or self._dice.random() >= fault.share:
                return ""
            self.hit += 1
            return fault.kind

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has hung up is no news."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass(self) -> None:
        body = self._body()
        fault = self.server.next_fault()
        if fault in _ANSWERS:
            status, code, message = _ANSWERS[fault]
            self._answer(status, [("Content-Type", "application/xml")], _ERROR % (code, message))
            return
        behind = http.client.HTTPConnection(*self.server.behind, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        behind.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        answer = behind.getresponse()
        data = answer.read()
        behind.close()
        kept = [
            (name, value)
            for name, value in answer.getheaders()
            if name.lower() not in ("transfer-encoding", "connection", "date", "server")
        ]
        if fault == "dropped":
            self.close_connection = True
            return
        self._answer(answer.status, kept, data, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while length := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, fault: str = "") -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("cut", "stall") and data:
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            if fault == "stall":
                self._wait_for_client()
            return
        step = _DRIP if fault == "slow" else max(len(data), 1)
        for at in range(0, len(data), step):
            self.wfile.write(data[at : at + step])
            if fault == "slow":
                time.sleep(_PAUSE_S)

    def _wait_for_client(self) -> None:
        """Until it hangs up."""
        self.connection.settimeout(_STALL_S)
        self.rfile.read(1)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def faulty_bucket() -> Iterator[Proxy]:
    """A server with the bucket s3://clips, and a proxy before it, which is what s3:// means within."""
    with s3_server() as address, Proxy(address) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        with s3_at(proxy.url):
            Folder("s3://clips/x").fs.mkdir("clips")
            yield proxy
        proxy.shutdown()


def put(local: Path, url: str) -> None:
    """A folder's files into a bucket."""
    for path in local.iterdir():
        Folder(url).publish(path.name, path.read_bytes())


def digests(url: str) -> dict[str, str]:
    """Of the data of a data set in a bucket."""
    with tempfile.TemporaryDirectory() as home:
        folder = Folder(url)
        for name in folder.listing().sizes:
            path = Path(home, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(folder.read(name))
        return data_digests(Path(home))


class Seen(NamedTuple):
    """How a command ended: exit code, what it said to people, seconds, requests that were hit."""

    code: int
    said: str
    seconds: float
    hit: int

    @property
    def last_line(self) -> str:
        return next((line for line in reversed(self.said.splitlines()) if line.strip()), "")


class Trial(NamedTuple):
    """A command under a fault, and again without it; whether the bytes of OUT are those of an undisturbed build."""

    fault: Fault
    command: str
    ill: Seen
    well: Seen
    is_equal: bool

    @property
    def is_well(self) -> bool:
        """Nothing but a sentence was said, nothing was taken for damage, and the same command mended it."""
        is_said = "Traceback" not in self.ill.said and "PROBLEM" not in self.ill.said
        return is_said and self.ill.code in (0, 1, 75) and self.well.code == 0 and self.is_equal


class Warm:
    """Runs command lines in forks of a process that has imported what they need: seconds each are saved. A context manager."""

    def __enter__(self) -> Self:
        code = "from tests.shards.faulty_s3 import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, words: Sequence[str]) -> tuple[int, str]:
        """Exit code and what was said; of one that hangs, -9."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([dict(os.environ), words]), file=self._process.stdin, flush=True)
        code, said = json.loads(self._process.stdout.readline())
        return code, said


def serve() -> None:
    """In the process that is warm: a command a line, [environment, words]."""
    import stillreel.animate.commands.animate
    import stillreel.pretrain.commands.stream
    import stillreel.shards.commands.status
    import stillreel.shards.commands.verify  # noqa: F401
    from stillreel.cli import main as run_words

    for line in sys.stdin:
        environment, words = json.loads(line)
        with tempfile.TemporaryFile() as sink:
            child = os.fork()
            if not child:
                os.setpgid(0, 0)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(sink.fileno(), 1)
                os.dup2(sink.fileno(), 2)
                os.environ.clear()
                os.environ.update(environment)
                sys.exit(run_words(words))
            code = _end_of(child)
            sink.seek(0)
            print(json.dumps([code, sink.read().decode()]), flush=True)


def _end_of(child: int) -> int:
    for _ in range(int(_PATIENCE_S * 20)):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGKILL


def run_under(proxy: Proxy, warm: Warm, fault: Fault | None, words: Sequence[str], seed: int = 0) -> Seen:
    """Run a command line while the bucket is ill."""
    proxy.inflict(fault, seed)
    start = time.monotonic()
    code, said = warm.run(words)
    seen = Seen(code, said, time.monotonic() - start, proxy.hit)
    proxy.inflict(None)
    return seen


BUILD = ("shard_size=10", "frames=5", "size=64", "ray=off", "progress=off")


def commands(out: str) -> dict[str, tuple[str, ...]]:
    """The commands of a trial by name."""
    return {
        "animate": ("animate", "s3://clips/stills", out, *BUILD),
        "verify": ("verify", out, "progress=off"),
        "stream": ("stream", out, "steps=2", "batch=8", "workers=0", "frames=5", "size=64"),
        "status": ("status", out),
    }


def trials(proxy: Proxy, warm: Warm, faults: Sequence[Fault], seed: int = 0) -> Iterator[Trial]:
    """Each command under each fault. The source s3://clips/stills is put there."""
    with tempfile.TemporaryDirectory() as home:
        put(picture_folder(Path(home) / "stills", 25), "s3://clips/stills")
    undisturbed = "s3://clips/undisturbed"
    assert run_under(proxy, warm, None, commands(undisturbed)["animate"]).code == 0
    expected = digests(undisturbed)
    for number, fault in enumerate(faults):
        out = f"s3://clips/out-{fault.kind}-{number}"
        for name, words in commands(out).items():
            ill = run_under(proxy, warm, fault, words, seed)
            well = run_under(proxy, warm, None, words)
            yield Trial(fault, name, ill, well, digests(out) == expected)


def main() -> int:
    """Print the table as Markdown; 1 where something is not as it must be."""
    chosen = tuple(fault for fault in FAULTS if not sys.argv[1:] or fault.kind in sys.argv[1:])
    print("| fault | command | exit | seconds | requests hit | what is seen last | again, exit | bytes |")
    print("|---|---|---|---|---|---|---|---|")
    wrong = 0
    with faulty_bucket() as proxy, Warm() as warm:
        for trial in trials(proxy, warm, chosen):
            ill, well = trial.ill, trial.well
            wrong += not trial.is_well
            said = ill.last_line.replace("|", "/") if ill.code else ""
            equal = "equal" if trial.is_equal else "DIFFER"
            print(
                f"| {trial.fault.name} | {trial.command} | {ill.code} | {ill.seconds:.0f} | {ill.hit} | {said} | {well.code} "
                f"| {equal} |{'' if trial.is_well else ' WRONG'}",
                flush=True,
            )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
