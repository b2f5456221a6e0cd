"""Shared fixtures. Data sets that many tests only read are built once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Before torch is imported, here and in what tests start. Their matrices are too small to share out: on a busy machine two threads
# take four times as long as one.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests.making import animate, picture_folder
from tests.shards.build.nodes import TOKEN

# A process remembers from its first Ray on whether it speaks with tokens; clusters that tests start ask for one.
os.environ |= TOKEN

# A loaded machine is no fault of the code's.
hypothesis_settings.register_profile("any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("any_machine")


@pytest.fixture(scope="session")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-five small captioned pictures."""
    return picture_folder(tmp_path_factory.mktemp("source") / "stills", 25)


@pytest.fixture(scope="session")
def built(stills: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished data set of each store, in shards of ten. Tests copy before they damage."""
    home = tmp_path_factory.mktemp("built")
    for store in ("recipe", "frames", "video"):
        assert animate(stills, home / store, store=store, shard_size=10, frames=5, size=64) == 0
    return {store: home / store for store in ("recipe", "frames", "video")}


@pytest.fixture(autouse=True, scope="session")
def _interrupts_are_heard() -> None:
    """A shell starts its background jobs deaf to Ctrl-C, and their children inherit that; tests send it to children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
