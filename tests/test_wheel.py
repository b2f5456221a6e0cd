"""The wheel: everything that is needed is in it, and it works where nothing else of ours is."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stillreel.configs.settings import preset_names

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("wheel")
    # From what git holds: a wheel must not depend on what lies about in a working tree.
    archive = home / "source.tar"
    subprocess.run(["git", "archive", "-o", str(archive), "HEAD"], check=True, cwd=ROOT)
    (home / "source").mkdir()
    subprocess.run(["tar", "xf", str(archive), "-C", str(home / "source")], check=True)
    command = [sys.executable, "-m", "uv", "build", "-q", "--wheel", "--out-dir", str(home), str(home / "source")]
    subprocess.run(command, check=True)
    return next(home.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_presets_and_page(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("grammars", "looks", "model", "presets"):
        assert {f"configs/{folder}/{name}.yaml" for name in preset_names(folder)} <= names
    for page in ("animate/preview", "finetune/report", "finetune/search/page"):
        assert {f"{page}/page.{ending}" for ending in ("html", "css", "js")} <= names
    assert "stillreel.py" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]


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
