from __future__ import annotations

from pathlib import Path

import pytest

from stillreel.configs import DataError
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.index import Entry, decode_index, encode_index
from stillreel.shards.format.plan import Listed, PlanHeader, read_plan, read_plans, write_plan
from stillreel.shards.format.receipt import FileStamp, Receipt, decode_receipt


def header(number: int = 0, **changes: object) -> PlanHeader:
    values = {
        "number": number,
        "name": "set",
        "settings": {"shard_size": 4, "seed": 0},
        "presets": {},
        "libraries": {"numpy": "2"},
        "source": {"kind": "pictures"},
        "first_shard": 0,
        "first_position": 0,
    }
    return PlanHeader(**{**values, **changes})  # type: ignore[arg-type]


def listed(count: int) -> list[Listed]:
    return [Listed("stills/a.jpg", f"a {number} é", number, -1, ("a dog", "zwei Hunde")) for number in range(count)]


def test_plan_reads_back_shard_by_shard(tmp_path: Path) -> None:
    plan = write_plan(Folder(str(tmp_path)), header(first_shard=3, first_position=12), listed(9), {"broken rows": 2})
    assert (plan.samples, plan.shards, list(plan.shard_numbers)) == (9, 3, [3, 4, 5])
    assert plan.header.left_out == {"broken rows": 2}
    row = plan.read_shard(4)[1]
    assert (row.key, row.position, row.shard, row.source_key, row.captions) == (
        "set_000000017", 17, 4, "a 5 é", ("a dog", "zwei Hunde"),
    )  # fmt: skip
    assert [len(rows) for rows in plan.read_all()] == [4, 4, 1]
    assert [(one.source, one.source_key) for rows in plan.read_all() for one in rows][8] == ("stills/a.jpg", "a 8 é")
    assert read_plan(Folder(str(tmp_path)), 0) == plan


def test_equal_plans_have_equal_bytes(tmp_path: Path) -> None:
    digests = {write_plan(Folder(str(tmp_path / name)), header(), listed(9), {}).digest for name in "ab"}
    assert len(digests) == 1
    assert (
        write_plan(Folder(str(tmp_path / "c")), header(settings={"shard_size": 4, "seed": 1}), listed(9), {}).digest
        not in digests
    )


def test_nothing_listed_is_no_plan(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lists no samples; left out: rows without a caption 3"):
        write_plan(Folder(str(tmp_path)), header(), [], {"rows without a caption": 3})
    assert list(tmp_path.iterdir()) == []


def test_missing_plan_is_said(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert read_plans(folder) == []
    write_plan(folder, header(), listed(2), {})
    write_plan(folder, header(1, first_shard=1, first_position=2), listed(2), {})
    assert len(read_plans(folder)) == 2
    (tmp_path / "plan-000.parquet").unlink()
    with pytest.raises(DataError, match="a plan is missing"):
        read_plans(folder)
    (tmp_path / "plan-000.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match="not a plan that can be read"):
        read_plans(folder)


def receipt() -> Receipt:
    files = {part: FileStamp(10, "ab" * 32) for part in ("tar", "parquet", "idx")}
    return Receipt("set-000000", "cd" * 32, 5, 4, {"corrupt": 1}, files, {"numpy": "2"}, 1, {"total": 0.5})


def test_receipt_reads_back_and_is_small() -> None:
    data = receipt().encode()
    assert decode_receipt(data) == receipt()
    assert len(data) < 1500


@pytest.mark.parametrize(
    ("old", "new"), [(b'"written": 4', b'"written": 5'), (b'"corrupt": 1', b'"corrupt": 0'), (b"0.5", b"0.4")]
)
def test_edited_receipt_is_not_believed(old: bytes, new: bytes) -> None:
    data = receipt().encode()
    assert old in data
    with pytest.raises(ValueError, match="edited or damaged"):
        decode_receipt(data.replace(old, new))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"digest": 1}', b"\xff"])
def test_what_is_no_receipt_is_said(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"receipt|digest"):
        decode_receipt(data)


def test_index_reads_back() -> None:
    entries = [Entry("set_000000000", 0, 1024, b"\0" * 32), Entry("set_000000001", 1024, 512, b"\1" * 32)]
    assert decode_index(encode_index(entries)) == entries
    assert encode_index(entries) == encode_index(list(entries))
    assert decode_index(encode_index([])) == []
    with pytest.raises(ValueError, match="no index"):
        decode_index(b"nonsense")
