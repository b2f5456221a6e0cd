"""The wheel: everything that is needed is in it, and it works where nothing else of ours is."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from stillreel import __version__
from stillreel.configs.settings import preset_names
from tests.installing import build, copy_checkout
from tests.making import ROOT
from tests.test_rooms import ROOMS, modules


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("wheel") / "source")


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    return build(source, source.parent, "wheel")


def contents(wheel: Path) -> dict[str, int]:
    """Name -> CRC-32 of its files, but for what tells of itself."""
    listed = zipfile.ZipFile(wheel).infolist()
    return {one.filename: one.CRC for one in listed if not one.filename.endswith("/RECORD")}


def test_wheel_holds_one_package_with_presets_and_pages(wheel: Path) -> None:
    names = set(contents(wheel))
    assert {name.split("/")[0] for name in names} == {"stillreel", f"stillreel-{__version__}.dist-info"}
    for folder in ("grammars", "looks", "model", "presets", "pretrain", "finetune"):
        assert {f"stillreel/configs/{folder}/{name}.yaml" for name in preset_names(folder)} <= names
    for page in ("animate/preview", "finetune/report", "finetune/search/page"):
        assert {f"stillreel/{page}/page.{ending}" for ending in ("html", "css", "js")} <= names
    assert {f"stillreel/{path.relative_to(ROOT)}" for room in ROOMS for path in modules(room)} <= names
    assert "stillreel/py.typed" in names


def test_source_distribution_makes_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    """It holds what the links in stillreel/ lead to."""
    with tarfile.open(build(source, tmp_path, "sdist")) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert not (unpacked / "stillreel" / "configs").is_symlink()
    assert contents(build(unpacked, tmp_path, "wheel")) == contents(wheel)


@pytest.mark.slow
def test_wheel_works_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """Without ray, img2dataset, torch: the demo, in this process."""
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "uv", "venv", "-q", str(home)], check=True)
    python = home / "bin" / "python"
    subprocess.run([sys.executable, "-m", "uv", "pip", "install", "-q", "-p", str(python), str(wheel)], check=True)
    command = [str(home / "bin" / "stillreel"), "demo", "out=demo", "stills=40", "heldout=5", "ray=off", "progress=off"]
    said = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "demo" / "clips" / "preview.html").exists()
    without = subprocess.run(
        [str(home / "bin" / "stillreel"), "animate", "demo/stills", "x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert without.returncode == 2
    assert "Ray is not installed" in without.stderr
