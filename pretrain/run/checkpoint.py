"""A checkpoint on the disk: a model's folder, what only training needs beside it, and state.json, which proves it whole.

    checkpoints/.step-00001000.PID.RANDOM.part/model.safetensors, config.json, training.safetensors, state.json
        | every file fsynced, state.json last; then the folder is renamed
    checkpoints/step-00001000/

A run whose weights lie in shards has training-RANK-of-RANKS.safetensors instead, one of each rank (`parts`).
A folder without a state.json that is whole itself, and true of the other files, is no checkpoint. A kill, a crash or a full
disk at any moment leaves the earlier checkpoints as they were.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch.distributed as dist
from pydantic import Field, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file

from stillreel import __version__
from stillreel.configs import DataError
from stillreel.configs.settings import canonical_json
from stillreel.configs.system.claims import STRICT, Count, checked_name, damage_of, parse_json, read_record, shortened
from stillreel.configs.system.progress import amount
from stillreel.configs.system.storage import PART_SUFFIX, Folder, fsync
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.engine.state import whole
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.checkpoint import CONFIG, WEIGHTS, in_json, publish_config, publish_tensors, save_model
from stillreel.pretrain.run.parts import Parts, part_names, read_parts, stream_weights, write_part
from stillreel.pretrain.run.snapshot import Snapshot
from stillreel.shards.format.receipt import FileStamp
from stillreel.shards.stream.stream import State

FORMAT = "stillreel checkpoint"
SCHEMA_VERSION = 1
TRAINING, STATE = "training.safetensors", "state.json"

_NAME = re.compile(r"step-(\d{8,})")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class Checkpoint(NamedTuple):
    """What a state.json says. `settings` are the run's, as JSON has them; `metrics` those that were known when it was saved."""

    path: Path
    stream: State
    settings: Mapping[str, Any]
    metrics: Mapping[str, float | None]

    @property
    def step(self) -> int:
        """Steps that were done."""
        return self.stream.steps

    def read(self) -> Snapshot:
        """Its tensors, on the CPU: the files are mapped, and read where they are used."""
        with damage_of(f"{self.path} is damaged"):
            parts = sorted(self.path.glob("training-*-of-*.safetensors"))
            training = read_parts(parts) if parts else load_file(self.path / TRAINING)
            return Snapshot(load_file(self.path / WEIGHTS), training)


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def steps_in(home: Path) -> list[int]:
    """Steps that have a folder under `home`, ascending; whether they are whole, `open_checkpoint` says."""
    if not home.is_dir():
        return []
    return sorted(int(match[1]) for one in home.iterdir() if (match := _NAME.fullmatch(one.name)))


def write_checkpoint(
    home: Path,
    model: VideoTextModel,
    snapshot: Snapshot,
    stream: State,
    settings: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> Checkpoint:
    """Write HOME/step-N whole or not at all; one of that name must not be there.

    DataError when the disk is full or fails: it names the file, the bytes that are needed and those that are free.
    """
    name = step_name(stream.steps)
    part = _part_of(home, name)
    folder = Folder(str(part))
    body = _body(stream, settings, metrics)
    writers: dict[str, Callable[[], None]] = {
        WEIGHTS: lambda: save_model(model, folder, origin_of(home.parent, stream.steps, settings), snapshot.weights),
        TRAINING: lambda: publish_tensors(
            folder, TRAINING, {key: whole(one) for key, one in snapshot.training.items()}
        ),
        STATE: lambda: folder.publish(STATE, _encode(body, _stamps(part, (WEIGHTS, CONFIG, TRAINING)))),
        "": lambda: _name_whole(part, home / name),
    }
    last = name
    try:
        for file, write in writers.items():
            last = f"{name}/{file}".rstrip("/")
            write()
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise DataError(f"{home / last}: {_why(error, home, snapshot.nbytes)}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Checkpoint(home / name, stream, settings, body["metrics"])


def write_split_checkpoint(
    home: Path,
    model: VideoTextModel,
    parts: Parts,
    stream: State,
    settings: Mapping[str, Any],
    metrics: Mapping[str, float],
    together: Together,
) -> Checkpoint:
    """The same by all ranks, which call it together: each writes and digests its own part, and rank 0 gives the whole its name
    when all have. What one of them fails at, all raise."""
    name, rank = step_name(stream.steps), dist.get_rank()
    files = part_names(dist.get_world_size())
    part = together.hear(_part_of(home, name))
    body = _body(stream, settings, metrics)
    stamps: dict[str, FileStamp] = {}

    def do(file: str, work: Callable[[], None]) -> None:
        error = None
        try:
            work()
        except (OSError, SafetensorError) as raised:
            error = DataError(f"{home / name / file}: {_why(raised, home, parts.nbytes)}")
        except DataError as raised:
            error = raised
        together.agree([], error)

    def write_own() -> None:
        write_part(part, files[rank], parts.training)
        stamps.update(_stamps(part, files[rank : rank + 1]))

    def publish() -> None:
        if rank == 0:
            publish_config(model, Folder(str(part)), origin_of(home.parent, stream.steps, settings))
            stamps.update(_stamps(part, (WEIGHTS, CONFIG)))
            Folder(str(part)).publish(STATE, _encode(body, stamps))
            _name_whole(part, home / name)

    try:
        do("", lambda: part.mkdir(parents=True) if rank == 0 else None)
        do(files[rank], write_own)
        for others in together.collect(stamps):
            stamps.update(others)
        do(WEIGHTS, lambda: stream_weights(part, WEIGHTS, parts.weights))
        do(STATE, publish)
    finally:
        if rank == 0:
            shutil.rmtree(part, ignore_errors=True)
    return Checkpoint(home / name, stream, settings, body["metrics"])


def origin_of(run: Path, step: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a model of a run says of where it is from, and of the clips that it was trained on."""
    return {"run": str(run), "step": step, "frames": settings.get("frames")}


def remove_checkpoint(home: Path, step: int) -> None:
    """Take its name away first, so that a kill leaves no half one under it."""
    part = _part_of(home, step_name(step))
    (home / step_name(step)).rename(part)
    shutil.rmtree(part, ignore_errors=True)


def remove_unfinished(home: Path) -> None:
    """Remove what killed runs left of checkpoints that they were writing or removing."""
    for part in home.glob(f".*{PART_SUFFIX}"):
        shutil.rmtree(part, ignore_errors=True)


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a folder, after every byte of it was held against its digests. ValueError says what is damaged.

    A disk's own failure is an OSError: it says nothing of the checkpoint.
    """
    found, files = _read_state(path)
    for name, stamp in files.items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"{name} is missing")
        size = file.stat().st_size
        if size != stamp.bytes:
            raise ValueError(f"{name} has {size:,} bytes, expected {stamp.bytes:,}")
        if _digest_of(file) != stamp.digest:
            raise ValueError(f"{name} has other bytes than were written: its sha256 differs")
    return found


def metrics_of(path: Path) -> Mapping[str, float | None] | None:
    """What a checkpoint's state.json says of its metrics; None where it cannot be believed. Reads no tensors."""
    try:
        return _read_state(path)[0].metrics
    except ValueError:
        return None


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON can hold them: NaN and the infinities become null."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _read_state(path: Path) -> tuple[Checkpoint, dict[str, FileStamp]]:
    try:
        body = parse_json((path / STATE).read_bytes())
        claimed = body.pop("digest")
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{STATE} is missing") from None
    except (ValueError, TypeError, AttributeError, KeyError):
        raise ValueError(f"{STATE} is cut off or no state of a checkpoint") from None
    if _digest(body) != claimed:
        raise ValueError(f"{STATE} does not match its own digest: it was edited or damaged")
    if body.get("format") != FORMAT or body.get("schema") != SCHEMA_VERSION:
        raise ValueError(f"{STATE} has schema {body.get('schema')}; this stillreel reads {SCHEMA_VERSION}")
    state = read_record(_adapter(), {key: body.get(key) for key in _State.__annotations__})
    training = set(state.files) - {WEIGHTS, CONFIG}
    if len(training) != len(state.files) - 2 or training not in ({TRAINING}, set(part_names(len(training)))):
        raise ValueError(f"{STATE} is of {', '.join(map(shortened, state.files))}")
    for name in state.files:
        checked_name(name, Folder(str(path)))
    return Checkpoint(path, State(**asdict(state.stream)), state.settings, state.metrics), state.files


@dataclass(frozen=True)
class _Place:
    """Where its run stood in the data, as `State` has it."""

    __pydantic_config__ = STRICT
    samples: Count
    steps: Count
    fingerprint: Annotated[int, Field(ge=0, lt=1 << 64)]


@dataclass(frozen=True)
class _State:
    """What a checkpoint is read back from."""

    stream: _Place
    settings: dict[str, Any]
    metrics: dict[str, float | None]
    files: dict[str, FileStamp]


@cache
def _adapter() -> TypeAdapter[_State]:
    return TypeAdapter(_State)


def _part_of(home: Path, name: str) -> Path:
    """A folder in the making."""
    return home / f".{name}.{os.getpid()}.{os.urandom(4).hex()}{PART_SUFFIX}"


def _body(stream: State, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "schema": SCHEMA_VERSION,
        "stillreel": __version__,
        "step": stream.steps,
        "stream": stream.to_dict(),
        "settings": settings,
        "settings_digest": hashlib.sha256(canonical_json(settings)).hexdigest(),
        "metrics": finite(metrics),
    }


def _stamps(part: Path, names: Iterable[str]) -> dict[str, FileStamp]:
    return {name: FileStamp((part / name).stat().st_size, _digest_of(part / name)) for name in names}


def _encode(body: Mapping[str, Any], stamps: Mapping[str, FileStamp]) -> bytes:
    """JSON of all that the state says, the stamps of the files beside it, and its own digest."""
    stated = {**body, "files": {name: stamp._asdict() for name, stamp in stamps.items()}}
    return in_json({**stated, "digest": _digest(stated)})


def _name_whole(part: Path, final: Path) -> None:
    part.rename(final)
    fsync(final.parent)


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body)).hexdigest()


def _digest_of(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _why(error: OSError | SafetensorError, home: Path, needed: int) -> str:
    """What went wrong, in a user's words; safetensors tells the system's error in its text only."""
    told = _OS_ERROR.search(str(error))
    number = error.errno if isinstance(error, OSError) else int(told[1]) if told else None
    if number not in _FULL:
        return f"cannot be written: {os.strerror(number) if number else error}"
    limit = " (or a limit of the size of files is reached)" if number == errno.EFBIG else ""
    return (
        f"the disk is full{limit}: the checkpoint needs {needed:,} bytes ({amount(needed)}), and "
        f"{shutil.disk_usage(home).free:,} are free. Nothing of it was kept; earlier checkpoints are whole. Make room there"
    )
