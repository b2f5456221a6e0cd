"""What `make fuzz` found once, made by code; the first inputs of every target; and, among the slow tests, all ten minutes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillreel.configs import StillreelError
from tests.fuzz.bench import Bench, fuzz
from tests.fuzz.targets import TARGETS
from tests.making import animate, check, jpeg, picture_folder, rows_of, write_tar

# Inputs that were tracebacks: names of 5,000 letters and of zero bytes, keys that are null, pages that do not unpack.
FOUND = {
    "parquet": (18, 71, 90, 103),
    "captions.json": (43,),
    "captions.csv": (694, 1172, 1576),
    "catalog": (1414,),
    "tars": (45, 46),
    "captions.parquet": (51,),
    "search index": (10000017, 10000067, 20000206),  # headers of .npy that end within brackets; a generation of -1
}
FIRST = 6


@pytest.mark.parametrize("name", TARGETS)
def test_first_inputs_and_what_was_found(name: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "home" / "inner")
    failures = {number: bench.try_one(name, number) for number in (*range(FIRST), *FOUND.get(name, ()))}
    assert set(failures.values()) == {"fine"}, failures


@pytest.mark.parametrize("path", ["x" * 5000 + ".jpg", "a\0b.jpg", "../x.jpg", "\ud800.jpg"])
def test_table_that_names_no_file_that_could_be(path: str, tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "stills", 3, width=64, height=48)
    with open(source / "captions.tsv", "ab") as table:
        table.write(f"{path}\ta dog\n".encode("utf-8", "surrogatepass"))
    assert animate(source, tmp_path / "out", max_rejects=1, frames=2, size=32) == 0
    assert check(tmp_path / "out").problems == []
    assert [row["status"] for row in rows_of(tmp_path / "out")] == ["written"] * 3 + ["rejected"]


def test_table_of_img2dataset_s_with_null_keys(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars" / "0.tar", [("a.jpg", jpeg()), ("a.txt", b"a dog")])
    (tmp_path / "tars" / "0_stats.json").write_text("{}")
    pq.write_table(pa.table({"key": ["a", None], "status": ["success", "success"]}), tmp_path / "tars" / "0.parquet")
    assert animate(tmp_path / "tars", tmp_path / "out", max_rejects=1, frames=2, size=32) == 0


def test_parquet_whose_pages_do_not_unpack(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    path = tmp_path / "src" / "0.parquet"
    pq.write_table(pa.table({"image": [jpeg(1)], "caption": ["a dog"]}), path)
    data = path.read_bytes()
    at = data.index(b"\xff\xd8") + 500
    path.write_bytes(data[: at - 480] + b"\xff" * 400 + data[at - 80 :])
    with pytest.raises(StillreelError):
        animate(tmp_path / "src", tmp_path / "out", attempts=1, max_rejects=0, frames=2, size=32)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_minutes() -> None:
    counts, failures = fuzz(seconds=600, seed=0, workers=2)
    assert not failures, failures
    assert all(counts[name] >= 20 for name in TARGETS), counts
