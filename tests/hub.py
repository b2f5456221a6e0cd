"""A stand-in of the Hugging Face hub: what its HTTP interface answers of one data set whose files lie on the disk.

`writable_hub` is one to which models and data sets are pushed: it makes repositories, takes commits, with small files in them and
large ones by LFS, and hands out what it has.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
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


class Written(NamedTuple):
    """A hub that is written to: `home`/models/OWNER/NAME and datasets/OWNER/NAME are its repositories."""

    endpoint: str
    home: Path
    made: list[dict[str, Any]]  # what each repository was asked for with
    sent: list[str]  # digests of large files that were sent
    commits: list[tuple[str, list[str]]]  # a repository, and the paths that came
    refused: list[int]  # statuses that the next commits are answered with


@contextmanager
def writable_hub(home: Path) -> Iterator[Written]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Writing)
    hub = Written(f"http://127.0.0.1:{server.server_port}", home, [], [], [], [])
    server.RequestHandlerClass = type("Handler", (_Writing,), {"hub": hub})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hub
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
            self._send(200, data, {"X-Repo-Commit": _REVISION, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

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


class _Writing(_Handler):
    hub: Written
    ranges: list[str] = []

    def _place(self) -> str:
        """Which repository is asked for, and what of it: the rest of the path."""
        path = unquote(urlparse(self.path).path)
        found = re.match(r"/(?:api/)?(?:(models|datasets)/)?([^/]+/[^/]+?)(?:\.git)?(/.*|$)", path)
        assert found, path
        kind, self.dataset, rest = found[1] or "models", found[2], found[3]
        self.home = self.hub.home / kind / self.dataset
        return rest

    def do_GET(self) -> None:
        rest = self._place()
        if not self.home.is_dir():
            self._missing("RepoNotFound")
        elif rest.startswith("/resolve/"):
            self._file(rest.split("/", 3)[3])
        elif rest.startswith("/tree/"):
            self._answer([self._entry(one) for one in sorted(self.home.rglob("*"))])
        else:
            names = [one.relative_to(self.home).as_posix() for one in sorted(self.home.rglob("*")) if one.is_file()]
            siblings = [{"rfilename": name} for name in names]
            self._answer({"id": self.dataset, "sha": _REVISION, "siblings": siblings, "tags": [], "private": True})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer hf_right":
            self._send(401, b"{}", {"X-Error-Message": "Invalid credentials"})
        elif self.path == "/api/repos/create":
            self._create(json.loads(data))
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        else:
            rest = self._place()
            answers = {"/preupload": self._preupload, "/info/lfs": self._batch, "/commit": self._commit}
            answer = next((one for start, one in answers.items() if rest.startswith(start)), None)
            self._missing("RepoNotFound") if answer is None or not self.home.is_dir() else answer(data)

    def do_PUT(self) -> None:
        digest = self.path.rpartition("/")[2]
        if "Content-Length" in self.headers:
            data = self.rfile.read(int(self.headers["Content-Length"]))
        else:
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        assert hashlib.sha256(data).hexdigest() == digest
        self._large(digest).parent.mkdir(exist_ok=True)
        self._large(digest).write_bytes(data)
        self.hub.sent.append(digest)
        self._send(200, b"", {})

    def _large(self, digest: str) -> Path:
        return self.hub.home / "large" / digest

    def _create(self, asked: dict[str, Any]) -> None:
        kind = f"{asked.get('type', 'model')}s"
        name = f"{asked['organization']}/{asked['name']}"
        home, url = self.hub.home / kind / name, self.hub.endpoint + "/" + "datasets/" * (kind == "datasets") + name
        if home.is_dir():
            self._send(409, json.dumps({"error": "it is there", "url": url}).encode(), {})
            return
        home.mkdir(parents=True)
        self.hub.made.append(asked)
        self._answer({"url": url})

    def _preupload(self, data: bytes) -> None:
        self._answer(
            {
                "files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs"
                        if one["path"].endswith((".tar", ".parquet", ".safetensors"))
                        else "regular",
                        "shouldIgnore": False,
                        "oid": self._oid(self.home / one["path"]),
                    }
                    for one in json.loads(data)["files"]
                ]
            }
        )

    def _oid(self, path: Path) -> str | None:
        if not path.is_file():
            return None
        data = path.read_bytes()
        if path.name.endswith((".tar", ".parquet", ".safetensors")):
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def _batch(self, data: bytes) -> None:
        objects = []
        for one in json.loads(data)["objects"]:
            href = {"upload": {"href": f"{self.hub.endpoint}/large/{one['oid']}"}}
            objects.append(one | ({} if self._large(one["oid"]).exists() else {"actions": href}))
        self._answer({"transfer": "basic", "objects": objects})

    def _commit(self, data: bytes) -> None:
        if self.hub.refused:
            self._send(self.hub.refused.pop(), b"{}", {})
            return
        paths = []
        for line in map(json.loads, data.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                continue
            path = self.home / value["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            small = line["key"] == "file"
            path.write_bytes(base64.b64decode(value["content"]) if small else self._large(value["oid"]).read_bytes())
            paths.append(value["path"])
        self.hub.commits.append((self.dataset, paths))
        url = f"{self.hub.endpoint}/{self.dataset}/commit/{_REVISION}"
        self._answer({"success": True, "commitUrl": url, "commitOid": _REVISION})
