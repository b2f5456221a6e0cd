"""A run whose weights lie in shards, on the disk: each rank writes its own part, and any number of ranks reads them back.

    training-00000-of-00004.safetensors    of rank 0: its rows of each tensor, by the tensor's name; and what is not split
    training-00001-of-00004.safetensors    ...
    model.safetensors                      whole, for it is a model: rank 0 writes it, one tensor after another

A part's metadata say of each of its tensors {NAME: [rows of the whole tensor, the first of those here]}. No rank holds more
than its own part and one whole weight.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from stillreel.configs import DataError
from stillreel.configs.system.claims import parse_json
from stillreel.configs.system.storage import Folder
from stillreel.pretrain.engine.parallel import shard_axis
from stillreel.pretrain.engine.state import Rows, own_rows, own_state
from stillreel.pretrain.objectives import Task

_ROWS = "rows"  # the entry of the metadata
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Parts(NamedTuple):
    """What `Snapshot` has, as it lies on this rank, not copied: to be written before the next step."""

    weights: Mapping[str, Tensor]
    training: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Of the whole tensors."""
        return sum(one.nbytes for part in self for one in part.values())


def take_parts(task: Task, optimizer: Optimizer, groups: Mapping[str, Mapping[str, Tensor]]) -> Parts:
    """This rank's of a task in shards, of its optimizer, and of `groups`."""
    state = own_state(task, optimizer)
    named = {"task": state.task, "optimizer": state.optimizer, **groups}
    return Parts(
        state.model, {f"{group}.{name}": one for group, tensors in named.items() for name, one in tensors.items()}
    )


def part_names(ranks: int) -> list[str]:
    """Of the files of so many ranks."""
    return [f"training-{rank:05d}-of-{ranks:05d}.safetensors" for rank in range(ranks)]


def write_part(folder: Path, name: str, training: Mapping[str, Tensor]) -> None:
    """This rank's tensors. Ranks that hold the same rows as others take turns, tensor by tensor."""
    own: dict[str, Tensor] = {}
    rows: dict[str, tuple[int, int]] = {}
    for number, (key, tensor) in enumerate(training.items()):
        if not isinstance(tensor, DTensor):
            if dist.get_rank() == 0:
                own[key] = tensor.detach()
        elif _is_ours(tensor, number):
            first, end = own_rows(tensor)
            if end > first:
                own[key], rows[key] = tensor.to_local().detach().contiguous(), (len(tensor), first)
    if not folder.is_dir():
        raise DataError(f"{folder} is seen by rank 0 only: all ranks need one file system")
    with Folder(str(folder)).draft(name) as draft:
        save_file(own, draft.path, {"format": "pt", _ROWS: json.dumps(rows)})
        draft.publish()


def stream_weights(folder: Path, name: str, weights: Mapping[str, Tensor]) -> None:
    """Whole tensors, in the bytes of `save_file`, by rank 0, which holds one of them at a time. All ranks must call it.

    What fails on rank 0 is raised after the last tensor, as the others wait in the gathering of the rest.
    """
    names = sorted(weights, key=lambda key: (-weights[key].element_size(), key))
    wholes = _gathered(weights[key] for key in names)
    try:
        if dist.get_rank() == 0:
            with Folder(str(folder)).draft(name) as draft:
                with draft.path.open("wb") as file:
                    file.write(_header({key: weights[key] for key in names}))
                    for whole in wholes:
                        file.write(whole.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
                draft.publish()
    finally:
        for _ in wholes:
            pass


def read_parts(files: Sequence[Path]) -> dict[str, Tensor | Rows]:
    """Every tensor of the parts, none of it read before it is asked for. ValueError names a tensor whose rows are missing, or
    there twice."""
    whole: dict[str, Tensor | Rows] = {}
    pieces: dict[str, list[_Piece]] = {}
    for path in files:
        with safe_open(path, "pt") as file:
            rows = parse_json((file.metadata() or {}).get(_ROWS, "{}").encode())
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                if name in rows:
                    pieces.setdefault(name, []).append(_Piece(rows[name][0], rows[name][1], file.get_tensor(name)))
                elif name in whole:
                    raise ValueError(f"{name} is whole in two parts")
                else:
                    whole[name] = file.get_tensor(name)
    if twice := sorted(whole.keys() & pieces.keys()):
        raise ValueError(f"{twice[0]} is whole in one part, and split in others")
    return whole | {name: _joined(name, found) for name, found in pieces.items()}


class _Piece(NamedTuple):
    rows: int  # of the whole tensor
    first: int
    tensor: Tensor


def _joined(name: str, pieces: list[_Piece]) -> Rows:
    pieces.sort(key=lambda one: one.first)
    like, end = pieces[0], 0
    for piece in pieces:
        if (piece.rows, piece.tensor.shape[1:], piece.tensor.dtype) != (
            like.rows,
            like.tensor.shape[1:],
            like.tensor.dtype,
        ):
            raise ValueError(f"the parts of {name} are of tensors of several shapes or types")
        if piece.first < end:
            raise ValueError(f"parts of {name} overlap: row {piece.first:,} is in two of them")
        if piece.first > end:
            break
        end += len(piece.tensor)
    if end < like.rows:
        raise ValueError(f"row {end:,} of the {like.rows:,} of {name} is in no part")
    if end > like.rows:
        raise ValueError(f"the parts of {name} have {end:,} rows, and it has {like.rows:,}")
    return Rows([piece.tensor for piece in pieces])


def _is_ours(tensor: DTensor, number: int) -> bool:
    """Whether this rank, of those that hold these rows, writes the tensor of this number."""
    mesh, axis = shard_axis(tensor)
    others = [one for one in range(mesh.ndim) if one != axis]
    return all(number % mesh.size(one) == mesh.get_local_rank(one) for one in others)


def _gathered(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    for tensor in tensors:
        own = tensor.detach()
        yield own.full_tensor() if isinstance(own, DTensor) else own


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    """What stands before the bytes of tensors in a file of safetensors."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        first, end = end, end + tensor.nbytes
        table[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [first, end]}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
