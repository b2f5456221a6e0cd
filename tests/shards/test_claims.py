"""Names and fields that are read from files: whatever they say, nothing outside of OUT is written or read, and what is wrong is
named, with exit 1 and no traceback."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillreel.cli import main
from stillreel.configs import DataError
from stillreel.configs.settings import canonical_json
from stillreel.configs.system.claims import checked_name, checked_path, damage_of, parse_json
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.survey import survey
from stillreel.shards.format import index, plan
from stillreel.shards.format.plan import read_plans
from stillreel.shards.stream.stream import open_blend
from tests.making import animate, check, stillreel
from tests.shards.test_hostile_tars import sample
from tests.streaming import keys_of_epoch, write_set

NAMES = [
    "../x",
    "../../outside/x",
    "/etc/x",
    "a/b",
    "a\\b",
    "",
    ".",
    "..",
    ".x",
    "x\0",
    "x\n",
    "ü",
    "-",
    "x" * 300,
    7,
    None,
    ["x"],
]


@pytest.fixture
def out(built: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(built["recipe"], tmp_path / "out"))


@pytest.mark.parametrize("name", NAMES)
def test_only_names_of_the_key_alphabet_are_taken(name: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no name of a file in"):
        checked_name(name, Folder(str(tmp_path)))


def test_names_that_a_link_leads_outside_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out" / "inner").symlink_to(tmp_path / "out")
    folder = Folder(str(tmp_path / "out"))
    assert checked_name("inner", folder) == "inner"
    assert checked_name("new", folder, "shards/{}.tar") == "new"
    with pytest.raises(ValueError, match="a link leads there"):
        checked_name("link", folder)
    with pytest.raises(ValueError, match="a link leads there"):
        checked_name("x", folder, "link/{}.tar")


@pytest.mark.parametrize("path", ["../x", "a/../x", "/x", "a//b", "a/", "", "./x", "x\0", 5])
def test_paths_of_a_user_s_files_stay_in_their_folder(path: object) -> None:
    with pytest.raises(ValueError, match="is no path within its folder"):
        checked_path(path)
    assert checked_path("Fotos für alle/..a/b c.jpg") == "Fotos für alle/..a/b c.jpg"


def edit_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    table = pq.ParquetFile(path).read()
    header = json.loads(pq.ParquetFile(path).metadata.metadata[b"stillreel"])
    change(header)
    size = header["settings"]["shard_size"] if isinstance(header.get("settings"), dict) else 10
    table = table.replace_schema_metadata({b"stillreel": json.dumps(header).encode()})
    pq.write_table(table, path, row_group_size=size if isinstance(size, int) and size > 0 else 10)


@pytest.mark.parametrize("name", ["../../outside/x", "/tmp/x", "a/b", "..", 7, None])
def test_plan_that_names_another_place_writes_nothing_there(
    name: object, stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "home" / "out"
    assert animate(stills, out, shard_size=10, frames=2, size=32) == 0
    shutil.rmtree(out / "shards")
    (out / "manifest.json").unlink()
    edit_header(out / "plan-000.parquet", lambda header: header.update(name=name))
    before = {str(path) for path in tmp_path.rglob("*")}
    for words in (["animate", str(stills), str(out), "shard_size=10", "frames=2", "size=32", "ray=off"],
                  ["verify", str(out)], ["stats", str(out)], ["preview", str(out)]):  # fmt: skip
        assert main(words) == 1
        assert "plan-000.parquet is not a plan that can be read" in capsys.readouterr().err
    assert {str(path) for path in tmp_path.rglob("*")} - {*before, str(out / ".lock")} == set()


def test_shards_folder_that_is_a_link_is_not_written_through(stills: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert animate(stills, tmp_path / "out", shard_size=10, frames=2, size=32) == 0
    shutil.rmtree(tmp_path / "out" / "shards")
    (tmp_path / "out" / "shards").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="a link leads there"):
        animate(stills, tmp_path / "out", shard_size=10, frames=2, size=32)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("key", ["../x", "stills_000000099", "stills_000000000\n"])
def test_plan_whose_keys_do_not_follow_makes_no_shard(key: str, out: Path) -> None:
    table = pq.ParquetFile(out / "plan-000.parquet").read()
    rows = table.to_pylist()
    rows[0]["key"] = key
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), out / "plan-000.parquet", row_group_size=10)
    (found,) = read_plans(Folder(str(out)))
    with pytest.raises(DataError, match="out of turn"):
        found.read_shard(0)
    assert check(out).problems


@pytest.mark.parametrize("source", ["../../etc/passwd", "/etc/passwd", "stills/../../x", "stills/x\0"])
def test_plan_whose_sources_lie_elsewhere_reads_nothing_there(source: str, out: Path) -> None:
    table = pq.ParquetFile(out / "plan-000.parquet").read()
    rows = table.to_pylist()
    rows[0]["source"] = source
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), out / "plan-000.parquet", row_group_size=10)
    with pytest.raises(DataError, match="is no path within its folder"):
        read_plans(Folder(str(out)))[0].read_shard(0)


@pytest.mark.parametrize("field", ["number", "name", "settings", "first_shard", "source", "schema"])
@pytest.mark.parametrize("value", ["absent", -1, "x", None, [1], 1 << 70])
def test_plan_headers_of_any_shape_are_named(field: str, value: object, out: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        if value == "absent":
            del header[field]
        else:
            header[field] = value

    edit_header(out / "plan-000.parquet", change)
    if (field, value) == ("name", "x"):
        assert check(out).problems
        return
    with pytest.raises(DataError, match=r"plan-000\.parquet is not a plan that can be read"):
        read_plans(Folder(str(out)))


def mend(body: dict[str, Any]) -> bytes:
    """A receipt with its own digest, as a forger writes it."""
    body.pop("digest", None)
    body["digest"] = hashlib.sha256(canonical_json(body)).hexdigest()
    return json.dumps(body, sort_keys=True, indent=1).encode() + b"\n"


FORGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "a field less": lambda body: body.pop("written"),
    "a field more": lambda body: body.update(more=1),
    "a negative count": lambda body: body.update(written=-1),
    "text for a number": lambda body: body.update(planned="10"),
    "a part less": lambda body: body["files"].pop("idx"),
    "a part more": lambda body: body["files"].update({"../x": {"bytes": 1, "digest": ""}}),
    "a stamp of another shape": lambda body: body["files"].update(idx=[1, 2]),
    "negative bytes": lambda body: body["files"]["tar"].update(bytes=-5),
    "another shard's name": lambda body: body.update(shard="../../x"),
    "rejects that are no counts": lambda body: body.update(rejected={"corrupt": "many"}),
    "seconds that are no numbers": lambda body: body.update(seconds={"total": []}),
    "another schema": lambda body: body.update(schema=9),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_receipts_are_damaged_for_whoever_reads_them(name: str, out: Path) -> None:
    path = out / "shards" / "stills-000001.json"
    body = json.loads(path.read_bytes())
    FORGED[name](body)
    path.write_bytes(mend(body))
    found = survey(Folder(str(out)), read_plans(Folder(str(out))), full=True)
    assert [finding.state for finding in found.findings] == ["valid", "damaged", "valid"]
    assert any(str(problem).startswith("stills-000001: ") for problem in check(out).problems)


@pytest.mark.parametrize("name", ["manifest.json", "shards/stills-000001.json"])
@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b'{"digest": NaN}', b"9" * 5000]
)
def test_json_of_any_shape_is_damage(name: str, data: bytes, out: Path) -> None:
    (out / name).write_bytes(data)
    assert any(
        name.removeprefix("shards/").removesuffix(".json")[:8] in str(problem) for problem in check(out).problems
    )
    if name == "manifest.json":
        with pytest.raises(DataError, match=r"manifest\.json is damaged or was edited"):
            open_blend(str(out))


def test_json_nested_deep_is_no_json() -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json(b"[" * 100_000)


ENTRIES = {
    "a negative offset": lambda offsets, lengths: offsets.__setitem__(0, -512),
    "a negative length": lambda offsets, lengths: lengths.__setitem__(0, -512),
    "no length": lambda offsets, lengths: lengths.__setitem__(1, 0),
    "a length of 2^60": lambda offsets, lengths: lengths.__setitem__(1, 1 << 60),
    "a length beyond the tar": lambda offsets, lengths: lengths.__setitem__(-1, 1 << 40),
    "an offset beyond the tar": lambda offsets, lengths: offsets.__setitem__(-1, 1 << 45),
    "an overlap": lambda offsets, lengths: offsets.__setitem__(1, 512),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_index_that_points_elsewhere_is_a_bad_shard_and_no_storage_s_fault(name: str, tmp_path: Path) -> None:
    out = write_set(tmp_path / "out", [4, 4, 4])
    path = out / "shards" / "clips-000001.idx"
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    offsets, lengths = (table[column].to_numpy().copy() for column in ("offset", "length"))
    ENTRIES[name](offsets, lengths)
    rows = zip(table["key"].to_pylist(), offsets.tolist(), lengths.tolist(), table["sha256"].to_pylist(), strict=True)
    path.write_bytes(index.encode_index([index.Entry(*row) for row in rows]))
    assert len(keys_of_epoch(open_blend(str(out)))) == 8


def test_command_that_reads_an_index_that_lies(tmp_path: Path) -> None:
    out = write_set(tmp_path / "out", [4, 4, 4])
    path = out / "shards" / "clips-000001.idx"
    entries = index.decode_index(path.read_bytes())
    path.write_bytes(index.encode_index([entries[0]._replace(length=1 << 60), *entries[1:]]))
    said = stillreel("stream", out, "steps=2", "batch=4", "workers=1", "max_bad=1", "size=32", "frames=2")
    assert "Traceback" not in said.stderr and "no answer" not in said.stderr, said.stderr
    assert "clips-000001.idx" in said.stdout + said.stderr


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["shards"][0].update(name="../../x.tar"),
        lambda body: body["shards"][0].update(name="/etc/passwd"),
        lambda body: body["shards"][0].update(samples=-1),
        lambda body: body["shards"].append(body["shards"][0]),
        lambda body: body.pop("tars"),
        lambda body: body.update(tars=5),
        lambda body: body.update(more=[]),
    ],
)
def test_catalog_that_was_edited_is_named(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "0.tar").write_bytes(sample("a", 1) + sample("b", 2) + bytes(10240))
    assert stillreel("catalog", tmp_path / "src", tmp_path / "out").returncode == 0
    body = json.loads((tmp_path / "out" / "catalog.json").read_bytes())
    change(body)
    (tmp_path / "out" / "catalog.json").write_text(json.dumps(body))
    with pytest.raises(DataError, match=r"catalog\.json is damaged; run `stillreel catalog` again"):
        open_blend(str(tmp_path / "out"))


def test_storage_s_errors_are_not_taken_for_damage() -> None:
    disk = (PermissionError(13, "no"), FileNotFoundError("gone"), OSError(5, "i/o"))
    for error in (ConnectionError("down"), MemoryError(), *disk):
        with pytest.raises(type(error)), damage_of("a file"):
            raise error
    parsers = (OSError("thrift"), pa.ArrowInvalid("x"), RecursionError())
    for damage in (ValueError("x"), KeyError("x"), OverflowError(), *parsers):
        with pytest.raises(DataError, match="a file: "), damage_of("a file"):
            raise damage


def test_golden_names() -> None:
    """What names follow from: readers of old data sets count on it."""
    assert plan.shard_name("cc3m", 12) == "cc3m-000012" and plan.key_of("cc3m", 7) == "cc3m_000000007"
    assert np.iinfo(np.int64).max > index._MOST
