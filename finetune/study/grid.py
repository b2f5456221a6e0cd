"""The cells of a study, and the ordinary runs that each of them is: settings of pretraining and of finetuning, by name.

OUT/world/                          what is drawn
OUT/image/                          the image model, from which every cell starts
OUT/pretrained/DATA-MODEL-sSEED/    a run of pretraining, shared by the cells that differ in their finetuning
OUT/cells/DATA-MODEL-PAIRS-sSEED/   a run of finetuning, and result.json: what became of every query
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import groupby, product
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stillreel.configs.finetune import FinetuneSettings
from stillreel.configs.model import ModelSettings, RerankSettings, StanSettings
from stillreel.configs.pretrain import PretrainSettings
from stillreel.configs.settings import canonical_json
from stillreel.configs.study import NONE, GridSettings, StageSettings, StudySettings
from stillreel.finetune.study.world import GROUP
from stillreel.finetune.study.write import CLIPS, FRAMES, IMAGES, LEAKED, SHUFFLED, WHOLE, table_of_split

SCHEMA_VERSION = 1
_SAVED = 100  # steps between checkpoints: what a kill costs

Check = Literal["", "shuffled", "leaked", "again"]


class Cell(NamedTuple):
    """A point of the grid; with `check`, one of the sanity checks: captions shuffled, trained on test pairs, or run again."""

    data: str
    model: str
    pairs: int
    seed: int
    check: Check = ""

    @property
    def name(self) -> str:
        """
        >>> Cell("film", "stan", 2000, 3).name
        'film-stan-2000-s3'
        """
        return f"{self.pretrained}-{self.pairs}-s{self.seed}{f'-{self.check}' if self.check else ''}"

    @property
    def pretrained(self) -> str:
        """Of the pretraining that it shares, without its seed."""
        return f"{self.data.rpartition('/')[2].removesuffix('.yaml')}-{self.model}"


class Unit(NamedTuple):
    """Cells that share a pretraining: made one after another, by one process."""

    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        return f"{self.cells[0].pretrained}-s{self.cells[0].seed}"


def cells_of(settings: StudySettings) -> list[Cell]:
    """Every cell once, in the order in which they are run: the main ones seed by seed, then the checks, then the others."""
    cells = [*_cells(settings.main), *(_checks(settings) if settings.sanity else ()), *_cells(settings.wide)]
    return list(dict.fromkeys(cells))


def units_of(cells: list[Cell]) -> list[Unit]:
    """The cells by what they share, where they follow each other."""

    def shared(cell: Cell) -> tuple[str, str, int, str]:
        return cell.data, cell.model, cell.seed, cell.check

    return [Unit(tuple(some)) for _, some in groupby(cells, shared)]


def _cells(grid: GridSettings) -> Iterator[Cell]:
    for seed, model, data, pairs in product(range(grid.seeds), grid.models, grid.data, grid.pairs):
        yield Cell(data, model, pairs, seed)


def _checks(settings: StudySettings) -> Iterator[Cell]:
    """Without pretraining, by the first model that sees motion; and the mean of frames, which cannot."""
    model, pairs = settings.main.models[0], max(settings.pairs)
    yield Cell(NONE, "mean", pairs, 0)
    yield Cell(NONE, model, pairs, 0, "again")
    if not settings.real.benchmark:
        yield Cell(NONE, model, pairs, 0, "shuffled")
        yield Cell(NONE, model, pairs, 0, "leaked")


def model_settings(name: str, settings: StudySettings) -> ModelSettings:
    """A model of the grid, on the study's towers."""
    layers, towers = settings.layers, settings.towers
    made = {
        "mean": ModelSettings(towers=towers),
        "seq": ModelSettings(towers=towers, temporal="seq", layers=layers),
        "clip2video": ModelSettings(towers=towers, temporal="tdb", align="slow_tdb", layers=layers),
        "stan": ModelSettings(towers=towers, temporal="stan", stan=StanSettings(depth=layers)),
        # Over frames and their differences, for its own positions begin at nothing and say little of order in a short run.
        "rerank": ModelSettings(towers=towers, temporal="tdb", layers=layers, rerank=RerankSettings(layers=layers)),
    }
    return made[name]


def image_settings(settings: StudySettings, out: Path) -> PretrainSettings:
    """The image model: a frame a picture, the mean of one."""
    values = _run(settings, settings.image, "mean", 0)
    data = settings.real.images or str(out / "world" / IMAGES)
    values |= {"out": str(out / "image"), "data": data, "fresh": True, "frames": 1}
    values["grammar"] = "still" if settings.real.images else str(out / "world" / WHOLE)
    return PretrainSettings.resolve({**values, "render": settings.render})


def pretrain_settings(settings: StudySettings, out: Path, cell: Cell) -> PretrainSettings:
    """Pretraining on clips, which for all data but `none` differs in the grammar alone."""
    values = _run(settings, settings.pretrain, cell.model, cell.seed)
    data = settings.real.clips or str(out / "world" / CLIPS)
    values |= {
        "out": str(out / "pretrained" / f"{cell.pretrained}-s{cell.seed}"),
        "data": data,
        "init": start_of(settings, out),
    }
    return PretrainSettings.resolve({**values, "grammar": cell.data, "fresh": True, "render": settings.render})


def finetune_settings(settings: StudySettings, out: Path, cell: Cell) -> FinetuneSettings:
    """Finetuning on the benchmark, from what was pretrained, or from the image model."""
    values = _run(settings, settings.finetune, cell.model, cell.seed)
    begun = str(out / "pretrained" / f"{cell.pretrained}-s{cell.seed}" / "final")
    values |= {"out": str(out / "cells" / cell.name), "init": start_of(settings, out) if cell.data == NONE else begun}
    real = settings.real
    together = {"together": 1 if real.benchmark else GROUP}
    if real.benchmark:
        where: dict[str, Any] = {"data": real.data, "videos": real.videos, "prepared": real.prepared}
    else:
        world = out / "world"
        train = {"": table_of_split("train", cell.pairs), "again": table_of_split("train", cell.pairs)}
        train |= {SHUFFLED: table_of_split(SHUFFLED, cell.pairs), LEAKED: table_of_split(LEAKED)}
        files = {"train": train[cell.check], "validation": table_of_split("validation"), "test": table_of_split("test")}
        where = {"data": str(world), "prepared": str(world / FRAMES), "files": files}
    return FinetuneSettings.resolve({**values, **where, **together, "select": "last", "dual_softmax": False})


def start_of(settings: StudySettings, out: Path) -> str:
    """What every cell starts from: the image model, or CLIP's own weights where none is trained."""
    return str(out / "image" / "final") if settings.image.steps else ""


def _run(settings: StudySettings, stage: StageSettings, model: str, seed: int) -> dict[str, Any]:
    """What all runs have in common."""
    return {
        "seed": seed,
        "batch": stage.batch,
        "steps": stage.steps,
        "frames": settings.world.frames,
        "size": settings.world.size,
        "context_length": settings.context_length,
        "model": model_settings(model, settings).model_dump(),
        "objective": {"matching": 1.0 if model == "rerank" else 0.0},
        "optimizer": {
            "lr": stage.lr,
            "lr_new": stage.lr_new,
            "weight_decay": stage.weight_decay,
            "warmup_ratio": stage.warmup_ratio,
            "grad_clip_norm": stage.grad_clip_norm,
        },
        "compile": settings.compile,
        "workers": settings.loaders,
        "threads": settings.threads,
        "device": settings.device,
        "save_every": _SAVED,
        "keep_last": 1,
        "log_every": max(stage.steps // 20, 1),
        "progress": "off",
    }


def digest_of(settings: StudySettings, cell: Cell) -> str:
    """sha256 of all that decides a cell's result, wherever OUT lies: of its runs, of the image model, and of the world."""
    here = Path("OUT")
    runs = [image_settings(settings, here), finetune_settings(settings, here, cell)]
    if cell.data != NONE:
        runs.append(pretrain_settings(settings, here, cell))
    told = [_deciding(run.model_dump(mode="json")) for run in runs]
    world = settings.world.model_dump(mode="json")
    return hashlib.sha256(canonical_json([SCHEMA_VERSION, cell, world, settings.candidates, *told])).hexdigest()


def digest_of_image(settings: StudySettings) -> str:
    """The same of what all cells share."""
    world, run = settings.world.model_dump(mode="json"), image_settings(settings, Path("OUT"))
    told = [SCHEMA_VERSION, world, _deciding(run.model_dump(mode="json"))]
    return hashlib.sha256(canonical_json(told)).hexdigest()


def digest_of_pretraining(settings: StudySettings, cell: Cell) -> str:
    """The same of what cells share that differ in their finetuning."""
    here = Path("OUT")
    runs = [image_settings(settings, here), pretrain_settings(settings, here, cell)]
    told = [_deciding(run.model_dump(mode="json")) for run in runs]
    return hashlib.sha256(canonical_json([SCHEMA_VERSION, settings.world.model_dump(mode="json"), *told])).hexdigest()


def _deciding(values: dict[str, Any]) -> dict[str, Any]:
    """Without what changes nothing that is learned."""
    idle = ("progress", "workers", "save_every", "keep_last", "keep_every", "log_every", "tracker", "resume", "ray")
    return {name: value for name, value in values.items() if name not in idle}
