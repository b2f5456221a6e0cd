"""A stand-in of the Hugging Face hub: what its HTTP interface answers of one data set whose files lie on the disk."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlparse

_REVISION = "0" * 40


class Hub(NamedTuple):
    endpoint: str  # what HF_ENDPOINT must be where huggingface_hub is imported, which reads it once
    ranges: list[str]  # of bytes that were asked for, as they are


@contextmanager
def hub_at(home: Path, dataset: str) -> Iterator[Hub]:
    """Serves the folder as the data set DATASET."""
    ranges: list[str] = []
    handler = type("Handler", (_Handler,), {"home": home, "dataset": dataset, "ranges": ranges})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Hub(f"http://127.0.0.1:{server.server_port}", ranges)
    server.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    home: Path
    dataset: str
    ranges: list[str]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        api = f"/api/datasets/{self.dataset}"
        resolve = f"/datasets/{self.dataset}/resolve/"
        if path.startswith(f"{api}/tree/"):
            deep = parse_qs(urlparse(self.path).query).get("recursive", ["false"])[0].lower() == "true"
            self._tree(path.removeprefix(f"{api}/tree/").partition("/")[2], deep)
        elif path == api or path.startswith(f"{api}/revision/"):
            self._answer({"id": self.dataset, "sha": _REVISION, "siblings": [], "tags": []})
        elif path.startswith(resolve):
            self._file(path.removeprefix(resolve).partition("/")[2])
        else:
            self._missing("RepoNotFound")

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if not urlparse(self.path).path.startswith(f"/api/datasets/{self.dataset}/paths-info/"):
            self._missing("RepoNotFound")
            return
        asked = json.loads(data)["paths"] if data.startswith(b"{") else parse_qs(data.decode())["paths"]
        self._answer([self._entry(self.home / one) for one in asked if (self.home / one).exists()])

    def _tree(self, under: str, deep: bool) -> None:
        folder = self.home / under
        if folder.is_dir():
            self._answer([self._entry(one) for one in sorted(folder.rglob("*") if deep else folder.iterdir())])
        else:
            self._missing("EntryNotFound")

    def _entry(self, path: Path) -> dict[str, Any]:
        size = 0 if path.is_dir() else path.stat().st_size
        kind = "directory" if path.is_dir() else "file"
        return {"type": kind, "oid": _REVISION, "size": size, "path": path.relative_to(self.home).as_posix()}

    def _file(self, name: str) -> None:
        path = self.home / name
        if not path.is_file():
            self._missing("EntryNotFound")
            return
        data, asked = path.read_bytes(), self.headers.get("Range", "")
        if asked:
            self.ranges.append(asked)
            start, _, end = asked.removeprefix("bytes=").partition("-")
            part = data[int(start) : int(end) + 1 if end else len(data)]
            headers = {"Content-Range": f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}"}
            self._send(206, part, headers)
        else:
            self._send(200, data, {"X-Repo-Commit": _REVISION, "ETag": f'"{len(data)}"'})

    def _answer(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str) -> None:
        self._send(404, b"{}", {"X-Error-Code": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
