"""The rooms: arrows point one way, and what a room may not know it does not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.streaming import write_set

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("configs", "shards", "animate", "pretrain", "finetune")


def imported_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after running some code."""
    script = f"import sys\n{code}\nprint(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    found = set(said.stdout.split())
    assert not found & set(ROOMS), "a module of ours is imported under a second name"
    return found


@pytest.mark.parametrize(
    ("room", "never"),
    [
        ("stillreel.configs", {"cv2", "torch", "ray", "img2dataset", "pyarrow", "numpy"}),
        ("stillreel.shards", {"cv2", "torch", "ray", "img2dataset", "PIL", "webdataset"}),
        ("stillreel.animate", {"torch", "ray", "img2dataset", "albumentations"}),
        ("stillreel.pretrain", {"ray", "img2dataset", "tensorboard", "wandb"}),
        ("stillreel.finetune", {"ray", "img2dataset"}),
        ("stillreel", {"cv2", "torch", "ray", "img2dataset", "pydantic", "numpy", "yaml"}),
        ("stillreel.cli", {"cv2", "torch", "ray", "img2dataset", "pydantic", "numpy", "yaml"}),
    ],
)
def test_importing_a_room_brings_in_nothing_that_it_may_not_know(room: str, never: set[str]) -> None:
    assert not imported_by(f"import {room}") & never


@pytest.mark.parametrize(
    ("room", "never"),
    [
        ("configs", {"cv2", "torch", "ray", "img2dataset", "pyarrow"}),
        ("shards", {"cv2", "torch", "ray", "img2dataset", "PIL"}),
        ("pretrain", {"ray", "img2dataset"}),
        ("finetune", {"ray", "img2dataset"}),
    ],
)
def test_no_module_of_a_room_brings_in_what_the_room_may_not_know(room: str, never: set[str]) -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in modules(room)]
    assert not imported_by(f"import {', '.join(f'stillreel.{name}' for name in names)}") & never


def test_a_device_renders_without_the_compiler_of_the_cpu_s_renderer(tmp_path: Path) -> None:
    """A GPU machine need not have numba, nor PyAV."""
    data = write_set(tmp_path / "set", [3])
    code = (
        "from stillreel.configs.stream import DataSettings; from stillreel.pretrain.data import ClipLoader, Share\n"
        "from stillreel.shards.stream.stream import open_blend; from stillreel.animate.render.device import render_stills\n"
        "settings = DataSettings(frames=2, size=32, render='device')\n"
        f"(batch,) = ClipLoader(open_blend({str(data)!r}), settings, Share(2), steps=1)\n"
        "assert render_stills(batch.stills, 'cpu').shape == (2, 2, 32, 32, 3)"
    )
    assert not imported_by(code) & {"numba", "av"}


def test_building_needs_no_torch(stills: Path, tmp_path: Path) -> None:
    code = f"from tests.making import animate; animate({str(stills)!r}, {str(tmp_path)!r})"
    assert not imported_by(code) & {"torch", "ray", "img2dataset"}


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports_of(path: Path) -> list[str]:
    """Modules that a file imports anywhere in it."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module or "")
    return found


def test_rooms_are_imported_by_one_name() -> None:
    """In the repository's root their folders lie there for Python to find, beside stillreel/."""
    for folder in (*ROOMS, "stillreel", "tests", "benchmarks"):
        for path in modules(folder):
            bare = [name for name in imports_of(path) if name.split(".")[0] in ROOMS]
            assert not bare, f"{path} imports {bare[0]}, not stillreel.{bare[0]}"


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_point_one_way(room: str) -> None:
    later = set(ROOMS[ROOMS.index(room) + 1 :])
    for path in modules(room):
        for name in imports_of(path):
            first, _, inner = name.partition(".")
            assert first not in {"tests", "benchmarks"}, f"{path} imports {name}"
            assert first != "stillreel" or inner.split(".")[0] not in later, f"{path} imports {name}"


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_is(room: str) -> None:
    text = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text()))
    assert text is not None
    assert text.startswith(f"{room}: ")
    assert 3 <= len(text.splitlines()) <= 12


def test_modules_fit_a_sitting() -> None:
    long = {
        str(path): lines
        for room in ROOMS
        for path in modules(room)
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long
