"""A plan's rows without the whole of its footer."""

from __future__ import annotations

import io
import pickle
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillreel.configs import DataError
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.footer import group_metadata, read_footer
from stillreel.shards.format.plan import Listed, Plan, PlanHeader, open_plan, write_plan


def planned(folder: Path, count: int) -> Plan:
    header = PlanHeader(0, "set", {"shard_size": 2}, {}, {}, {"kind": "pictures"}, first_shard=3, first_position=6)
    listed = [Listed("a/b.tar", f"{number} é", number, -1, ("a dog",) * (number % 3)) for number in range(count)]
    return write_plan(Folder(str(folder)), header, listed, {})


@pytest.mark.parametrize("count", [1, 27, 29, 300])  # 14 groups and 15: their number is spelled otherwise from there on
def test_every_shard_is_read_by_its_own_part(tmp_path: Path, count: int) -> None:
    plan = planned(tmp_path, count)
    assert (plan.samples, plan.shards) == (count, -(-count // 2))
    for shard in plan.shard_numbers:
        alone = open_plan(plan.folder, 0, plan.digest, plan.locate(shard))
        assert alone == plan
        rows = alone.read_shard(shard)
        assert [row.source_key for row in rows] == [
            f"{at} é" for at in range((shard - 3) * 2, min(count, shard * 2 - 4))
        ]
        assert rows == plan.read_shard(shard)


def test_what_a_task_is_told_does_not_grow(tmp_path: Path) -> None:
    few, many = (planned(tmp_path / str(count), count) for count in (20, 4000))
    sizes = [len(pickle.dumps(plan.locate(7))) for plan in (few, many)]
    assert abs(sizes[0] - sizes[1]) < 40, "offsets take a few bytes more in a longer file"
    assert sizes[0] < 1500


def test_groups_of_any_shape_are_cut_as_pyarrow_reads_them() -> None:
    """With statistics, nulls and pages of other encodings, so that one group's shape is not the next one's."""
    sink = io.BytesIO()
    schema = pa.schema(
        [("number", pa.int64()), ("text", pa.string()), ("flag", pa.bool_()), ("list", pa.list_(pa.float64()))]
    )
    dice = random.Random(1)
    tables = []
    with pq.ParquetWriter(sink, schema, compression="zstd", write_statistics=True) as writer:
        for size in (1, 40, 3, 0, 7, 500, 2, 2, 2):
            rows = [
                {
                    "number": dice.choice([None, dice.getrandbits(60)]),
                    "text": dice.choice([None, "x" * dice.randrange(300)]),
                    "flag": dice.choice([None, True, False]),
                    "list": dice.choice([None, [], [0.5, None]]),
                }
                for _ in range(size)
            ]
            tables.append(pa.Table.from_pylist(rows, schema))
            writer.write_table(tables[-1])
    footer = read_footer(sink)
    written = [table for table in tables if len(table)]
    assert footer.rows == sum(map(len, tables))
    found = [
        pq.ParquetFile(sink, metadata=group_metadata(footer.head, footer.group(at))).read_row_group(0)
        for at in range(footer.groups)
    ]
    assert [table for table in found if len(table)] == written


def test_a_plan_that_is_gone_or_cut_is_said(tmp_path: Path) -> None:
    plan = planned(tmp_path, 30)
    at, path = plan.locate(9), tmp_path / "plan-000.parquet"
    data = path.read_bytes()
    path.write_bytes(data[: at.head.offset])
    with pytest.raises(DataError, match="not a plan that can be read"):
        open_plan(plan.folder, 0, "another", at)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="is not there any more"):
        open_plan(plan.folder, 0, "another", at)


def test_no_damage_of_a_footer_is_taken_for_a_plan_or_ends_the_process(tmp_path: Path) -> None:
    plan = planned(tmp_path, 12)
    rows, path, dice = list(plan.read_all()), tmp_path / "plan-000.parquet", random.Random(0)
    whole = path.read_bytes()
    start = plan.footer.offset  # type: ignore[union-attr]
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(dice.choice([1, 1, 4])):
            data[dice.randrange(start, len(data))] = dice.choice([0, 0x19, 0xFF, dice.getrandbits(8)])
        path.write_bytes(data)
        try:
            damaged = open_plan(plan.folder, 0, "unknown")
            list(damaged.read_all())
        except DataError:
            refused += 1
    assert refused > 150
    path.write_bytes(whole)
    assert list(open_plan(plan.folder, 0, plan.digest).read_all()) == rows
