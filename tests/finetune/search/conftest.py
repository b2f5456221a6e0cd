"""A model with a re-ranker, videos, and their index, made once: tests copy before they damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.finetune.search.making import index, write_model, write_videos

VIDEOS = 7


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("search-model") / "model")


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("search-videos") / "videos", VIDEOS)


@pytest.fixture(scope="session")
def made(videos: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search-index") / "index"
    assert index(videos, out, checkpoint) == 0
    return out
