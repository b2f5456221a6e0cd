"""The stream out of a bucket: a real S3 server (moto), with a proxy before it that fails, dawdles and hangs up."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stillreel.configs.stream import CatalogSettings
from stillreel.configs.system.storage import Folder
from stillreel.pretrain.data import ClipLoader, Share
from stillreel.shards.commands.catalog import run
from stillreel.shards.stream.faults import StorageFailure
from stillreel.shards.stream.stream import open_blend
from tests.making import jpeg, s3_at, s3_server, write_tar
from tests.promises.test_stream_3_damage import FAULTS, FORGIVING, SIZES, Fault
from tests.streaming import read_steps, settings_of, write_set

Mood = Callable[[int], str]  # the number of a request of data -> "" (well), "500", "slow" or "cut"


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server; in a mood, not all of those that read data."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = (host, port)
        self.mood: Mood = lambda number: ""
        self.numbers = itertools.count()
        self.failed = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass_on(self) -> None:
        body = self._body()
        is_data = self.command == "GET" and (".tar" in self.path or ".idx" in self.path)
        mood = self.server.mood(next(self.server.numbers)) if is_data else ""
        self.server.failed += bool(mood)
        if mood == "500":
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if mood == "slow":
            time.sleep(0.3)
        connection = http.client.HTTPConnection(*self.server.behind, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name != "Transfer-Encoding"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if mood == "cut" else data)
        connection.close()
        if mood == "cut":
            self.close_connection = True
            self.connection.close()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with s3_server() as (host, port):
        proxy = Proxy(host, port)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        with s3_at(f"http://127.0.0.1:{proxy.server_address[1]}"):
            Folder("s3://stream/x").fs.mkdir("stream")
            yield proxy
        proxy.shutdown()


def upload(local: Path, url: str) -> str:
    folder = Folder(url)
    for path in sorted(local.rglob("*")):
        if path.is_file():
            folder.publish(str(path.relative_to(local)), path.read_bytes())
    return url


@pytest.fixture
def bucket(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[str]:
    yield f"s3://stream/{abs(hash(request.node.name))}"
    proxy.mood = lambda number: ""


@pytest.mark.parametrize("cached", [False, True])
def test_bucket_gives_what_the_disk_gives(bucket: str, cached: bool, tmp_path: Path) -> None:
    local = write_set(tmp_path / "set", SIZES)
    url = upload(local, bucket)
    here, _ = read_steps(local, settings_of(), batch=8, steps=5)
    rules = settings_of(cache=str(tmp_path / "cache") if cached else "")
    half, state = read_steps(url, rules, batch=8, steps=2, ranks=2, workers=1)
    assert half + read_steps(url, rules, batch=8, steps=3, workers=0, state=state)[0] == here
    assert len(list((tmp_path / "cache").glob("*.tar"))) == (len(SIZES) if cached else 0)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("mood", ["500", "slow", "cut"])
def test_trouble_on_the_way_changes_nothing(bucket: str, proxy: Proxy, mood: str, cached: bool, tmp_path: Path) -> None:
    """Every fourth request fails: the clips are the same, and nothing is called damaged."""
    local = write_set(tmp_path / "set", [6, 6])
    url = upload(local, bucket)
    here, _ = read_steps(local, settings_of(), batch=4, steps=3)
    proxy.failed = 0
    proxy.mood = lambda number: mood if number % 4 == 1 else ""
    rules = settings_of(max_bad=0, cache=str(tmp_path / "cache") if cached else "")
    assert read_steps(url, rules, batch=4, steps=3)[0] == here
    assert proxy.failed > 0


@pytest.mark.parametrize("mood", ["500", "cut"])
def test_storage_that_stays_away_is_a_typed_error(
    bucket: str, proxy: Proxy, mood: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded number of tries, and not as damage: none is forgiven here, and none is counted."""
    url = upload(write_set(tmp_path / "set", [6]), bucket)
    blend = open_blend(url)
    proxy.mood = lambda number: mood
    monkeypatch.setattr("stillreel.shards.stream.faults._FIRST_PAUSE_S", 0.01)
    loader = ClipLoader(blend, settings_of(attempts=2, **FORGIVING), Share(4))
    before = next(proxy.numbers)
    with pytest.raises(StorageFailure, match="no answer after 2 attempts"):
        next(iter(loader))
    assert next(proxy.numbers) - before < 60
    assert loader.budget.bad == 0


def test_damage_in_the_cache_is_healed_from_the_bucket(bucket: str, tmp_path: Path) -> None:
    """It is no damage of the data, and other machines do not have it: nothing is passed over."""
    url = upload(write_set(tmp_path / "set", [6, 6]), bucket)
    rules = settings_of(max_bad=0, cache=str(tmp_path / "cache"))
    here, _ = read_steps(url, rules, batch=4, steps=3)
    for path in (tmp_path / "cache").glob("*.tar"):
        blob = bytearray(path.read_bytes())
        blob[700] ^= 1
        path.write_bytes(blob)
    assert read_steps(url, rules, batch=4, steps=3)[0] == here
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 2


@pytest.mark.parametrize("name", [name for name in FAULTS if "index" not in name])
def test_faults_are_seen_in_a_bucket_too(bucket: str, name: str, tmp_path: Path) -> None:
    fault: Fault = FAULTS[name][0]
    local = write_set(tmp_path / "set", SIZES)
    lost = fault(local)
    url = upload(local, bucket)
    here, _ = read_steps(local, settings_of(**FORGIVING), batch=8, steps=5)
    for cache in ("", str(tmp_path / "cache")):
        loader = ClipLoader(open_blend(url), settings_of(cache=cache, **FORGIVING), Share(8), steps=5)
        keys = [batch.keys for batch in loader]
        assert keys == [[clip.split()[0] for clip in step] for step in here]
        assert (loader.budget.bad, len(loader.damage)) == (len(lost), len(lost))


def test_catalog_of_a_bucket(bucket: str, tmp_path: Path) -> None:
    members = [(f"{n}.{end}", data) for n in range(6) for end, data in (("jpg", jpeg(n)), ("txt", b"a dog"))]
    write_tar(tmp_path / "tars" / "0.tar", members)
    upload(tmp_path / "tars", f"{bucket}/tars")
    settings = CatalogSettings(progress="off")
    assert run(f"{bucket}/tars", f"{bucket}/catalog", settings) == 0
    assert run(str(tmp_path / "tars"), str(tmp_path / "catalog"), settings) == 0
    there, state = read_steps(f"{bucket}/catalog", settings_of(), batch=4, steps=3)
    here, same = read_steps(tmp_path / "catalog", settings_of(), batch=4, steps=3)
    assert (there, state) == (here, same)
