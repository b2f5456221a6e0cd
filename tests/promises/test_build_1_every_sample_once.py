"""Promise 1 of a build: every planned sample is in exactly one shard once, or rejected once with a reason; `verify` proves
it from the bytes. Each test damages a finished data set in one way, and asks that verify exits 1 and names the shard, and
the key where one is concerned.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillreel.shards.format.index import decode_index, encode_index
from stillreel.shards.format.receipt import decode_receipt
from tests.making import animate, check, picture_folder, rows_of, stillreel

SHARD = "stills-000001"


@pytest.fixture
def out(built: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a finished data set, to damage."""
    return Path(shutil.copytree(built["recipe"], tmp_path / "out"))


def problems(out: Path) -> list[str]:
    return [str(problem) for problem in check(out).problems]


def tar_of(out: Path) -> Path:
    return out / "shards" / f"{SHARD}.tar"


def third_sample(out: Path) -> tuple[str, int, int]:
    entry = decode_index((out / "shards" / f"{SHARD}.idx").read_bytes())[2]
    return entry.key, entry.offset, entry.length


@pytest.mark.parametrize("store", ["recipe", "frames", "video"])
def test_whole_data_set_is_proven(built: dict[str, Path], store: str) -> None:
    verdict = check(built[store])
    assert verdict.problems == []
    assert verdict.planned == verdict.written == 25
    assert verdict.hashed == sum(
        path.stat().st_size for path in built[store].glob("shards/*") if path.suffix != ".json"
    )


def test_command_prints_the_sum_and_exits_0_or_1(out: Path) -> None:
    good = stillreel("verify", out)
    assert (good.returncode, "planned 25 = written 25 + rejected 0" in good.stdout) == (0, True)
    tar_of(out).unlink()
    bad = stillreel("verify", out)
    assert bad.returncode == 1
    assert f"PROBLEM {SHARD}: tar missing" in bad.stdout


def test_rejects_are_part_of_the_sum(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "stills", 10)
    (source / "00003.jpg").write_bytes((source / "00003.jpg").read_bytes()[:500])
    (source / "00004.jpg").unlink()
    assert animate(source, tmp_path / "out", max_rejects=1) == 0
    verdict = check(tmp_path / "out")
    assert verdict.problems == []
    assert (verdict.planned, verdict.written, dict(verdict.rejected)) == (10, 8, {"truncated": 1, "missing": 1})
    rejected = {row["source_key"]: row for row in rows_of(tmp_path / "out") if row["status"] == "rejected"}
    assert rejected["00003.jpg"]["reason"] == "truncated"
    assert rejected["00004.jpg"]["detail"] == "stills/00004.jpg is not there"


def test_flipped_byte(out: Path) -> None:
    key, offset, length = third_sample(out)
    data = bytearray(tar_of(out).read_bytes())
    data[offset + length // 2] ^= 1
    tar_of(out).write_bytes(data)
    assert f"{SHARD}, {key}: its bytes in the tar are not those that were written" in problems(out)


def test_every_flipped_bit_of_a_sample_is_seen(out: Path) -> None:
    """Headers, payloads and padding alike, and the end of the archive."""
    data = tar_of(out).read_bytes()
    for at in [*range(0, 2048, 97), len(data) - 700, len(data) - 1]:
        flipped = bytearray(data)
        flipped[at] ^= 0x10
        tar_of(out).write_bytes(flipped)
        assert any(SHARD in problem for problem in problems(out)), at


def test_tar_cut_at_a_member_boundary(out: Path) -> None:
    key, offset, _ = third_sample(out)
    with tarfile.open(tar_of(out)) as tar:
        boundary = next(member.offset for member in tar if member.name == f"{key}.txt")
    assert boundary > offset
    tar_of(out).write_bytes(tar_of(out).read_bytes()[:boundary])
    found = problems(out)
    assert f"{SHARD}, {key}: tar: no end of archive at byte {boundary}" in found
    assert any("written by its table, but not in the tar" in problem for problem in found)


def test_tar_cut_inside_a_header(out: Path) -> None:
    key, offset, _ = third_sample(out)
    tar_of(out).write_bytes(tar_of(out).read_bytes()[: offset + 100])
    found = problems(out)
    assert any(re.match(rf"{SHARD}, \S+: tar: cut inside a header at byte {offset}", problem) for problem in found), (
        found
    )
    assert f"{SHARD}, {key}: its bytes in the tar are not those that were written" in found


def test_zeroed_hole(out: Path) -> None:
    key, offset, _ = third_sample(out)
    data = bytearray(tar_of(out).read_bytes())
    data[offset : offset + 1024] = bytes(1024)
    tar_of(out).write_bytes(data)
    found = problems(out)
    assert f"{SHARD}, {key}: its bytes in the tar are not those that were written" in found
    assert any(f"tar: zeroed hole at byte {offset}" in problem for problem in found)


def test_removed_shard(out: Path) -> None:
    for path in out.glob(f"shards/{SHARD}.*"):
        path.unlink()
    found = problems(out)
    assert f"{SHARD}: missing: it has no receipt" in found
    assert f"{SHARD}: tar missing" in found


@pytest.mark.parametrize("part", ["parquet", "idx", "json"])
def test_removed_side_file(out: Path, part: str) -> None:
    (out / "shards" / f"{SHARD}.{part}").unlink()
    assert any(problem.startswith(SHARD) and "missing" in problem for problem in problems(out))


def duplicate_sample(out: Path) -> str:
    """Append the third sample to its tar once more, as a careless tool would."""
    key, offset, length = third_sample(out)
    data = tar_of(out).read_bytes()
    entries = decode_index((out / "shards" / f"{SHARD}.idx").read_bytes())
    end = entries[-1].offset + entries[-1].length
    doubled = data[:end] + data[offset : offset + length]
    tar_of(out).write_bytes(doubled + bytes(-len(doubled) % 10240 or 10240))
    return key


def test_duplicated_sample(out: Path) -> None:
    key = duplicate_sample(out)
    assert f"{SHARD}, {key}: member {key}.jpg stands 2 times in the tar" in problems(out)


def test_duplicated_sample_with_an_index_and_a_receipt_to_match(out: Path) -> None:
    """A forger who fixes index and receipt is still at odds with the table, the plan and the manifest."""
    key = duplicate_sample(out)
    path = out / "shards" / f"{SHARD}.idx"
    entries = decode_index(path.read_bytes())
    again = entries[2]._replace(offset=entries[-1].offset + entries[-1].length)
    path.write_bytes(encode_index([*entries, again]))
    mend_receipt(out)
    found = problems(out)
    assert f"{SHARD}: its receipt is not the one in the manifest" in found
    assert any("its index and its table do not agree" in problem for problem in found)
    assert any(key in problem for problem in found)


def mend_receipt(out: Path) -> None:
    """Make the receipt fit the files as they are now, own digest included."""
    import hashlib

    from stillreel.shards.format.receipt import FileStamp
    from stillreel.shards.format.tar import digest_of_samples

    path = out / "shards" / f"{SHARD}.json"
    receipt = decode_receipt(path.read_bytes())
    files = {}
    for part in ("parquet", "idx"):
        data = path.with_suffix(f".{part}").read_bytes()
        files[part] = FileStamp(len(data), hashlib.sha256(data).hexdigest())
    entries = decode_index(path.with_suffix(".idx").read_bytes())
    tar = path.with_suffix(".tar").read_bytes()
    digest = digest_of_samples(hashlib.sha256(tar[one.offset : one.offset + one.length]).digest() for one in entries)
    files["tar"] = FileStamp(len(tar), digest)
    path.write_bytes(type(receipt)(**{**receipt.__dict__, "files": files}).encode())


@pytest.mark.parametrize("field", ["written", "planned", "attempt", "plan"])
def test_edited_receipt(out: Path, field: str) -> None:
    path = out / "shards" / f"{SHARD}.json"
    receipt = json.loads(path.read_bytes())
    receipt[field] = receipt[field] + 1 if isinstance(receipt[field], int) else "0" * 64
    path.write_text(json.dumps(receipt))
    assert f"{SHARD}: receipt: its digest does not match its contents: it was edited or damaged" in problems(out)


def edit_plan(out: Path, change: Callable[[list[dict[str, object]]], object]) -> None:
    path = out / "plan-000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    metadata = pq.ParquetFile(path).metadata.metadata
    pq.write_table(
        pa.Table.from_pylist(rows, schema=table.schema.with_metadata({b"stillreel": metadata[b"stillreel"]})), path
    )


@pytest.mark.parametrize("kind", ["another source", "a sample less", "a sample twice"])
def test_edited_plan(out: Path, kind: str) -> None:
    changes: dict[str, Callable[[list[dict[str, object]]], object]] = {
        "another source": lambda rows: rows[12].update(source_key="elsewhere.jpg"),
        "a sample less": lambda rows: rows.pop(12),
        "a sample twice": lambda rows: rows.insert(12, rows[12]),
    }
    edit_plan(out, changes[kind])
    found = problems(out)
    assert "plan-000.parquet: differs from the plan that was built: it was edited or damaged" in found
    assert any(problem.startswith(f"{SHARD}, stills_00000001") for problem in found), found
    assert any("its receipt is of another plan than plan-000.parquet" in problem for problem in found)


def test_edited_table(out: Path) -> None:
    path = out / "shards" / f"{SHARD}.parquet"
    rows = pq.read_table(path)
    edited = rows.to_pylist()
    edited[3]["status"], edited[3]["reason"] = "rejected", "corrupt"
    pq.write_table(pa.Table.from_pylist(edited, schema=rows.schema), path)
    found = problems(out)
    assert f"{SHARD}: parquet does not hash to what the receipt says" in found
    assert f"{SHARD}, {edited[3]['key']}: its index and its table do not agree" in found


def test_stray_shard_is_named(out: Path) -> None:
    shutil.copy(tar_of(out), out / "shards" / "stills-000099.tar")
    assert any(problem.startswith("shards/stills-000099.tar: no plan knows this file") for problem in problems(out))


@pytest.mark.parametrize("name", ["manifest.json", "plan-000.parquet"])
def test_without_its_books_nothing_is_proven(out: Path, name: str) -> None:
    (out / name).unlink()
    said = stillreel("verify", out)
    assert said.returncode == 1
    assert name.split("-")[0].split(".")[0] in said.stdout + said.stderr


def test_edited_manifest(out: Path) -> None:
    path = out / "manifest.json"
    path.write_text(path.read_text().replace('"written": 25', '"written": 26'))
    assert "manifest.json: totals.written is 26, expected 25" in problems(out)


def test_verify_of_something_else_is_refused(tmp_path: Path) -> None:
    said = stillreel("verify", tmp_path)
    assert said.returncode == 1
    assert "holds no plan" in said.stderr
    assert "Traceback" not in said.stderr


def test_tar_rewritten_by_another_tool_is_seen(out: Path) -> None:
    """The same members in other headers: a data set whose bytes are not what the receipts say."""
    with tarfile.open(tar_of(out)) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(tar_of(out), "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert any(SHARD in problem for problem in problems(out))
