"""`stillreel serve`: what it answers, and that no abuse gets more out of it than a clean error."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stillreel.cli import main
from tests.finetune.search.conftest import VIDEOS
from tests.finetune.search.making import copied, index, write_model, write_videos
from tests.finetune.search.serving import Server, answering, serving
from tests.pretrain.video.making import write_video
from tests.streaming import write_set


@pytest.fixture(scope="module")
def server(made: Path) -> Iterator[Server]:
    with serving(made, max_upload=2_000_000) as running:
        yield running


@pytest.fixture(autouse=True)
def _still_answers(server: Server) -> Iterator[None]:
    """After every test."""
    yield
    assert server.ask("/health").json == {"status": "ok", "videos": VIDEOS}
    assert len(server.search({"text": "a red ball"}).json["results"]) == VIDEOS


def png(width: int = 64, height: int = 64) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 120, np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def test_the_page_is_whole_loads_nothing_and_runs_nothing_of_others(server: Server) -> None:
    answer = server.ask("/")
    text = answer.body.decode()
    assert answer.status == 200 and "http" not in text.replace("http://www.w3.org", "")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_text_finds_and_re_ranks(server: Server) -> None:
    coarse = server.search({"text": "a red ball", "k": 3}).json
    assert len(coarse["results"]) == 3 and coarse["ms"] > 0
    assert all(hit["fine"] is None and hit["file"] for hit in coarse["results"])
    fine = server.search({"text": "a red ball", "k": 3, "rerank": True}).json["results"]
    told = [hit["fine"] for hit in fine]
    assert told == sorted(told, reverse=True)


def test_similar_ones_and_uploads(server: Server, videos: Path) -> None:
    told = server.ask("/api/similar/2").json
    assert told["of"] == "video-02.mp4" and 2 not in [hit["row"] for hit in told["results"]]
    by_video = server.ask("/api/like", (videos / "video-04.mp4").read_bytes()).json["results"]
    assert by_video[0]["path"] == "video-04.mp4" and by_video[0]["coarse"] == pytest.approx(1, abs=2e-3)
    assert len(server.ask("/api/like", png()).json["results"]) == VIDEOS


def test_files_come_by_ranges(server: Server, videos: Path) -> None:
    whole = (videos / "video-01.mp4").read_bytes()
    answer = server.ask("/video/1")
    assert answer.body == whole and answer.headers["content-type"] == "video/mp4"
    part = server.ask("/video/1", Range="bytes=10-19")
    assert part.status == 206 and part.body == whole[10:20]
    assert server.ask("/video/1", Range=f"bytes={len(whole)}-").status == 416
    assert server.ask("/frames/1").body[4:8] == b"ftyp"


def test_paths_lead_nowhere(server: Server, videos: Path) -> None:
    for path in (
        "/video/../../../../etc/passwd",
        "/video/..%2f..%2f..%2fetc%2fpasswd",
        "/video/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/video//etc/passwd",
        "/etc/passwd",
        "/video/-1",
        f"/video/{VIDEOS}",
        "/video/99999999999999999999999999",
        "/video/1/../../manifest.json",
        "/video/1.5",
        "/video/1%00",
        "/frames/../video",
        f"/video/{videos}/video-01.mp4",
        "/api/similar/1e9",
    ):
        answer = server.ask(path)
        assert answer.status in (400, 404), (path, answer)
        assert b"root:" not in answer.body and "error" in answer.json


def test_a_file_that_was_replaced_since_is_not_served(videos: Path, checkpoint: Path, tmp_path: Path) -> None:
    mine = write_videos(tmp_path / "videos", 3)
    assert index(mine, tmp_path / "index", checkpoint) == 0
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with answering(tmp_path / "index") as running:
        assert running.ask("/video/0").status == 200
        (mine / "video-00.mp4").unlink()
        assert running.ask("/video/0").status == 404
        (mine / "video-00.mp4").symlink_to(secret)
        for path in ("/video/0", "/frames/0"):
            answer = running.ask(path)
            assert answer.status == 404 and b"secret" not in answer.body, answer
        (mine / "video-00.mp4").unlink()
        (mine / "video-00.mp4").symlink_to(write_video(tmp_path / "another.mp4", 30))
        assert [running.ask(path).status for path in ("/video/0", "/frames/0")] == [404, 404]
        hits = running.search({"text": "a"}).json["results"]
        assert {hit["row"]: hit["file"] for hit in hits} == {0: False, 1: True, 2: True}


@pytest.mark.parametrize("what", ["file", "folder", "link within"])
def test_a_link_of_the_same_size_and_time_is_not_followed(
    what: str, videos: Path, checkpoint: Path, tmp_path: Path
) -> None:
    mine = write_videos(tmp_path / "videos", 2)
    (mine / "sub").mkdir()
    file = (mine / "video-00.mp4").rename(mine / "sub" / "video-00.mp4")
    assert index(mine, tmp_path / "index", checkpoint) == 0
    outside = (mine if what == "link within" else tmp_path) / "outside"
    outside.mkdir()
    about = file.stat()
    secret = outside / "video-00.mp4"
    secret.write_bytes(file.read_bytes()[:-6] + b"secret")
    os.utime(secret, ns=(about.st_atime_ns, about.st_mtime_ns))
    rows = ("/video/0", "/frames/0", "/video/1", "/frames/1")
    with answering(tmp_path / "index") as running:
        assert [running.ask(path).status for path in rows] == [200] * 4
    with answering(tmp_path / "index") as running:
        file.unlink()
        if what == "folder":
            file.parent.rmdir()
            file.parent.symlink_to(outside)
        else:
            file.symlink_to(secret)
        answers = [running.ask(path) for path in rows]
        assert [answer.status for answer in answers] == [404, 404, 200, 200]
        assert not any(answer.body.endswith(b"secret") for answer in answers)
    left_open = [str(handle.readlink()) for handle in Path("/proc/self/fd").iterdir() if handle.is_symlink()]
    assert not [name for name in left_open if ".mp4" in name]


def test_half_a_request_is_hung_up_on(server: Server) -> None:
    """Each of these would be waited for for ever."""
    head = b"POST /api/like HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    parts: list[tuple[bytes, bytes]] = [
        (b"", b""),
        (b"GET /health HT", b""),
        (head, b""),
        (head + b"\r\nabc", b" 408 "),
        (head.replace(b"POST /api/like", b"GET /health") + b"\r\nabc", b" 200 "),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health", b" 200 "),
    ]
    connections = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in parts]
    for connection, (data, _) in zip(connections, parts, strict=True):
        connection.sendall(data)
    for connection, (data, expected) in zip(connections, parts, strict=True):
        with connection, connection.makefile("rb") as heard:
            assert expected in heard.read(), data  # to its end


def test_an_index_that_names_files_elsewhere_serves_none_of_them(made: Path, tmp_path: Path) -> None:
    import pyarrow as pa

    secret = tmp_path / "secret.mp4"
    secret.write_text("secret")
    out = copied(made, tmp_path / "index")
    (file,) = out.glob("videos-*.arrow")
    table = pa.ipc.open_file(file).read_all()
    about = secret.stat()
    for names in ([str(secret)] * VIDEOS, [f"../../../../../../../../..{secret}"] * VIDEOS):
        columns = {"path": names, "size": [about.st_size] * VIDEOS, "version": [about.st_mtime_ns] * VIDEOS}
        bad = table
        for name, values in columns.items():
            at = table.schema.get_field_index(name)
            bad = bad.set_column(at, table.schema.field(name), pa.array(values))
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(bad)
        manifest = json.loads((out / "manifest.json").read_text())
        manifest["files"][file.name]["bytes"] = file.stat().st_size
        (out / "manifest.json").write_text(json.dumps(manifest))
        with answering(out) as running:
            for path in ("/video/0", "/frames/0"):
                answer = running.ask(path)
                assert answer.status == 404 and answer.body.count(b"secret") == answer.body.count(b"secret.mp4")


def test_malformed_queries_are_told_what_is_wrong(server: Server) -> None:
    cases: dict[bytes, int] = {
        b"": 400,
        b"{": 400,
        b"null": 400,
        b"[]": 400,
        b'"text"': 400,
        b"\xff\xfe": 400,
        b"[" * 5000: 400,
        b'{"text": 5}': 400,
        b'{"text": ""}': 400,
        b'{"text": "   "}': 400,
        b'{"text": "a", "k": 0}': 400,
        b'{"text": "a", "k": 1e99}': 400,
        b'{"text": "a", "k": true}': 400,
        b'{"text": "a", "k": 99999999999999999999}': 400,
        b'{"text": "a", "rerank": 1}': 400,
        b'{"text": "a", "more": 1}': 400,
        b'{"text": "\\ud800"}': 400,
        b'{"text": "a\\u0000b"}': 400,
        b'{"text": NaN}': 400,
        json.dumps({"text": "a" * 501}).encode(): 413,
    }
    for body, status in cases.items():
        answer = server.search(body)
        assert answer.status == status, (body[:60], answer)
        assert answer.json["error"]
    assert server.search({"text": "a"}, Content_Type="text/plain").status == 415
    assert server.ask("/api/search").status == 405
    assert server.search({"text": "ein Hündchen 🐶 " * 20}).status == 200


def test_a_query_of_ten_megabytes_is_refused_and_not_kept(server: Server) -> None:
    before = server.memory()
    body = json.dumps({"text": "a" * 10_000_000}).encode()
    for _ in range(5):
        assert server.search(body).status == 413
    for kind in ("GET", "POST"):
        try:
            status = server.ask("/?" + "a" * 10_000_000, method=kind).status
        except ConnectionError:  # it hangs up before all of such a line is sent
            status = 400
        assert status == 400
    chunked = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    head = b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    assert server.memory() - before < 100e6


def test_what_is_no_http_is_hung_up_on(server: Server) -> None:
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 1000,
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            assert b"200 OK" not in connection.recv(1000)


def test_a_thousand_requests_at_once_are_answered_or_told_to_come_again(server: Server) -> None:
    before = server.memory()
    body = json.dumps({"text": "a red ball", "rerank": True}).encode()
    request = (
        f"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        line = await reader.readline()
        await reader.read()
        writer.close()
        return int(line.split()[1])

    async def thousand() -> list[int]:
        return await asyncio.wait_for(asyncio.gather(*(one() for _ in range(1000))), 120)

    found = Counter(asyncio.run(thousand()))
    assert found.keys() <= {200, 503} and found[200] >= 33, found
    assert server.memory() - before < 300e6
    metrics = server.ask("/metrics").body.decode()
    assert "stillreel_searches_waiting 0" in metrics
    assert f'stillreel_requests_total{{route="/api/search",status="503"}} {found[503]}' in metrics or not found[503]


def test_malicious_uploads_are_refused(server: Server, videos: Path, tmp_path: Path) -> None:
    whole = (videos / "video-00.mp4").read_bytes()
    write_video(tmp_path / "large.mp4", 2, size=(4608, 2592), options={"crf": "51"})
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    concat = b"ffconcat version 1.0\nfile /etc/passwd\n"
    head = b"IHDR" + struct.pack(">II", 60_000, 60_000) + png()[24:29]
    bomb = png()[:12] + head + struct.pack(">I", zlib.crc32(head)) + png()[33:]
    cases: dict[bytes, tuple[int, str]] = {
        b"": (400, "empty"),
        b"junk" * 1000: (422, "not_a_video"),
        playlist: (422, "not_a_video"),
        concat: (422, "not_a_video"),
        whole[:200]: (422, ""),
        (tmp_path / "large.mp4").read_bytes(): (422, "too_large"),
        png()[:60]: (422, "no picture"),
        b"\x89PNG\r\n\x1a\n" + b"\0" * 100: (422, "no picture"),
        bomb: (422, "pixels"),
        whole + b"\0" * 2_000_000: (413, "too large"),
    }
    for data, (status, said) in cases.items():
        answer = server.ask("/api/like", data)
        assert answer.status == status and said in answer.json["error"], (data[:30], answer)
        assert b"/tmp" not in answer.body, "where it lay is nobody's business"
    assert server.ask("/api/like", whole, Origin="http://elsewhere.example").status == 403
    # One that promises more than it sends, and goes.
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /api/like HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nabc")


def test_names_of_others_are_not_answered_to(server: Server) -> None:
    for host in (
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "",
        f"127.0.0.1:{server.port}, evil.example",
        "127.0.0.1, evil.example",
        "127.0.0.1:80:80",
        "127.0.0.1:evil",
        "[::1",
        "::1",
        "evil.example@127.0.0.1",
        "127.0.0.1/evil",
        "127.0.0.1 evil",
    ):
        assert server.ask("/api/about", Host=host).status in (400, 421), host
    for host in (f"localhost:{server.port}", "127.0.0.1", f"[::1]:{server.port}"):
        assert server.ask("/api/about", Host=host).status == 200, host


def test_metrics_count_and_about_tells_limits(server: Server) -> None:
    lines = dict(line.rsplit(" ", 1) for line in server.ask("/metrics").body.decode().splitlines() if line[0] != "#")
    assert float(lines["stillreel_videos"]) == VIDEOS
    assert float(lines['stillreel_requests_total{route="/api/search",status="200"}']) > 0
    count = lines['stillreel_request_seconds_count{route="/api/search"}']
    assert lines['stillreel_request_seconds_bucket{route="/api/search",le="+Inf"}'] == count
    about = server.ask("/api/about").json
    assert about["videos"] == VIDEOS and about["can_rerank"] and about["max_query"] == 500


def test_clips_of_shards_are_served_as_what_the_model_saw(checkpoint: Path, tmp_path: Path) -> None:
    data = write_set(tmp_path / "clips", [3])
    assert index(data, tmp_path / "index", checkpoint) == 0
    with answering(tmp_path / "index") as running:
        assert running.ask("/video/0").status == 404
        assert running.ask("/frames/2").body[4:8] == b"ftyp"
        assert not running.search({"text": "a"}).json["results"][0]["file"]


def test_an_index_cut_while_served_is_an_error_and_not_the_end(made: Path, tmp_path: Path) -> None:
    out = copied(made, tmp_path / "index")
    with answering(out) as running:
        (vectors,) = out.glob("vectors-*")
        with vectors.open("r+b") as file:
            file.truncate(100)
        answer = running.search({"text": "a"})
        assert answer.status == 500 and "was cut" in answer.json["error"]
        assert running.ask("/health").status == 200


def test_it_ends_when_it_is_told_to(made: Path) -> None:
    with serving(made) as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
    with serving(made) as running:
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == 130


def test_what_cannot_be_served_is_said(
    made: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(made), f"port={taken.getsockname()[1]}", "device=cpu"]) == 2
        assert "cannot be listened on" in capsys.readouterr().err
    assert main(["serve", str(tmp_path)]) == 2
    assert "is no index" in capsys.readouterr().err
    out = copied(made, tmp_path / "index")
    (next(out.glob("frames-*"))).write_bytes(b"junk")
    assert main(["serve", str(out)]) == 1
    assert "is damaged" in capsys.readouterr().err


def test_a_coarse_model_is_served_without_a_second_stage(videos: Path, tmp_path: Path) -> None:
    assert index(videos, tmp_path / "index", write_model(tmp_path / "model", "mean")) == 0
    with answering(tmp_path / "index") as running:
        assert not running.ask("/api/about").json["can_rerank"]
        assert running.search({"text": "a", "rerank": True}).json["results"][0]["fine"] is None


def test_as_many_are_found_as_are_asked_for(server: Server) -> None:
    assert len(server.ask("/api/similar/0?k=2").json["results"]) == 2
    for wrong in ("0", "201", "-1", "two", "1e2"):
        refused = server.ask(f"/api/similar/0?k={wrong}")
        assert refused.status == 400
        assert "expected 1 to 200" in refused.json["error"]
