"""The run of a study: draw the world, train the image model, make every cell that has no result, report.

It may be killed at any moment: what is finished is found again by its result's digest, what was begun goes on from its
checkpoint.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stillreel.configs import DataError, StillreelError
from stillreel.configs.study import StudySettings
from stillreel.configs.system.interrupt import stoppable
from stillreel.configs.system.lock import sole_writer
from stillreel.configs.system.pool import process_pool, stop_pool
from stillreel.configs.system.storage import Folder
from stillreel.finetune.study.cell import make_image, make_unit, result_of
from stillreel.finetune.study.cost import cost_of, describe_cost
from stillreel.finetune.study.grid import Cell, Unit, cells_of, digest_of, units_of
from stillreel.finetune.study.write import write_world

_log = logging.getLogger(__name__)


def results_of(settings: StudySettings, out: Path) -> dict[Cell, dict[str, Any]]:
    """Those that are there, in the order of the cells."""
    found = {cell: result_of(out, cell, digest_of(settings, cell)) for cell in cells_of(settings)}
    return {cell: result for cell, result in found.items() if result is not None}


def plan_of(settings: StudySettings, out: Path) -> str:
    """The cells, which of them are done, and what is left."""
    cells, results = cells_of(settings), results_of(settings, out)
    lines = [f"  {'done' if cell in results else 'to do':<6} {cell.name}" for cell in cells]
    told = describe_cost(cost_of(settings, cells, results))
    return "\n".join([f"{len(cells):,} cells, {len(results):,} of them done", *lines, told])


def run_study(settings: StudySettings, out: Path) -> list[str]:
    """Make what is missing; returns what failed, in sentences. Interrupted when it is stopped."""
    begin = time.monotonic()
    with sole_writer(Folder(str(out))), stoppable("finished cells are kept. Run the same command again to go on"):
        if len(results_of(settings, out)) == len(cells_of(settings)):
            return []
        write_world(out / "world", settings)
        with _pool(settings) as pool:
            pool.submit(make_image, settings, out).result()
            return _make_units(settings, out, pool, begin)


def _make_units(settings: StudySettings, out: Path, pool: ProcessPoolExecutor, begin: float) -> list[str]:
    cells = cells_of(settings)
    results = results_of(settings, out)
    _tell(settings, out, cells)
    waiting = [unit for unit in units_of(cells) if any(cell not in results for cell in unit.cells)]
    running: dict[Future[int], Unit] = {}
    failed: list[str] = []
    while waiting or running:
        late = settings.most and time.monotonic() - begin > 60 * settings.most
        if late and waiting:
            _log.info(
                f"{settings.most} minutes are over, and {len(waiting):,} units are left: run the same command again"
            )
            waiting.clear()
        while waiting and len(running) < settings.workers and (unit := _free(waiting, list(running.values()))):
            waiting.remove(unit)
            running[pool.submit(make_unit, settings, out, unit)] = unit
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            unit = running.pop(future)
            try:
                future.result()
                _log.info(f"done: {', '.join(cell.name for cell in unit.cells)}")
            except BrokenProcessPool:
                raise DataError(
                    f"a process was killed, with {unit.name} at work or another one; was there not enough memory? Run the same "
                    "command again, with fewer workers"
                ) from None
            except StillreelError as error:
                failed.append(f"{unit.name}: {error}")
                _log.warning(failed[-1])
        _tell(settings, out, cells)
    return failed


def _free(waiting: Sequence[Unit], running: Sequence[Unit]) -> Unit | None:
    """The first unit whose pretraining none of the running ones makes."""
    busy = {unit.name for unit in running}
    return next((unit for unit in waiting if unit.name not in busy), None)


def _tell(settings: StudySettings, out: Path, cells: Sequence[Cell]) -> None:
    results = results_of(settings, out)
    _log.info(f"{len(results):,} of {len(cells):,} cells are done; {describe_cost(cost_of(settings, cells, results))}")


@contextmanager
def _pool(settings: StudySettings) -> Iterator[ProcessPoolExecutor]:
    """Processes that make one unit after another: what they import takes longer than a small cell."""
    pool = process_pool(settings.workers)
    try:
        yield pool
    except BaseException:
        stop_pool(pool)
        raise
    pool.shutdown()
