"""Straight frames against the same sums written plainly, and the compiling."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stillreel.animate.render.filters import PHASES, UNIT, taps
from stillreel.animate.render.straight import StraightRenderer

ROOT = Path(__file__).resolve().parents[2]
_RENDERER = StraightRenderer()


def plainly(picture: NDArray[np.uint8], matrix: NDArray[np.float64], strength: float, size: int) -> NDArray[np.int64]:
    """Columns, then rows: a sum of weighted pixels for each value, rounded to a byte."""
    pixels = picture.astype(np.int64)
    for axis, other in ((0, 1), (1, 0)):
        first, weights = taps(strength)
        slices = []
        for i in range(size):
            place = int(np.rint((matrix[axis, axis] * i + matrix[axis, 2]) * PHASES))
            reads = np.clip(place // PHASES + first + np.arange(weights.shape[1]), 0, pixels.shape[other] - 1)
            taken = np.moveaxis(pixels, other, 0)[reads]
            total = (taken * weights[place % PHASES].astype(np.int64)[:, None, None]).sum(axis=0)
            slices.append(np.clip((total + UNIT // 2) // UNIT, 0, 255))
        pixels = np.stack(slices, axis=other)
    return pixels


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    frames=st.lists(
        st.tuples(st.floats(0.05, 12), st.floats(-20, 60), st.floats(-20, 60), st.booleans(), st.integers(-192, 256)),
        min_size=1,
        max_size=3,
    ),
    size=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_compiled_sums_are_the_plain_ones(
    width: int, height: int, frames: list[tuple[float, float, float, bool, int]], size: int, seed: int
) -> None:
    """For any place, within the picture or not, mirrored or not, and any filter: to the byte."""
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture[: height // 2] = np.where(picture[: height // 2] > 127, 255, 0)  # where the filter overshoots most
    matrices = np.array([[[-s if flip else s, 0, x], [0, s, y], [0, 0, 1]] for s, x, y, flip, _ in frames])
    matrices = np.rint(matrices * 2**30) / 2**30
    strengths = np.array([steps / 64 for *_, steps in frames])
    clip = np.empty((len(frames), size, size, 3), np.uint8)
    _RENDERER.render(picture, matrices, strengths, clip)
    for frame, matrix, strength in zip(clip, matrices, strengths.tolist(), strict=True):
        assert (frame == plainly(picture, matrix, strength, size)).all()


def run(code: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_processors_without_vector_instructions_make_the_same_bytes(tmp_path: Path) -> None:
    run(
        "from tests.animate.test_golden import RENDERED, rendered; assert rendered('nested') == RENDERED['nested']",
        NUMBA_CPU_NAME="generic",
        NUMBA_CPU_FEATURES="",
        NUMBA_CACHE_DIR=str(tmp_path),
    )


def test_machines_that_can_keep_no_cache_compile_each_time() -> None:
    """As a container with read-only disks and no home."""
    run(
        "from numba.core import caching; caching.CacheImpl._locator_classes = []\n"
        "from tests.animate.test_golden import RENDERED, rendered; assert rendered('nested') == RENDERED['nested']\n"
        "from stillreel.animate.render import straight; assert not straight._MIXES[6].stats.cache_path"
    )
