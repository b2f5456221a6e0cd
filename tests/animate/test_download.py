"""`stillreel download`, with the real img2dataset and a real HTTP server on this machine."""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillreel.animate.download.urls import convert_table
from stillreel.configs import DataError, RequestError
from stillreel.configs.build import DownloadSettings
from stillreel.configs.system.storage import Folder
from tests.making import SHARED, animate, check, jpeg, members_of_tars, needs_shared, rows_of, stillreel


class Server(http.server.ThreadingHTTPServer):
    """Serves /N.jpg for every N in `there`; `slow` seconds late."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.there: set[int] = set()
        self.slow = 0.0
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        time.sleep(self.server.slow)
        name = self.path.removeprefix("/").removesuffix(".jpg")
        if not name.isdigit() or int(name) not in self.server.there:
            self.send_error(404)
            return
        data = jpeg(int(name))
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def cc3m(path: Path, server: Server, count: int) -> Path:
    """A table as CC3M publishes it: no header, caption first, quotes that mean nothing."""
    path.write_text("".join(f'"a caption {number}\t{server.url}/{number}.jpg\n' for number in range(count)))
    return path


def test_download_retry_what_failed_and_animate(server: Server, tmp_path: Path) -> None:
    table, out = cc3m(tmp_path / "cc3m.tsv", server, 25), tmp_path / "images"
    server.there = set(range(25)) - {3, 11, 24}
    words = ("download", table, out, "shard_size=10", "processes=1", "progress=lines")
    said = stillreel(*words)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "22 of 25 pictures (88.0%)" in said.stdout
    assert "3   12.0%  failed to download: HTTP Error 404: Not Found" in said.stdout
    assert "25/25 rows" in said.stderr
    assert animate(out, tmp_path / "clips", name="cc3m") == 0
    assert {row["captions"][0] for row in rows_of(tmp_path / "clips")} >= {'"a caption 0', '"a caption 23'}  # type: ignore[index]
    # One of the three is there now: the rerun asks for the three, and for nothing else.
    server.there.add(11)
    server.asked.clear()
    again = stillreel(*words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "trying the 3 rows that failed again" in again.stderr
    assert "23 of 25 pictures (92.0%)" in again.stdout
    assert sorted(set(server.asked)) == ["/11.jpg", "/24.jpg", "/3.jpg"]
    assert sorted(path.name for path in out.glob("*.tar")) == ["00000.tar", "00001.tar", "00002.tar", "00003.tar"]
    assert animate(out, tmp_path / "clips", name="cc3m", extend="new") == 0
    verdict = check(tmp_path / "clips")
    assert (verdict.written, verdict.problems) == (23, [])
    assert members_of_tars(tmp_path / "clips")["cc3m_000000022.txt"] == b'"a caption 11'


def test_interrupted_download_goes_on(server: Server, tmp_path: Path) -> None:
    table, out = cc3m(tmp_path / "cc3m.tsv", server, 60), tmp_path / "images"
    server.there = set(range(60))
    server.slow = 0.3
    words = ["download", str(table), str(out), "shard_size=10", "processes=1", "threads=4", "progress=off"]
    process = subprocess.Popen(
        [sys.executable, "-m", "stillreel", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    end = time.monotonic() + 240
    while len(list(out.glob("*_stats.json"))) < 2:
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130, said
    assert "finished tars are kept" in said
    done = len(list(out.glob("*_stats.json")))
    time.sleep(0.5)  # what was sent before the stop is heard
    asked = len(server.asked)
    time.sleep(1.5)
    assert len(server.asked) == asked, "nobody goes on downloading"
    server.slow = 0.0
    again = stillreel(*words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"6 tars, {done} of them finished" in again.stderr
    assert "60 of 60 pictures" in again.stdout


def test_dead_server_is_an_honest_table_and_its_folder_takes_no_other(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cc12m.tsv").write_text("".join(f"http://127.0.0.1:9/{number}.jpg\ta caption\n" for number in range(5)))
    said = stillreel("download", tmp_path / "cc12m.tsv", tmp_path / "images", "progress=off", "timeout=2")
    assert said.returncode == 1
    assert "0 of 5 pictures (0.0%)" in said.stdout
    assert "Connection refused" in said.stdout
    other = stillreel("download", cc3m(tmp_path / "b.tsv", server, 2), tmp_path / "images", "progress=off")
    assert other.returncode == 2
    assert "holds the download of another table" in other.stderr


def test_foreign_folders_are_refused(server: Server, tmp_path: Path) -> None:
    table = cc3m(tmp_path / "a.tsv", server, 1)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "00000.tar").write_bytes(b"")
    foreign = stillreel("download", table, tmp_path / "foreign", "progress=off")
    assert foreign.returncode == 2
    assert "tars that stillreel did not download" in foreign.stderr


def converted(tmp_path: Path, name: str, **settings: object) -> list[tuple[int, str, str]]:
    target = tmp_path / "converted.parquet"
    convert_table(Folder(str(tmp_path)), [name], target, DownloadSettings.resolve(settings))
    return [tuple(row.values()) for row in pq.read_table(target).to_pylist()]  # type: ignore[misc]


EXPECTED = [(0, "http://a/1.jpg", 'a "dog"'), (1, "https://b/2.jpg", "zwei, Katzen")]


def test_tables_of_every_shape(tmp_path: Path) -> None:
    import gzip

    rows = [(url, caption) for _, url, caption in EXPECTED]
    (tmp_path / "cc12m.tsv").write_text("".join(f"{url}\t{caption}\n" for url, caption in rows))
    (tmp_path / "cc3m.tsv").write_text("".join(f"{caption}\t{url}\n" for url, caption in rows))
    (tmp_path / "head.tsv").write_text(
        "caption\tid\turl\n" + "".join(f"{caption}\t7\t{url}\n" for url, caption in rows)
    )
    (tmp_path / "table.csv").write_text('URL,TEXT\nhttp://a/1.jpg,"a ""dog"""\nhttps://b/2.jpg,"zwei, Katzen"\n')
    (tmp_path / "table.jsonl").write_text(
        "".join(json.dumps({"url": url, "text": caption}) + "\n" for url, caption in rows)
    )
    (tmp_path / "cc3m.tsv.gz").write_bytes(gzip.compress((tmp_path / "cc3m.tsv").read_bytes()))
    pq.write_table(
        pa.table({"URL": [url for url, _ in rows], "TEXT": [text for _, text in rows]}), tmp_path / "laion.parquet"
    )
    for name in ("cc12m.tsv", "cc3m.tsv", "head.tsv", "table.csv", "table.jsonl", "cc3m.tsv.gz", "laion.parquet"):
        assert converted(tmp_path, name) == EXPECTED, name
    (tmp_path / "odd.tsv").write_text("where\twhat\nhttp://a/1.jpg\tx\n")
    assert converted(tmp_path, "odd.tsv", url="where", caption="what") == [(0, "http://a/1.jpg", "x")]


def test_rows_that_cannot_be_downloaded_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(
        "http://a/1.jpg\tfine\nftp://b\tno\nhttp://c/3.jpg\t  \nalone\nhttp://d/5.jpg\tfine too\n"
    )
    table = convert_table(Folder(str(tmp_path)), ["t.tsv"], tmp_path / "o.parquet", DownloadSettings())
    assert (table.rows, dict(table.left_out)) == (2, {"rows without a http(s) URL": 2, "rows without a caption": 1})
    assert pq.read_table(tmp_path / "o.parquet")["row"].to_pylist() == [0, 4]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.tsv", "a\tb\nc\td\n", "no column named url"),
        ("t.tsv", "http://a\thttp://b\n", "of which 2 are URLs"),
        ("t.tsv", "http://a\tx\ty\n", "has 3 fields"),
        ("t.jsonl", "[1]\n", "expected an object, found list"),
        ("t.jsonl", '{"a": 1}\n', "no column named url"),
        ("t.jsonl", "{\n", "line 1: not JSON"),
        ("t.parquet", "x", "is no Parquet file"),
        ("t.xlsx", "x", "expected .tsv, .csv, .jsonl or .parquet"),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises((RequestError, DataError), match=message.replace("(", r"\(")):
        converted(tmp_path, name)


def test_empty_table_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("")
    with pytest.raises(DataError, match="no row has a URL and a caption"):
        converted(tmp_path, "t.tsv")


@needs_shared
def test_published_tables_are_read(tmp_path: Path) -> None:
    lists = Folder(str(SHARED / "data" / "annotations" / "image_text_lists"))
    for name, count in (("Validation_GCC-1.1.0-Validation.tsv", 15_833), ("img2dataset_laion_10000.parquet", 9_990)):
        table = convert_table(lists, [name], tmp_path / "o.parquet", DownloadSettings())
        assert table.rows + table.left_out.total() >= count
        assert table.rows >= count


def test_a_folder_of_tables_is_one_table(server: Server, tmp_path: Path) -> None:
    """As LAION, COYO and DataComp lie: Parquet files with other names of columns than ours, and no end of columns."""
    for part in range(2):
        rows = [
            {
                "TEXT": None if number == 1 else f"picture {part} {number}",
                "URL": f"{server.url}/{number}.jpg",
                "pwatermark": 0.5,
            }
            for number in range(3)
        ]
        (tmp_path / "tables" / "sub").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tables" / "sub" / f"part-{part:05d}.parquet")
    server.there = {0, 2}
    words = ("download", tmp_path / "tables", tmp_path / "images", "shard_size=10", "processes=1", "progress=off")
    said = stillreel(*words)
    assert said.returncode == 0, said.stderr
    assert "rows without a caption 2" in said.stderr
    assert "4 of 4 pictures (100.0%)" in said.stdout
    server.asked.clear()
    assert "4 of 4 pictures" in stillreel(*words).stdout
    assert server.asked == [], "everything came: nothing is left to do"
    (tmp_path / "tables" / "more.tsv").write_text("x\thttp://localhost/1.jpg\n")
    for other, message in (
        (tmp_path / "tables", "tables of 2 kinds"),
        (tmp_path / "images" / "_stillreel", "lie in each other"),
    ):
        refused = stillreel("download", other, tmp_path / "images" if "_" in other.name else tmp_path / "o")
        assert refused.returncode == 2 and message in refused.stderr
