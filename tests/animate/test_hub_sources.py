"""Corpora that lie on the Hugging Face hub, read where they are."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub import hub_at
from tests.making import animate, data_digests, jpeg, picture_folder, stillreel, write_tar


@pytest.mark.parametrize("kind", ["tars", "parquet", "pictures"])
def test_a_data_set_of_the_hub_is_built_as_its_copy_on_the_disk(tmp_path: Path, kind: str) -> None:
    home = tmp_path / "stills"
    if kind == "tars":
        for tar in range(2):
            numbers = range(tar * 5, tar * 5 + 5)
            write_tar(
                home / "data" / f"{tar:05d}.tar",
                [(f"{n}.{end}", data) for n in numbers for end, data in (("jpg", jpeg(n)), ("txt", b"a dog"))],
            )
    elif kind == "parquet":
        (home / "data").mkdir(parents=True)
        rows = {"image": [{"bytes": jpeg(n), "path": f"{n}.jpg"} for n in range(10)], "text": list("abcdefghij")}
        pq.write_table(pa.table(rows), home / "data" / "train-00000-of-00001.parquet", row_group_size=4)
    else:
        picture_folder(home, 10)
    (home / "README.md").write_text("# Stills\n")
    assert animate(home, tmp_path / "here", shard_size=4, name="x") == 0
    with hub_at(home, "me/stills") as hub:
        words = ("animate", "hf://datasets/me/stills", tmp_path / "there", "shard_size=4", "name=x", "ray=off")
        said = stillreel(*words, HF_ENDPOINT=hub.endpoint)
    assert said.returncode == 0, said.stderr
    here, there = data_digests(tmp_path / "here"), data_digests(tmp_path / "there")
    assert {name for name in here if here[name] != there[name]} == {"plan-000.parquet"}, "it says where its source lay"
    assert hub.ranges or kind == "pictures"


def test_what_is_not_on_the_hub_is_said_in_one_sentence(tmp_path: Path) -> None:
    home = picture_folder(tmp_path / "stills", 2)
    with hub_at(home, "me/stills") as hub:
        for name in ("me/other", "me/stills/none"):
            said = stillreel("animate", f"hf://datasets/{name}", tmp_path / "out", HF_ENDPOINT=hub.endpoint)
            assert said.returncode == 2, said.stderr
            assert f"SOURCE hf://datasets/{name}: no such file or folder" in said.stderr
            assert "Traceback" not in said.stderr
    assert not (tmp_path / "out").exists()
