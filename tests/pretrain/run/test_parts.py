"""Checkpoints that all ranks write: read back by any number of them, whole or not there, and every hole in them named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stillreel.pretrain.data.together import Together
from stillreel.pretrain.engine.state import Rows
from stillreel.pretrain.run.checkpoint import open_checkpoint
from stillreel.pretrain.run.parts import part_names, read_parts
from tests.making import torchrun
from tests.pretrain.layouts import Run
from tests.pretrain.run.making import saved_steps
from tests.pretrain.run.part_runner import CASE, MODULE, go_on, losses_of


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved by two ranks, and by four of two machines; each read by one, two and four."""
    home = tmp_path_factory.mktemp("parts")
    launch(home, 2, "save:fsdp:two")
    launch(home, 2, "save:hsdp:four", "go-on:fsdp:two", "go-on:fsdp:four", machines=2)
    launch(home, 2, "go-on:fsdp:two", "go-on:fsdp:four", "go-on:ddp:four", "full:fsdp:two")
    return home


def launch(home: Path, ranks: int, *jobs: str, machines: int = 1) -> None:
    said = torchrun(MODULE, [str(home), *jobs], ranks, timeout=280, machines=machines)
    assert said.returncode == 0, said.stderr[-4000:]


def told(home: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(home.glob(f"{name}-[0-9].json"))]


def checkpoint(home: Path, out: str) -> Path:
    return home / out / "checkpoints" / "step-00000002"


def test_losses_go_on_at_any_world_size(home: Path) -> None:
    alone = Run(CASE)
    losses_of(alone, range(2))
    right = losses_of(alone, range(2, 4))
    saved = {"save-fsdp-two-2": 2, "save-hsdp-four-4": 4}
    read = {"go-on-fsdp-two-2": 2, "go-on-fsdp-two-4": 4, "go-on-fsdp-four-2": 2, "go-on-fsdp-four-4": 4}
    for name, ranks in (saved | read | {"go-on-ddp-four-2": 2}).items():
        found = told(home, name)
        assert len(found) == ranks, name
        for one in found:
            assert one["losses"] == pytest.approx(right, rel=1e-9), name
    for out in ("two", "four"):
        assert go_on(home / out, "ddp", Together(1, 10), 0) == pytest.approx(right, rel=1e-9)


@pytest.mark.parametrize(("out", "ranks"), [("two", 2), ("four", 4)])
def test_every_rank_writes_its_share_and_the_model_is_as_ever(home: Path, out: str, ranks: int, tmp_path: Path) -> None:
    folder = checkpoint(home, out)
    names = part_names(ranks)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "state.json", *names]
    assert set(json.loads((folder / "state.json").read_text())["files"]) == {"config.json", "model.safetensors", *names}
    sizes = [(folder / name).stat().st_size for name in names]
    assert max(sizes) < 1.5 * sum(sizes) / ranks
    save_file(torch.load(home / f"{out}-weights.pt", weights_only=True), tmp_path / "whole", {"format": "pt"})
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "whole").read_bytes()
    assert open_checkpoint(folder).step == 2


def test_a_rank_that_cannot_write_or_dies_leaves_the_earlier_checkpoint(home: Path) -> None:
    first, last = told(home, "full-fsdp-two-2")
    assert "step-00000003/training-00001-of-00002.safetensors: the disk is full" in last["told"]
    assert first["told"] == f"rank 1: {last['told']}"
    assert saved_steps(home / "two") == ["step-00000002"]
    before = {path.name: path.read_bytes() for path in checkpoint(home, "two").iterdir()}
    said = torchrun(MODULE, [str(home), "die:fsdp:two"], 2, timeout=280)
    assert said.returncode != 0 and "SIGXFSZ" in said.stderr
    assert [name for name in saved_steps(home / "two") if not name.startswith(".")] == ["step-00000002"]
    assert {path.name: path.read_bytes() for path in checkpoint(home, "two").iterdir()} == before
    assert len(go_on(home / "two", "ddp", Together(1, 10), 0)) == 2
    assert saved_steps(home / "two") == ["step-00000002"]


def test_a_part_that_is_missing_is_named(home: Path) -> None:
    file = checkpoint(home, "four") / part_names(4)[2]
    aside = file.rename(file.with_name("aside"))
    try:
        with pytest.raises(ValueError, match=r"training-00002-of-00004\.safetensors is missing"):
            open_checkpoint(file.parent)
    finally:
        aside.rename(file)


def write(path: Path, first: int, rows: int, *, total: int = 6, width: int = 2, whole: bool = False) -> Path:
    stated = {} if whole else {"a.weight": [total, first]}
    tensor = torch.arange(first * width, (first + rows) * width, dtype=torch.float32).reshape(rows, width)
    save_file({"a.weight": tensor}, path, {"rows": json.dumps(stated)})
    return path


def test_rows_are_put_together_in_any_order_and_as_asked_for(tmp_path: Path) -> None:
    files = [write(tmp_path / "1", 4, 2), write(tmp_path / "0", 0, 4)]
    found = read_parts(files)["a.weight"]
    right = torch.arange(12.0).reshape(6, 2)
    assert isinstance(found, Rows) and found.shape == right.shape and found.nbytes == right.nbytes
    for first in range(7):
        for end in range(7):
            assert torch.equal(found[first:end], right[first:end])
    assert torch.equal(load_file(files[0])["a.weight"], found[4:])


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([(0, 3), (2, 3)], "parts of a.weight overlap: row 2 is in two"),
        ([(0, 3), (0, 3)], "parts of a.weight overlap: row 0 is in two"),
        ([(0, 2), (3, 3)], "row 2 of the 6 of a.weight is in no part"),
        ([(1, 5)], "row 0 of the 6 of a.weight is in no part"),
        ([(0, 5)], "row 5 of the 6 of a.weight is in no part"),
        ([(0, 3), (3, 4)], "a.weight have 7 rows, and it has 6"),
    ],
)
def test_rows_that_are_missing_or_there_twice_are_named(
    tmp_path: Path, places: list[tuple[int, int]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        read_parts([write(tmp_path / str(number), *place) for number, place in enumerate(places)])


def test_parts_of_different_tensors_are_refused(tmp_path: Path) -> None:
    start = write(tmp_path / "0", 0, 3)
    for other in ({"total": 7}, {"width": 3}):
        with pytest.raises(ValueError, match="several shapes or types"):
            read_parts([start, write(tmp_path / "1", 3, 3, **other)])
    whole = write(tmp_path / "2", 0, 6, whole=True)
    with pytest.raises(ValueError, match="whole in one part, and split in others"):
        read_parts([start, whole])
    with pytest.raises(ValueError, match="whole in two parts"):
        read_parts([whole, whole])
