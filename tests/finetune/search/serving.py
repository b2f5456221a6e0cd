"""A server as people start it, in a process of its own, and requests to it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from stillreel.configs.search import ServeSettings
from stillreel.finetune.search.app import build_app
from stillreel.finetune.search.searcher import Searcher
from tests.finetune.search.making import opened
from tests.warm import Warm


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """Where a server listens, and the process that it is."""

    def __init__(self, port: int, process: Warm | None = None) -> None:
        self.port, self._process = port, process
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, body: bytes | None = None, method: str = "", **headers: str) -> Answer:
        """One request, on a connection of its own; the path goes as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            named = {key.replace("_", "-"): value for key, value in headers.items()}
            connection.request(method or ("GET" if body is None else "POST"), path, body, named)
            response = connection.getresponse()
            return Answer(response.status, response.read(), {k.lower(): v for k, v in response.getheaders()})
        finally:
            connection.close()

    def search(self, asked: object, **headers: str) -> Answer:
        body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
        return self.ask("/api/search", body, **({"Content_Type": "application/json"} | headers))

    @property
    def process(self) -> Warm:
        assert self._process is not None, "it is this process"
        return self._process

    def memory(self) -> int:
        """Bytes in memory that are the process's own."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@contextmanager
def serving(index: Path, **settings: object) -> Iterator[Server]:
    """`stillreel serve` of an index, until the end of the block."""
    words = [f"{key}={value}" for key, value in ({"port": 0, "device": "cpu"} | settings).items()]
    with Warm("stillreel", ["serve", str(index), *words]) as process:
        process.wait_for(f"{index}: ")
        line = process.said()[0]
        assert "http://" in line, line
        yield Server(int(line.split("http://")[1].split("/")[0].rpartition(":")[2]), process)
        if process.poll() is None:
            process.terminate()
            process.wait(30)


@contextmanager
def answering(index: Path) -> Iterator[Server]:
    """The same application on a thread of this process, which is there at once."""
    searcher = Searcher(opened(index), device="cpu")
    settings = ServeSettings(rerank=50 if searcher.can_rerank else 0)
    server = uvicorn.Server(uvicorn.Config(build_app(searcher, settings), log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=server.run, args=([sock],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield Server(sock.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(30)
