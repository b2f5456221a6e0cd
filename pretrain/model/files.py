"""Checkpoint files of every kind as named tensors: safetensors, torch's zip and legacy files, TorchScript, HF folders.

    file ──> container ──> where its state dict lies ──> prefixes taken off ──> {name: tensor}, as stored

Nothing of a file is executed (see `pickles`), sizes that it declares are held against the bytes that it has before any
memory is taken, and only the tensors of the state dict are read: an optimizer's stay on the disk.
"""

from __future__ import annotations

import errno
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stillreel.configs import DataError, RequestError
from stillreel.pretrain.model.pickles import PickledTensor, ScriptObject, Storage, unpickle

FORMAT = "stillreel model"  # what the config.json of a model of ours says that it is

# Where training codes put the state dict, in the order in which one is taken.
PLACES = ("state_dict", "model_state_dict", "model", "module", "net", "network")
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel's, torch.compile's
_BEGINNINGS = (  # of names as codes know them: what stands before them in all of a file's is its trainer's
    *("clip.", "backbone.", "text_backbone.", "visual.", "text.", "vision_model.", "text_model.", "image_encoder."),
    *("conv1.", "trunk.", "base_model.", "logit_scale"),
)
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_FOLDER_CONFIGS = ("open_clip_config.json", "config.json")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_BIG_ENDIAN = "written on a big-endian machine; save it anew on a common one"
_CHUNK = 1 << 24  # bytes read at once
_MOST_ATTRIBUTES, _LONGEST_NAME = 1_000_000, 1000  # of TorchScript modules

# A storage of the file, by its key, as a flat tensor.
Load = Callable[[Storage], Tensor]


class Checkpoint(NamedTuple):
    """What a checkpoint file holds.

    `tensors`: the state dict, names without wrappers' prefixes, values as stored. `container`: what kind of file it is.
    `place`: the entry that was taken as the state dict, empty for the file itself. `prefix`: what was taken off every
    name. `left`: entries beside the state dict, and in it what is no tensor. `config`: the JSON beside a file of a hub's
    folder.
    """

    tensors: dict[str, Tensor]
    container: str
    place: str
    prefix: str
    left: tuple[str, ...]
    config: dict[str, Any]


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint file or HF folder, on the CPU, in the dtypes of the file; see `read_checkpoint`."""
    return read_checkpoint(path).tensors


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of any kind.

    RequestError when nothing is there; DataError when it is cut off, damaged, not a checkpoint, or asks for more than
    tensors. Executes nothing of it.
    """
    path = Path(path).expanduser()
    if path.is_dir() and not any((path / name).is_file() for name in FOLDER_FILES):
        from stillreel.pretrain.model.folders import read_folder  # which reads files, too

        return read_folder(path)
    if path.is_dir():
        path = next(path / name for name in FOLDER_FILES if (path / name).is_file())
    if not path.is_file():
        raise RequestError(f"{path}: no such file or folder")
    try:
        found = _read_sharded(path) if path.name.endswith(".index.json") else read_file(path)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return found._replace(config=config_beside(path))


def config_beside(path: Path) -> dict[str, Any]:
    """The JSON in a hub's folder, or beside a file that has its name in one; {} where there is none."""
    folder = path if path.is_dir() else path.parent
    if path == folder or path.name in FOLDER_FILES:
        for name in _FOLDER_CONFIGS:
            if (folder / name).is_file():
                return read_json(folder / name)
    return {}


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path.name}: expected a JSON object, found {type(value).__name__}")
    return value


def _read_sharded(index: Path) -> Checkpoint:
    """A state dict in several files: `weight_map` of the index names the file of each tensor."""
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise DataError("expected a weight_map from tensors to files")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(files.values())):
        if PurePosixPath(name).name != name or not (index.parent / name).is_file():
            raise DataError(f"it names the file {name!r}, which does not lie beside it")
        part = read_file(index.parent / name).tensors
        tensors.update({key: tensor for key, tensor in part.items() if files.get(key) == name})
    missing = [key for key in files if key not in tensors]
    if missing:
        raise DataError(f"{len(missing)} tensors are not in the files that it names, first {missing[0]!r}")
    return unwrapped(tensors, "sharded")


def read_file(path: Path) -> Checkpoint:
    with path.open("rb") as handle:
        start = handle.read(64)
        handle.seek(0)
        # safetensors begins with a length, which may read as the start of a pickle: look for its header first.
        json_follows = start[8:9] == b"{"
        if json_follows and int.from_bytes(start[:8], "little") < path.stat().st_size:
            return _read_safetensors(path)
        if start[:4] == b"PK\x03\x04":
            return _read_zip(handle)
        if start[:1] == b"\x80":
            return _read_legacy(handle)
    if json_follows:
        return _read_safetensors(path)
    raise DataError(f"not a checkpoint: {_what_it_is(start)}. Expected safetensors, or a file of torch.save")


def _what_it_is(start: bytes) -> str:
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of git-lfs; run `git lfs pull` where it comes from"
    if start.lstrip()[:1] == b"<":
        return "it is a web page, as a failed download leaves it"
    return f"it begins with {start[:8]!r}"


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise DataError(f"damaged or cut off: {error}") from None
    return unwrapped(tensors, "safetensors")


def _read_zip(handle: BinaryIO) -> Checkpoint:
    """torch.save since 1.6, and TorchScript: ROOT/data.pkl says what there is, ROOT/data/KEY are its storages."""
    value, load = open_zip(handle)
    with reading_zip():
        if isinstance(value, ScriptObject):
            return from_value(_attributes(value), load, "TorchScript")
        return from_value(value, load, "torch")


def open_zip(handle: BinaryIO) -> tuple[Any, Load]:
    """What a zip of torch.save's holds, tensors as `PickledTensor`, and how to read their storages: within `reading_zip`."""
    with reading_zip():
        archive = _Archive(handle)
        with archive.zip.open(archive.member("data.pkl")) as pickled:
            return unpickle(io.BytesIO(pickled.read())).value, archive.load


@contextmanager
def reading_zip() -> Iterator[None]:
    """What is wrong with a zip is a DataError."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:  # a disk's own failure, not a place before the file's beginning
            raise
        raise DataError("damaged or cut off: its directory points outside of it") from None
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise DataError(f"damaged or cut off: {error}") from None


class _Archive:
    """A zip as torch writes it: one folder, its data not compressed, so that no member can be larger than the file."""

    def __init__(self, handle: BinaryIO) -> None:
        self.size = handle.seek(0, 2)
        self.zip = zipfile.ZipFile(handle)
        self.members = {info.filename: info for info in self.zip.infolist()}
        roots = [name.removesuffix("data.pkl") for name in self.members if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise DataError("a zip file, but not one that torch wrote: it has no FOLDER/data.pkl")
        self.root = roots[0]
        self.loaded: dict[str, Tensor] = {}
        self.loaded_bytes = 0
        if f"{self.root}byteorder" in self.members and self.zip.read(self.member("byteorder")) != b"little":
            raise DataError(_BIG_ENDIAN)

    def member(self, name: str) -> zipfile.ZipInfo:
        info = self.members.get(self.root + name)
        if info is None:
            raise DataError(f"damaged: it has no {name}")
        plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
        if not plain or info.file_size != info.compress_size or info.header_offset + info.file_size > self.size:
            raise DataError(
                f"refused: its {name} is compressed, encrypted or larger than the file; torch stores it plain"
            )
        return info

    def load(self, storage: Storage) -> Tensor:
        if storage.key not in self.loaded:
            info = self.member(f"data/{storage.key}")
            if info.file_size != storage.nbytes:
                raise DataError(f"damaged: {info.file_size:,} bytes where {storage.nbytes:,} are declared")
            # Members of a crafted file may overlap; those of a plain one are no more than the file together.
            self.loaded_bytes += info.file_size
            if self.loaded_bytes > self.size:
                raise DataError("refused: its storages overlap")
            with self.zip.open(info) as opened:
                self.loaded[storage.key] = _read_flat(opened, storage)
        return self.loaded[storage.key]


def _attributes(root: ScriptObject) -> dict[str, Any]:
    """A TorchScript module's tensors, those of its submodules by dotted names."""
    tensors: dict[str, Any] = {}
    visited, waiting = 0, [("", root)]
    while waiting:
        prefix, module = waiting.pop()
        for name, value in module.attributes.items():
            visited += 1
            if visited > _MOST_ATTRIBUTES or len(prefix) > _LONGEST_NAME:
                raise DataError("refused: its modules hold each other without end")
            if isinstance(value, ScriptObject):
                waiting.append((f"{prefix}{name}.", value))
            elif isinstance(value, PickledTensor):
                tensors[prefix + name] = value
    return tensors


def _read_legacy(handle: BinaryIO) -> Checkpoint:
    """torch.save before 1.6: magic number, version, machine, the value, keys of storages, then each: count and bytes."""
    if unpickle(handle).value != _LEGACY_MAGIC:
        raise DataError("a pickle, but not one that torch.save wrote")
    _version, machine, (value, storages), keys = (unpickle(handle) for _ in range(4))
    if not isinstance(machine.value, dict) or machine.value.get("little_endian") is not True:
        raise DataError(_BIG_ENDIAN)
    position = handle.tell()
    end = handle.seek(0, 2)
    positions: dict[str, int] = {}
    for key in keys.value if isinstance(keys.value, list) else []:
        handle.seek(position)
        count = int.from_bytes(handle.read(8), "little")
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None or count != storage.numel or position + 8 + storage.nbytes > end:
            raise DataError("damaged or cut off: it ends before its tensors do")
        positions[storage.key] = position + 8
        position += 8 + storage.nbytes
    loaded: dict[str, Tensor] = {}

    def load(storage: Storage) -> Tensor:
        if storage.key not in positions:
            raise DataError(f"damaged or cut off: storage {storage.key} is not in it")
        if storage.key not in loaded:
            handle.seek(positions[storage.key])
            loaded[storage.key] = _read_flat(handle, storage)
        return loaded[storage.key]

    return from_value(value, load, "torch, legacy")


def _read_flat(source: IO[bytes], storage: Storage) -> Tensor:
    """The storage's elements from where `source` stands."""
    flat = torch.empty(storage.nbytes, dtype=torch.uint8)
    free = flat.numpy().data
    while free:
        count = source.readinto(free[:_CHUNK])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("it ends before its tensors do")
        free = free[count:]
    return flat.view(storage.dtype)


def from_value(value: Any, load: Load, container: str) -> Checkpoint:
    """Find the state dict in what a pickle held, and read its tensors."""
    place, state = _find_state_dict(value)
    pickled = {name: one for name, one in state.items() if isinstance(name, str) and isinstance(one, PickledTensor)}
    left = [_spelt(name) for name in state if name not in pickled]
    if place:
        left = [_spelt(name) for name in value if name != place] + [f"{place}.{name}" for name in left]
    tensors = {name: read_tensor(one, load) for name, one in pickled.items()}
    return unwrapped(tensors, container, place=place, left=tuple(left))


def read_tensor(pickled: PickledTensor, load: Load) -> Tensor:
    """A tensor that a pickle describes."""
    return torch.as_strided(load(pickled.storage), pickled.shape, pickled.stride, pickled.offset)


def _find_state_dict(value: Any) -> tuple[str, dict[Any, Any]]:
    if not isinstance(value, dict):
        raise DataError(f"it holds a {type(value).__name__}, not the state dict of a model")
    for place, inner in [(place, value.get(place)) for place in PLACES] + [("", value)]:
        if isinstance(inner, dict) and any(isinstance(one, PickledTensor) for one in inner.values()):
            return place, inner
    entries = ", ".join(map(_spelt, list(value)[:8])) or "none"
    raise DataError(f"it holds no state dict; its entries: {entries}. Expected tensors, or one of {', '.join(PLACES)}")


def _spelt(name: object) -> str:
    """A key of a dictionary; of what is no name, its type, since a crafted tuple can take for ever to print."""
    return name if isinstance(name, str) else type(name).__name__


def unwrapped(tensors: dict[str, Tensor], container: str, *, place: str = "", left: tuple[str, ...] = ()) -> Checkpoint:
    """The checkpoint, its names without the prefixes that wrappers of a whole model put before all of them."""
    if not tensors:
        raise DataError("it holds no tensors")
    prefix = ""
    while wrapper := next((one for one in _WRAPPERS if all(name.startswith(prefix + one) for name in tensors)), ""):
        prefix += wrapper
    prefix += _of_trainer([name.removeprefix(prefix) for name in tensors])
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return Checkpoint(bare, container, place, prefix, left, {})


def _of_trainer(names: Sequence[str]) -> str:
    """What stands before all names as codes know them (Lightning's `model.`, or any other); empty where nothing does."""
    prefix = ""
    while True:
        bare = [name.removeprefix(prefix) for name in names]
        if any(name.startswith(_BEGINNINGS) for name in bare):
            return prefix
        firsts = {name.partition(".")[0] if "." in name else "" for name in bare}
        if len(firsts) > 1 or "" in firsts:
            return ""
        prefix += f"{firsts.pop()}."
