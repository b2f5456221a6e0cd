"""DATA BYTES. These digests pin what is drawn and what is rendered. A change that breaks one changes every data set that
is built after it: it says so in its commit, and raises RECIPE_VERSION or RENDERER_VERSION."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stillreel.animate.camera.draw import draw_recipe
from stillreel.animate.render.cpu import Renderer
from stillreel.configs import RequestError
from stillreel.configs.grammar import load_grammar
from stillreel.configs.looks import load_look

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ((640, 480), (300, 400), (512, 512), (1000, 220))
DRAWN = {
    "film": "6c47eaae5f6beea7",
    "film-1shot": "2ee6ea3ebb315a3c",
    "still": "31d25765f3e196fd",
    "jump": "41eb9b637329094f",
    "zoom": "152049634b36819c",
    "pan": "d0a2669b1d2d8f99",
    "nested": "686177469a6b2526",
}
RENDERED = {"film": "c8bc053177a2b623", "jump": "10f159534db1b4d2", "nested": "9498a0e62258ad55"}


def pattern(width: int, height: int) -> NDArray[np.uint8]:
    """A picture made of integers alone: no library's drawing enters the golden bytes."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(x * 7 + y * 3) % 256, (x * y // 37) % 256, ((x // 9 + y // 13) % 2) * 200 + 20], axis=-1).astype(
        np.uint8
    )


@pytest.mark.parametrize("grammar", DRAWN)
def test_drawing_is_pinned(grammar: str) -> None:
    looks = (None, load_look("drifting"))
    recipes = [
        draw_recipe(
            grammar,
            load_grammar(grammar),
            looks[number % 2],
            number % 3,
            f"key {number}",
            PICTURES[number % 4],
            ("a", "b"),
        ).recipe
        for number in range(100)
    ]
    text = json.dumps([recipe.to_json() for recipe in recipes], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DRAWN[grammar]


def rendered(grammar: str) -> str:
    renderer = Renderer()
    digest = hashlib.sha256()
    for number in range(24):
        size = PICTURES[number % 4]
        recipe = draw_recipe(grammar, load_grammar(grammar), None, 0, f"key {number}", size, ("a",)).recipe
        digest.update(renderer.render(recipe, pattern(*size), 6, 96 + 32 * (number % 2)).tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("grammar", RENDERED)
def test_rendering_is_pinned(grammar: str) -> None:
    assert rendered(grammar) == RENDERED[grammar]


@pytest.mark.parametrize("grammar", RENDERED)
def test_threads_and_vector_instructions_change_nothing(grammar: str) -> None:
    try:
        for threads in (1, 2):
            for optimized in (True, False):
                Renderer()  # sets the threads itself, so before they are set here
                cv2.setNumThreads(threads)
                cv2.setUseOptimized(optimized)
                assert rendered(grammar) == RENDERED[grammar], (threads, optimized)
    finally:
        cv2.setUseOptimized(True)
        cv2.setNumThreads(1)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["4.10.0.84", "4.11.0.86", "4.12.0.88"])
def test_other_opencv_4_renders_the_same_bytes(version: str, tmp_path: Path) -> None:
    """Each in an environment of its own, with what rendering needs and nothing else."""
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", str(tmp_path / "env")], check=True)
    python = str(tmp_path / "env" / "bin" / "python")
    packages = [f"opencv-python-headless=={version}", "numpy<3", "pillow", "simplejpeg", "pydantic", "pyyaml", "pytest"]
    packages += ["pyarrow", "fsspec", "tqdm", "numba"]
    subprocess.run([*uv, "pip", "install", "-q", "-p", python, *packages], check=True)
    code = (
        "import cv2\nfrom tests.animate.test_golden import RENDERED, rendered\n"
        f"assert cv2.__version__ == {version.rpartition('.')[0]!r}\n"
        "assert {grammar: rendered(grammar) for grammar in RENDERED} == RENDERED"
    )
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert said.returncode == 0, said.stderr


def test_opencv_5_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "__version__", "5.0.0")
    with pytest.raises(RequestError, match=r"OpenCV 5\.0\.0 warps pictures differently"):
        Renderer()
