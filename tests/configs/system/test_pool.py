"""Pools end when they are told to, whatever their processes are at."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from stillreel.configs.system.pool import process_pool, stop_pool


def hold_out(place: Path) -> None:
    """As training does, which saves and goes on."""
    signal.signal(signal.SIGTERM, lambda *_: (place / "heard").touch())
    (place / "busy").touch()
    while True:
        time.sleep(0.01)


def test_a_process_that_has_its_own_way_with_sigterm_is_ended_after_a_while(tmp_path: Path) -> None:
    pool = process_pool(1)
    pool.submit(hold_out, tmp_path)
    while not (tmp_path / "busy").exists():
        time.sleep(0.01)
    (process,) = pool._processes.values()
    stop_pool(pool, patience_s=0.5)
    assert (tmp_path / "heard").exists() and process.exitcode == -signal.SIGKILL
