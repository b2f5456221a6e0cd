"""Which samples of a source are wanted: each that is not is a row with its reason, in every layout alike."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillreel.configs import RequestError
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.plan import read_plans
from tests.making import animate, check, jpeg, rows_of, write_tar

ROWS: list[dict[str, Any]] = [
    {
        "key": f"{n:09d}",
        "url": f"http://host/{n}.jpg",
        "similarity": n / 10,
        "width": 100 * n,
        "caption": f"picture {n}",
    }
    for n in range(1, 6)
]


def corpus(folder: Path, layout: str) -> Path:
    """Five pictures with a similarity of 0.1 to 0.5 and widths of 100 to 500."""
    folder.mkdir()
    if layout in ("tars", "json"):
        members: list[tuple[str, bytes]] = []
        for row in ROWS:
            members += [(f"{row['key']}.jpg", jpeg(int(row["key"]))), (f"{row['key']}.txt", row["caption"].encode())]
            members += [(f"{row['key']}.json", json.dumps(row).encode())] * (layout == "json")
        write_tar(folder / "00000.tar", members)
        if layout == "tars":
            pq.write_table(
                pa.Table.from_pylist([row | {"status": "success"} for row in ROWS[::-1]]), folder / "00000.parquet"
            )
    if layout == "parquet":
        pq.write_table(
            pa.Table.from_pylist([row | {"jpg": jpeg(int(row["key"]))} for row in ROWS]), folder / "0.parquet"
        )
    if layout in ("files", "table"):
        for row in ROWS:
            (folder / f"{row['key']}.jpg").write_bytes(jpeg(int(row["key"])))
            if layout == "files":
                (folder / f"{row['key']}.json").write_text(json.dumps(row))
    if layout == "table":
        names = list(ROWS[0])
        lines = [[f"{row['key']}.jpg" if name == "key" else str(row[name]) for name in names] for row in ROWS]
        (folder / "captions.csv").write_text("\n".join(map(",".join, [["file", *names[1:]], *lines])))
    return folder


def outcomes(out: Path) -> list[str | None]:
    return [row["reason"] for row in rows_of(out)]


@pytest.mark.parametrize("layout", ["tars", "json", "parquet", "files", "table"])
def test_an_expression_over_the_source_s_columns(tmp_path: Path, layout: str) -> None:
    source, out = corpus(tmp_path / "s", layout), tmp_path / "out"
    assert animate(source, out, where="similarity > 0.25 and width < 500") == 0
    assert outcomes(out) == ["filtered", "filtered", None, None, "filtered"]
    assert rows_of(out)[0]["detail"] == "where=similarity > 0.25 and width < 500 is not true of it"
    assert check(out).problems == []
    # Nothing is wrong with them: a rerun has nothing to do, and another choice is another data set.
    assert animate(source, out, where="similarity > 0.25 and width < 500") == 0
    with pytest.raises(RequestError):
        animate(source, out)
    assert animate(source, out, where="similarity > 0.25 and width < 500", extend="rejects") == 0
    assert len(rows_of(out)) == 5


@pytest.mark.parametrize("layout", ["tars", "parquet", "files"])
def test_a_list_of_those_that_are_not_wanted(tmp_path: Path, layout: str) -> None:
    source = corpus(tmp_path / "s", layout)
    key = ROWS[4]["key"] + (".jpg" if layout == "files" else "")
    (tmp_path / "block.txt").write_text(f"http://host/2.jpg\n{key}\nhttp://host/20.jpg\n")
    assert animate(source, tmp_path / "out", blocklist=str(tmp_path / "block.txt")) == 0
    blocked_by_url = None if layout == "files" else "blocked"
    assert outcomes(tmp_path / "out") in (
        [None, blocked_by_url, None, None, "blocked"],
        [None, "blocked", None, None, "blocked"],
    )


@pytest.mark.parametrize("layout", ["tars", "json", "parquet", "files", "table"])
def test_a_list_of_digests_is_of_the_pictures_bytes(tmp_path: Path, layout: str) -> None:
    source = corpus(tmp_path / "s", layout)
    (tmp_path / "block.txt").write_text("".join(f"{hashlib.sha256(jpeg(n)).hexdigest()}\n" for n in (3, 5, 50)))
    assert animate(source, tmp_path / "out", blocklist=str(tmp_path / "block.txt")) == 0
    assert outcomes(tmp_path / "out") == [None, None, "blocked", None, "blocked"]


def test_scores_from_a_file_beside(tmp_path: Path) -> None:
    source = corpus(tmp_path / "s", "tars")
    pq.write_table(
        pa.table({"key": [row["key"] for row in ROWS[:4]], "nsfw": [0.9, 0.1, 0.2, 0.8]}), tmp_path / "scores.parquet"
    )
    assert animate(source, tmp_path / "out", where="nsfw < 0.5", scores=str(tmp_path / "scores.parquet")) == 0
    assert outcomes(tmp_path / "out") == ["filtered", None, None, "filtered", "filtered"]
    with pytest.raises(RequestError, match=r"nsfw.*columns: caption"):
        animate(source, tmp_path / "other", where="nsfw < 0.5")
    with pytest.raises(RequestError, match=r"scores=.* are for where="):
        animate(source, tmp_path / "other", scores=str(tmp_path / "scores.parquet"))


def test_captions_can_be_asked_of_everywhere(tmp_path: Path) -> None:
    source = corpus(tmp_path / "s", "json")
    assert animate(source, tmp_path / "out", where="contains(caption, '3')") == 0
    assert outcomes(tmp_path / "out") == ["filtered", "filtered", None, "filtered", "filtered"]


def test_a_bound_of_aspects_is_planned_and_its_default_is_not(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for name, size in (("wide", (200, 80)), ("square", (80, 80))):
        (tmp_path / "s" / f"{name}.jpg").write_bytes(jpeg(1, *size))
        (tmp_path / "s" / f"{name}.txt").write_text(name)
    assert animate(tmp_path / "s", tmp_path / "out", max_aspect=2, max_rejects=1) == 0
    assert [row["reason"] for row in rows_of(tmp_path / "out")] == [None, "too_long"]
    assert read_plans(Folder(str(tmp_path / "out")))[0].header.settings["max_aspect"] == 2
    assert animate(tmp_path / "s", tmp_path / "all") == 0
    assert "max_aspect" not in read_plans(Folder(str(tmp_path / "all")))[0].header.settings
