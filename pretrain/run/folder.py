"""OUT of a run: where it goes on, what it saves and what it removes. Rank 0 decides and writes; all ranks hear of it."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from stillreel.configs import DataError, RequestError, StillreelError
from stillreel.configs.run import RunSettings
from stillreel.configs.settings import Settings
from stillreel.configs.system.claims import parse_json
from stillreel.configs.system.lock import sole_writer
from stillreel.configs.system.progress import amount
from stillreel.configs.system.storage import PART_SUFFIX, Folder
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.checkpoint import in_json, save_model
from stillreel.pretrain.run.checkpoint import (
    STATE,
    Checkpoint,
    metrics_of,
    open_checkpoint,
    origin_of,
    remove_checkpoint,
    remove_unfinished,
    step_name,
    steps_in,
    write_checkpoint,
    write_split_checkpoint,
)
from stillreel.pretrain.run.compare import check_binding, compare_settings
from stillreel.pretrain.run.parts import Parts
from stillreel.pretrain.run.snapshot import Snapshot
from stillreel.shards.build import libraries
from stillreel.shards.stream.stream import State

RUN, CHECKPOINTS, FINAL = "run.json", "checkpoints", "final"
_LIBRARIES = (
    "stillreel",
    "torch",
    "open_clip_torch",
    "safetensors",
    "numpy",
    "opencv-python-headless",
    "simplejpeg",
    "av",
)
_log = logging.getLogger(__name__)


class RunFolder:
    """A context manager: within it no other run may write here, as far as the file system can tell.

        with RunFolder(out, settings.run, together, rank) as folder:
            checkpoint = folder.begin(settings, binding={"model", "data.seed"})
            if checkpoint is not None:
                restore_snapshot(checkpoint.read(), task, optimizer)
            ...
            folder.save(model, take_snapshot(task, optimizer), loader.state, metrics)

    All ranks make the same calls, see the same files, and raise the same errors.
    """

    def __init__(self, out: str, settings: RunSettings, together: Together, rank: int) -> None:
        """`together` should be patient: the other ranks wait in it while rank 0 writes."""
        folder = Folder(out)
        if not folder.is_local:
            raise RequestError(f"OUT {out}: a run needs a folder on a disk, for a checkpoint gets its name by a rename")
        self.path = Path(folder.path)
        self._home = self.path / CHECKPOINTS
        self._settings = settings
        self._together = together
        self._writes = rank == 0
        self._lock = ExitStack()
        self._run: Mapping[str, Any] = {}

    def __enter__(self) -> Self:
        self._agreed(self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def begin(self, settings: Settings, binding: Collection[str]) -> Checkpoint | None:
        """Where to go on, by `resume`; None to start anew. Says what was found, and how settings differ; writes run.json.

        `binding` are dotted names of settings that must be as they were. RequestError when one is not, or when OUT holds what
        `resume` does not allow; DataError when there are checkpoints and none of them is whole.
        """
        resolved = settings.model_dump(mode="json")
        found: Checkpoint | None = None

        def decide() -> None:
            nonlocal found
            found = self._find()
            if found is not None:
                self._accept(found, resolved, binding)
            remove_unfinished(self._home)
            self._write_run(settings)

        self._run = resolved
        self._agreed(decide)
        found = self._together.hear(found)
        unseen = found is not None and not (found.path / STATE).is_file()
        error = (
            DataError(f"{found.path} is seen by rank 0 only: all ranks need one file system")
            if found and unseen
            else None
        )
        self._together.agree([], error)
        return found

    def save(
        self,
        model: VideoTextModel,
        snapshot: Snapshot | Parts | None,
        stream: State,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Publish a checkpoint, then remove those that need not stay. `metrics` are what is known of these weights.

        A step that has one already is left as it is. DataError on all ranks when it cannot be written; the earlier ones are
        whole then, and the run may go on. Of `Parts` each rank brings its own.
        """
        if isinstance(snapshot, Parts):
            self._save_parts(model, snapshot, stream, metrics or {})
            return

        def write() -> None:
            if stream.steps in steps_in(self._home):
                return
            assert snapshot is not None  # rank 0 has one
            start = time.monotonic()
            self._home.mkdir(parents=True, exist_ok=True)
            written = write_checkpoint(self._home, model, snapshot, stream, self._run, metrics or {})
            _log.info(f"saved {written.path}: {amount(snapshot.nbytes)} in {time.monotonic() - start:.1f} s")
            self._tidy(stream.steps)

        self._agreed(write)

    def _save_parts(self, model: VideoTextModel, parts: Parts, stream: State, metrics: Mapping[str, float]) -> None:
        there, start = False, time.monotonic()

        def begin() -> None:
            nonlocal there
            there = stream.steps in steps_in(self._home)
            self._home.mkdir(parents=True, exist_ok=True)

        def end() -> None:
            _log.info(f"saved {written.path}: {amount(parts.nbytes)} in {time.monotonic() - start:.1f} s")
            self._tidy(stream.steps)

        self._agreed(begin)
        if not self._together.hear(there):
            written = write_split_checkpoint(self._home, model, parts, stream, self._run, metrics, self._together)
            self._agreed(end)

    def finish(self, model: VideoTextModel, weights: Mapping[str, Tensor] | None, step: int) -> None:
        """Write OUT/final, the model that the run came to; `weights` are in place of its own. An earlier one, of a run that
        was made longer since, goes."""

        def write() -> None:
            part, final = self.path / f".{FINAL}{PART_SUFFIX}", self.path / FINAL
            shutil.rmtree(part, ignore_errors=True)
            save_model(model, Folder(str(part)), origin_of(self.path, step, self._run), weights)
            shutil.rmtree(final, ignore_errors=True)
            part.rename(final)
            _log.info(f"the model after {step:,} steps: {final}")

        self._agreed(write)

    def best(self) -> Checkpoint | None:
        """The checkpoint with the highest value of the metric `best`, the earliest of equal ones; None where none has one."""
        found: Checkpoint | None = None

        def choose() -> None:
            nonlocal found
            values = {step: (metrics_of(self._home / step_name(step)) or {}).get(self._settings.best_metric)
                      for step in steps_in(self._home)}  # fmt: skip
            known = {step: value for step, value in values.items() if value is not None}
            if known:
                step = max(sorted(known), key=lambda step: known[step])
                found = find_given(self._home / step_name(step))

        self._agreed(choose)
        return self._together.hear(found)

    def _agreed(self, work: Callable[[], None]) -> None:
        """Rank 0 does it; all ranks raise what it raises."""
        error: StillreelError | None = None
        if self._writes:
            try:
                work()
            except StillreelError as raised:
                error = raised
            except OSError as raised:
                error = DataError(f"{self.path}: {type(raised).__name__}: {raised}")
        self._together.agree([], error)

    def _hold(self) -> None:
        self._lock.enter_context(sole_writer(Folder(str(self.path))))

    def _find(self) -> Checkpoint | None:
        resume, steps = self._settings.resume, steps_in(self._home)
        holds_run = bool(steps) or (self.path / RUN).exists()
        if resume == "never":
            if holds_run:
                raise RequestError(f"OUT {self.path} holds a run already; go on with resume=auto, or give another OUT")
            return None
        if resume == "auto":
            return self._latest()
        given = Path(resume).expanduser().absolute()
        if given in (self.path, self._home):
            return self._latest()
        if steps and self._began_from() == str(given):
            return self._latest()  # the same command again, after a stop
        if given.parent == self._home:
            return self._given_of_own(given)
        if holds_run and self._began_from() != str(given):
            raise RequestError(
                f"OUT {self.path} holds a run already, which did not begin from {given}; go on with resume=auto, or give "
                "another OUT"
            )
        return find_given(given)

    def _given_of_own(self, given: Path) -> Checkpoint:
        found = find_given(given)
        later = [step_name(step) for step in steps_in(self._home) if step > found.step]
        if later:
            raise RequestError(
                f"{given}: OUT holds later checkpoints: {', '.join(later)}. Remove them to go back, or give another OUT; "
                "resume=auto goes on from the latest"
            )
        return found

    def _latest(self) -> Checkpoint | None:
        """The latest whole checkpoint here; damaged ones that are later lose their names."""
        found = find_latest(self._home)
        for step in steps_in(self._home) if found else []:
            if found is not None and step > found.step:
                aside = _free_name(self._home / f"{step_name(step)}.damaged")
                (self._home / step_name(step)).rename(aside)
                _log.warning(f"set aside as {aside}")
        return found

    def _accept(self, found: Checkpoint, settings: Mapping[str, Any], binding: Collection[str]) -> None:
        differences = compare_settings(found.settings, settings)
        check_binding(differences, binding, str(found.path))
        listed = "".join(f"\n  {one}" for one in differences)
        _log.info(
            f"going on from {found.path}, after {found.step:,} steps"
            + (f", with other settings:{listed}" * bool(listed))
        )

    def _began_from(self) -> str:
        try:
            return str(parse_json((self.path / RUN).read_bytes())["began_from"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _write_run(self, settings: Settings) -> None:
        resume = self._settings.resume
        elsewhere = "" if resume in ("auto", "never") else str(Path(resume).expanduser().absolute())
        run = {
            "format": "stillreel run",
            "schema": 1,
            "settings": self._run,
            "settings_digest": settings.digest(),
            "libraries": library_versions(),
            "began_from": elsewhere or self._began_from(),
        }
        Folder(str(self.path)).publish(RUN, in_json(run))

    def _tidy(self, latest: int) -> None:
        """Remove what need not stay. That it cannot be removed stops no run."""
        steps = steps_in(self._home)
        values = {
            step: (metrics_of(self._home / step_name(step)) or {}).get(self._settings.best_metric) for step in steps
        }
        for step in steps:
            if step not in kept_steps(values, self._settings) | {latest}:
                try:
                    remove_checkpoint(self._home, step)
                except OSError as error:
                    _log.warning(f"{self._home / step_name(step)} cannot be removed: {error}")


def find_latest(home: Path) -> Checkpoint | None:
    """The latest whole checkpoint under `home`, None when there is none at all. Damaged ones are named in the log and passed
    over; DataError when no other is left."""
    steps = steps_in(home)
    for step in reversed(steps):
        path = home / step_name(step)
        try:
            return open_checkpoint(path)
        except ValueError as error:
            _log.warning(f"damaged, passed over: {path}: {error}")
    if steps:
        raise DataError(
            f"{home} holds {len(steps)} checkpoints and none is whole; the damage is named above. To start anew, remove it or "
            "give another OUT"
        )
    return None


def find_given(path: Path) -> Checkpoint:
    """The checkpoint at a path, or the latest of the run at a path. RequestError when there is none, DataError when damaged."""
    home = path / CHECKPOINTS
    if steps_in(home):
        found = find_latest(home)
        assert found is not None
        return found
    if not (path / STATE).is_file():
        raise RequestError(
            f"resume={path}: neither a checkpoint (it has no {STATE}) nor a run's folder; expected auto, never, "
            "OUT/checkpoints/step-N, or an OUT"
        )
    try:
        return open_checkpoint(path)
    except ValueError as error:
        raise DataError(f"{path}: {error}; give another checkpoint") from None


def kept_steps(values: Mapping[int, float | None], settings: RunSettings) -> set[int]:
    """Which checkpoints stay, of the steps that there are with their value of the metric `best` (None where unknown)."""
    latest = set(sorted(values)[-settings.keep_last :])
    milestones = {step for step in values if settings.keep_every and step % settings.keep_every == 0}
    known = {step: value for step, value in values.items() if value is not None}
    # Of equal ones the earliest, so that it stays the same.
    best = {max(sorted(known), key=lambda step: known[step])} if settings.best_metric and known else set()
    return latest | milestones | best


def library_versions() -> dict[str, str]:
    """What a run's numbers may depend on, as far as it is installed."""
    return libraries.library_versions(_LIBRARIES)


def _free_name(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
