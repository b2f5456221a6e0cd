"""Checkpoints that are a folder of shards: of DeepSpeed, of torch.distributed.checkpoint (FSDP), of accelerate; and adapters.

    mp_rank_00_model_states.pt                     DeepSpeed's ZeRO 1 and 2: the whole model in one file
    zero_pp_rank_N_mp_rank_00_{model,optim}_states.pt   its ZeRO 3: each rank's part of every weight, flat
    .metadata, __N_M.distcp                        FSDP: the chunks of each tensor, by a table
    adapter_config.json, adapter_model.safetensors PEFT's LoRA, which is merged into its base

As everywhere, nothing is executed and no size is believed before it is held against the bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from stillreel.configs import DataError, RequestError
from stillreel.configs.system.claims import damage_of
from stillreel.pretrain.model.adapted import ADAPTER, read_adapted
from stillreel.pretrain.model.files import (
    FOLDER_FILES,
    PLACES,
    Checkpoint,
    open_zip,
    read_checkpoint,
    read_file,
    read_tensor,
    reading_zip,
    unwrapped,
)
from stillreel.pretrain.model.pickles import PickledTensor, Record, unpickle

_WHOLE = re.compile(r"mp_rank_(\d+)_model_states\.pt")
_PART = re.compile(r"zero_pp_rank_(\d+)_mp_rank_00_model_states\.pt")
_TABLE = ".metadata"
_MOST_STAGES = 1 << 16  # chunks of a tensor


def read_folder(folder: Path) -> Checkpoint:
    """The state dict of a folder that holds no single file of one. RequestError where it is no checkpoint."""
    names = {path.name for path in folder.iterdir()}
    readers: tuple[tuple[bool, Callable[[Path], Checkpoint]], ...] = (
        (ADAPTER in names, read_adapted),
        (_TABLE in names, _read_distributed),
        (any(map(_WHOLE.fullmatch, names)), _read_whole),
        (any(map(_PART.fullmatch, names)), _read_zero3),
    )
    for there, read in readers:
        if there:
            try:
                with damage_of("damaged"):  # whatever shapes, sizes and places in it do to those who compute with them
                    return read(folder)
            except DataError as error:
                raise DataError(f"{folder}: {error}") from None
    for inner in _inner_folders(folder):
        return read_checkpoint(inner)
    raise RequestError(
        f"{folder}: a folder without a checkpoint; expected one of {', '.join(FOLDER_FILES)} in it, an adapter of PEFT's, or the "
        "shards of DeepSpeed or FSDP"
    )


def _inner_folders(folder: Path) -> list[Path]:
    """Where accelerate, DeepSpeed (its file `latest` names it) and FSDP put the model's folder."""
    latest = folder / "latest"
    if latest.is_file():
        tag = latest.read_text(encoding="utf-8", errors="replace").strip()
        if not tag or PurePosixPath(tag).name != tag or not (folder / tag).is_dir():
            raise DataError(f"{latest} names {tag!r}, which is no folder beside it")
        return [folder / tag]
    return [folder / name for name in ("pytorch_model", "pytorch_model_fsdp_0", "model") if (folder / name).is_dir()]


def _read_whole(folder: Path) -> Checkpoint:
    files = sorted(path for path in folder.iterdir() if _WHOLE.fullmatch(path.name))
    if len(files) > 1:
        raise DataError(
            f"its weights are split over {len(files)} ranks (tensor parallel); merge them with the code that did it"
        )
    return read_file(files[0])._replace(container="DeepSpeed")


def _read_zero3(folder: Path) -> Checkpoint:
    """Each weight from its parts of all ranks, in fp32, as DeepSpeed's own zero_to_fp32.py does."""
    files = sorted((int(found[1]), path) for path in folder.iterdir() if (found := _PART.fullmatch(path.name)))
    if [rank for rank, _ in files] != list(range(len(files))):
        raise DataError(f"of its parts there are those of the ranks {', '.join(str(rank) for rank, _ in files)}")
    with ExitStack() as opened, reading_zip():

        def value_of(path: Path) -> tuple[Any, Any]:
            if not path.is_file():
                raise DataError(f"{path.name} is missing, which has the weights of a rank")
            return open_zip(opened.enter_context(path.open("rb")))

        flat = []
        for _, path in files:
            value, load = value_of(path.with_name(path.name.replace("model_states", "optim_states")))
            groups = _entry(_entry(value, "optimizer_state_dict"), "fp32_flat_groups")
            flat.append(
                torch.cat([read_tensor(one, load).flatten() for one in groups if isinstance(one, PickledTensor)])
            )
        model, load = value_of(files[0][1])
        shapes = {name: shape for group in _entry(model, "param_shapes") for name, shape in group.items()}
        tensors = _merged(shapes, flat)
        buffers = model.get("buffer_names") or ()
        for name, one in _entry(model, "module").items():
            if name in buffers and isinstance(one, PickledTensor):
                tensors[name] = read_tensor(one, load)
        if model.get("frozen_param_shapes"):
            raise DataError(
                "some of its weights were frozen, and lie apart; make one file of it with DeepSpeed's zero_to_fp32.py"
            )
    return unwrapped(tensors, "DeepSpeed, ZeRO 3")


def _entry(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise DataError(f"a file of DeepSpeed's without {name!r}")
    return value[name]


def _merged(shapes: Mapping[str, tuple[int, ...]], flat: list[Tensor]) -> dict[str, Tensor]:
    """Every rank holds as much of a weight, the last one perhaps with padding; the weights follow each other."""
    tensors, offset = {}, 0
    for name, shape in shapes.items():
        if not isinstance(shape, tuple):
            raise DataError(f"its shape of {name} is none")
        count = math.prod(shape)
        part = -(-count // len(flat))
        if any(len(one) < offset + part for one in flat):
            raise DataError(f"damaged: its ranks hold less than {name} needs")
        whole = torch.cat([one[offset : offset + part] for one in flat])
        tensors[name] = whole[:count].reshape(shape)
        offset += part
    return tensors


def _read_distributed(folder: Path) -> Checkpoint:
    """Tensors from their chunks, as the table of torch.distributed.checkpoint places them in its files."""
    with (folder / _TABLE).open("rb") as handle:
        table = unpickle(io.BytesIO(handle.read())).value
    if not isinstance(table, Record):
        raise DataError(f"its {_TABLE} is not that of torch.distributed.checkpoint")
    about, stored = (_attribute(table, name, dict) for name in ("state_dict_metadata", "storage_data"))
    names = [name for name, one in about.items() if isinstance(name, str) and isinstance(one, Record)]
    names = [name for name in names if "chunks" in about[name].attributes]
    place = next((place for place in PLACES if any(name.startswith(f"{place}.") for name in names)), "")
    taken = {name: name.removeprefix(f"{place}.") for name in names if not place or name.startswith(f"{place}.")}
    chunks: dict[str, list[tuple[Any, Any]]] = {name: [] for name in taken}
    for index, where in stored.items():
        fqn = index.attributes.get("fqn") if isinstance(index, Record) else None
        if fqn in chunks and isinstance(where, Record):
            chunks[fqn].append((index.attributes.get("offset"), where))
    tensors = {bare: _assemble(folder, name, about[name], chunks[name]) for name, bare in taken.items()}
    left = tuple(str(name) for name in about if name not in taken)
    return unwrapped(tensors, "torch.distributed.checkpoint", place=place, left=left)


def _attribute(record: Record, name: str, kind: type) -> Any:
    value = record.attributes.get(name)
    if not isinstance(value, kind):
        raise DataError(f"damaged: its {_TABLE} has no {name}")
    return value


def _assemble(folder: Path, name: str, about: Record, chunks: list[tuple[Any, Record]]) -> Tensor:
    size = _attribute(about, "size", tuple)
    if not chunks or len(chunks) > _MOST_STAGES:
        raise DataError(f"damaged: no chunk of {name} is in its files")
    whole: Tensor | None = None
    for offset, where in chunks:
        part = _read_chunk(folder, name, where)
        if part.shape == size and len(chunks) == 1:
            return part
        if whole is None:
            # Chunks that lie in the files are as much together as the tensor, so a size of nothing there is refused.
            if math.prod(size) > len(chunks) * max(part.numel(), 1) * 2:
                raise DataError(f"damaged: the chunks of {name} are less than its size {tuple(size)}")
            whole, filled = torch.empty(size, dtype=part.dtype), torch.zeros(size, dtype=torch.bool)
        fits = isinstance(offset, tuple) and len(offset) == part.ndim == len(size)
        if not fits or any(at + length > most for at, length, most in zip(offset, part.shape, size, strict=True)):
            raise DataError(f"damaged: a chunk of {name} lies outside of it")
        place = tuple(slice(at, at + length) for at, length in zip(offset, part.shape, strict=True))
        if filled[place].any():
            raise DataError(f"damaged: chunks of {name} overlap: that at {offset} has elements that an earlier one has")
        whole[place], filled[place] = part, True
    assert whole is not None  # for there are chunks
    if not filled.all():
        raise DataError(
            f"the chunks of {name} that are here are {int(filled.sum()):,} of its {whole.numel():,} elements"
        )
    return whole


def _read_chunk(folder: Path, name: str, where: Record) -> Tensor:
    file, offset, length = (where.attributes.get(key) for key in ("relative_path", "offset", "length"))
    if not isinstance(file, str) or PurePosixPath(file).name != file or not (folder / file).is_file():
        raise DataError(f"{name} is in the file {file!r}, which does not lie beside its table")
    if type(offset) is not int or type(length) is not int or min(offset, length) < 0:
        raise DataError(f"damaged: the place of {name} in {file} is no number")
    with (folder / file).open("rb") as handle, reading_zip():
        handle.seek(offset)
        value, load = open_zip(io.BytesIO(handle.read(length)))
        if not isinstance(value, PickledTensor):
            raise DataError(f"damaged: what {file} has for {name} is no tensor")
        return read_tensor(value, load)
