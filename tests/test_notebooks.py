"""The notebooks of docs/notebooks: their cells run from top to bottom, as Jupyter would run them, and keep no outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.finetune.search.making import write_model
from tests.making import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
_CLIP = "checkpoint=ViT-B-32-quickgelu"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def code_of(book: dict[str, Any]) -> list[str]:
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = code_of(read(path))
    if any(_CLIP in cell for cell in cells):  # which would be fetched
        small = f"checkpoint={write_model(tmp_path / 'model', 'mean')}"
        cells = [cell.replace(f'"{_CLIP}"', f'"{small}", "size=64"') for cell in cells]
    given: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells, 1):
        exec(compile(cell, f"{path.name}, code cell {number}", "exec"), given)
    if path.stem == "film_a_still":
        assert given["frames"].shape == (12, 224, 224, 3) and (tmp_path / "clip.webp").stat().st_size > 10_000
    else:
        assert len(given["hits"]) == 3 and given["batch"].frames.shape == (4, 8, 64, 64, 3)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_a_notebook_without_outputs(path: Path) -> None:
    book = read(path)
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    assert book["cells"][0]["source"][0].startswith("# ")
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["film_a_still", "read_shards_and_search"]
