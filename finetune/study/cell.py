"""A cell: pretrain, unless that is done; finetune; ask; write result.json. Ordinary runs, which go on where they were killed."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from stillreel.configs.pretrain import PretrainSettings
from stillreel.configs.settings import canonical_json
from stillreel.configs.study import NONE, StudySettings
from stillreel.configs.system.claims import damage_of, parse_json
from stillreel.configs.system.storage import Folder
from stillreel.finetune.study.grid import (
    SCHEMA_VERSION,
    Cell,
    Unit,
    digest_of,
    digest_of_image,
    digest_of_pretraining,
    finetune_settings,
    image_settings,
    pretrain_settings,
)

RESULT, DONE = "result.json", "done.json"
FORMAT = "stillreel study cell"
_log = logging.getLogger(__name__)


class Spent(NamedTuple):
    """What something took: seconds on the clock, and of this process's CPUs."""

    seconds: float
    cpu_seconds: float


def result_of(out: Path, cell: Cell, digest: str) -> dict[str, Any] | None:
    """A finished cell's result; None where there is none, or it is of other settings. DataError where it is damaged."""
    found = _read(out / "cells" / cell.name / RESULT)
    return found if found is not None and found.get("digest") == digest and found.get("format") == FORMAT else None


def make_image(settings: StudySettings, out: Path) -> None:
    """Train the image model, or go on, or nothing where it is there."""
    if settings.image.steps:
        _pretrain(image_settings(settings, out), digest_of_image(settings))


def make_unit(settings: StudySettings, out: Path, unit: Unit) -> int:
    """The cells of a unit that have no result yet, in this process; returns how many it made."""
    made = 0
    for cell in unit.cells:
        digest = digest_of(settings, cell)
        if result_of(out, cell, digest) is not None:
            continue
        _make_cell(settings, out, cell, digest)
        made += 1
    return made


def _make_cell(settings: StudySettings, out: Path, cell: Cell, digest: str) -> None:
    told: dict[str, Any] = {}
    cost: dict[str, Mapping[str, float]] = {}
    if cell.data != NONE:
        run = pretrain_settings(settings, out, cell)
        cost["pretrain"] = _pretrain(run, digest_of_pretraining(settings, cell))
        told["pretrain"] = run
    tuned = finetune_settings(settings, out, cell)
    told["finetune"] = tuned
    folder = Path(tuned.out)
    _forget_other(folder, digest)
    with _measured() as spent:
        from stillreel.finetune.study.ask import finetune_and_ask

        answers = finetune_and_ask(settings, tuned, cell)
    cost["finetune"] = spent[0]._asdict()
    _publish(folder, RESULT, {
        "format": FORMAT,
        "schema": SCHEMA_VERSION,
        "cell": cell._asdict(),
        "digest": digest,
        "settings": {name: one.model_dump(mode="json") for name, one in told.items()},
        "cost": cost,
        "answers": answers,
    })  # fmt: skip
    _tidy(folder, keep_final=settings.keep_models)


def _pretrain(run: PretrainSettings, digest: str) -> Mapping[str, float]:
    """Pretrain, unless it is done; what it took when it was."""
    folder = Path(run.out)
    done = _read(folder / DONE)
    if done is not None and done.get("digest") == digest and (folder / "final").is_dir():
        return dict(done["cost"])
    _forget_other(folder, digest)
    with _measured() as spent:
        from stillreel.pretrain.commands import pretrain

        pretrain.run("study", run)
    cost = spent[0]._asdict()
    _publish(folder, DONE, {"digest": digest, "cost": cost})
    _tidy(folder, keep_final=True)
    return cost


def _forget_other(folder: Path, digest: str) -> None:
    """Remove a run that was begun with other settings; one that was begun with these goes on."""
    begun = _read(folder / "begun.json")
    if begun is None or begun.get("digest") != digest:
        shutil.rmtree(folder, ignore_errors=True)
        _publish(folder, "begun.json", {"digest": digest})


def _tidy(folder: Path, *, keep_final: bool) -> None:
    """Checkpoints are of no use to a run that is done, and of its optimizer twice as large as the model."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    if not keep_final:
        shutil.rmtree(folder / "final", ignore_errors=True)


@contextmanager
def _measured() -> Iterator[list[Spent]]:
    """What is within, in the list when it has ended."""
    found: list[Spent] = []
    start, cpu = time.monotonic(), time.process_time()
    yield found
    found.append(Spent(time.monotonic() - start, time.process_time() - cpu))


def _publish(folder: Path, name: str, value: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Folder(str(folder)).publish(name, canonical_json(value) + b"\n")


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    with damage_of(f"{path} is damaged; remove it, and what it tells of is made anew"):
        found = parse_json(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("expected an object")
        return found
