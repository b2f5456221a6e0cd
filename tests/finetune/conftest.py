"""Benchmarks that tests of this room only read."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillreel.finetune.moving import draw_benchmark


@pytest.fixture(scope="session")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-six small videos with a caption each: 18 to train on, 6 to choose by, 12 to test."""
    folder = tmp_path_factory.mktemp("moving")
    draw_benchmark(folder, contents={"test": 2, "validation": 1, "train": 3}, workers=1)
    return folder
