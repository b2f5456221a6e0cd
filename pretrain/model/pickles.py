"""Read the pickle inside a checkpoint without running anything of it: tensors become references, the rest plain data.

A pickle is a program that calls whatever it names. `unpickle` admits what a state dict is made of (containers, and the
functions that torch rebuilds tensors by, here replaced by ones that only note what was asked for), puts an inert
stand-in where training frameworks keep their own objects beside the weights, and refuses every other name. No name
leads to an import. Needed because `torch.load(weights_only=True)` refuses mmengine's files, whose log buffers lie beside
the weights, and TorchScript archives.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, Self

import torch

from stillreel.configs import DataError

# torch's storage classes, by which a pickle says what a storage holds.
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MOST_AXES = 64  # of a tensor, as torch has it

# What training frameworks leave beside the weights: log buffers, configurations, arguments, numpy's numbers.
_INERT_PACKAGES = frozenset(
    {
        *("mmengine", "mmcv", "mmaction", "addict", "numpy"),
        *("lightning", "lightning_fabric", "pytorch_lightning", "deepspeed", "accelerate", "transformers", "peft"),
        *("omegaconf", "yacs", "easydict", "ml_collections"),
    }
)
_RECORDS = "torch.distributed.checkpoint."  # whose metadata tell where each tensor lies: kept as attributes
_INERT_NAMES = frozenset(
    {
        "_codecs.encode",  # bytes, as protocol 2 spells them
        "argparse.Namespace",
        "collections.Counter",
        "collections.defaultdict",
        "collections.deque",
        "datetime.datetime",
        "datetime.timedelta",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "torch.device",
        "torch.dtype",
        "torch.serialization._get_layout",
        "typing.Any",
        *(
            f"builtins.{name}"
            for name in ("bool", "bytes", "complex", "dict", "float", "int", "list", "object", "str", "tuple")
        ),
        *(f"torch.{name}" for name in ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int32", "int64")),
    }
)


class Storage(NamedTuple):
    """A storage of the file by its key: `numel` elements of `dtype`."""

    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * int(self.dtype.itemsize)


class PickledTensor(NamedTuple):
    """A tensor as the pickle describes it: a strided view of a storage that nobody has read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Inert:
    """Stands where an object of somebody's class was: takes whatever the pickle gives it, keeps and does nothing."""

    def __new__(cls, *_args: object, **_named: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *_args: object, **_named: object) -> None: ...

    def __setstate__(self, _state: object) -> None: ...

    def __setitem__(self, _key: object, _value: object) -> None: ...

    def append(self, _item: object) -> None: ...

    def extend(self, _items: object) -> None: ...

    add = append


class _Dict(dict[Any, Any]):
    """Stands for OrderedDict, and takes no attributes: one called `items` would shadow the method."""

    __slots__ = ()

    def __setstate__(self, _state: object) -> None: ...


class _Call(NamedTuple):
    """A function that a pickle may call; a tuple, since it could set attributes on a function."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


class ScriptObject:
    """A module of a TorchScript archive: its attributes (tensors, submodules, numbers) and none of its code."""

    attributes: dict[str, Any]

    def __new__(cls, *_args: object) -> Self:
        made = super().__new__(cls)
        made.attributes = {}
        return made

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise pickle.UnpicklingError("a TorchScript object whose state is not a dictionary of attributes")
        self.attributes = state


class Record(ScriptObject):
    """An object of a data class of torch's: its attributes, and none of its methods."""

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) and all(isinstance(name, str) for name in state) else {}


class Unpickled(NamedTuple):
    """A pickle's value, tensors as `PickledTensor`, and every storage that it names, by key."""

    value: Any
    storages: dict[str, Storage]


def unpickle(handle: BinaryIO) -> Unpickled:
    """Read the pickle that begins at the handle's position; the handle then stands behind it, no storage is read.

    DataError when the pickle is cut off, malformed, or names anything that is not admitted; nothing has been executed
    then.
    """
    try:
        unpickler = _Unpickler(io.BytesIO(_vetted(handle)))
        return Unpickled(unpickler.load(), unpickler.storages)
    except DataError:
        raise
    except Exception as error:
        # A malformed pickle can make the unpickler raise almost anything; none of it is a fault of this program.
        raise DataError(f"damaged or cut off: its pickle cannot be read ({type(error).__name__}: {error})") from None


def _vetted(handle: BinaryIO) -> bytes:
    """The bytes of the next pickle, read to its end opcode by opcode.

    Refuses what would cost memory before it fails: a declared length beyond the bytes at hand, and an index into the
    memo (a table that the unpickler enlarges to any index it is given) beyond the number of opcodes.
    """
    start = handle.tell()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(handle)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > count:
            raise DataError(f"refused: its pickle declares a memo of {argument:,} entries after {count:,} opcodes")
    length = handle.tell() - start
    handle.seek(start)
    return handle.read(length)


class _Unpickler(pickle.Unpickler):
    """Knows no class but those below. `find_class` is where every name of a pickle passes, whatever opcode bears it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)  # as protocol 2 spells them
        full_name = f"{module}.{name}"
        if full_name in _ADMITTED:
            return _ADMITTED[full_name]
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        if module.split(".")[0] == "__torch__":
            return ScriptObject
        if module.startswith(_RECORDS):
            return Record
        if module.split(".")[0] in _INERT_PACKAGES or full_name in _INERT_NAMES:
            return Inert
        raise DataError(
            f"refused: its pickle asks for {full_name}, which no state dict needs; nothing of it was executed. "
            "If you trust where it came from, save its state dict alone as safetensors where that code is installed"
        )

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _location, numel, *view = pid
        known = kind == "storage" and isinstance(dtype, torch.dtype) and isinstance(key, str)
        if not known or type(numel) is not int or numel < 0:
            raise pickle.UnpicklingError("it refers to something that is not a storage of tensors")
        if view not in ([], [None]):
            raise pickle.UnpicklingError("a storage that is a view of another (torch before 0.4)")
        return self.storages.setdefault(key, Storage(key, dtype, numel))


def _rebuild_tensor(storage: Storage, offset: int, shape: Any, stride: Any, *_rest: object) -> PickledTensor:
    """Stands for `torch._utils._rebuild_tensor_v2`: checks that the view lies in its storage."""
    shape, stride = _sizes(shape), _sizes(stride)
    if not isinstance(storage, Storage) or len(shape) != len(stride) or _sizes([offset]) != (offset,):
        raise DataError("damaged: its pickle describes something that is no tensor")
    numel, last = 1, offset
    for size, step in zip(shape, stride, strict=True):
        numel *= size
        last += max(size - 1, 0) * step
    if numel > storage.numel or (numel and last >= storage.numel):
        raise DataError(f"damaged: a tensor of shape {shape} does not fit its storage of {storage.numel:,} elements")
    return PickledTensor(storage, offset, shape, stride)


def _sizes(numbers: Any = ()) -> tuple[int, ...]:
    """Stands for `torch.Size`: few, whole and not negative."""
    if not isinstance(numbers, list | tuple) or len(numbers) > _MOST_AXES:
        raise DataError("damaged: the sizes of a tensor are no list of numbers")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise DataError("damaged: the sizes of a tensor are not whole numbers")
    return tuple(numbers)


def _ordered(pairs: Any = ()) -> _Dict:
    """Stands for `OrderedDict`. A list of pairs is spent: copied again and again, a short file could fill the memory."""
    made = _Dict(pairs)
    if isinstance(pairs, list):
        pairs.clear()
    return made


def _getattr(target: object, _name: object) -> type[Inert]:
    """`HistoryBuffer.mean` in protocol 2 is a call of getattr; on anything but a stand-in it would be an escape."""
    if target is not Inert:
        raise DataError("refused: its pickle takes an attribute of something that is not a log buffer")
    return Inert


def _first(value: Any, *_rest: object) -> Any:
    return value


_ADMITTED: dict[str, Any] = {
    "collections.OrderedDict": _Call(_ordered),
    "builtins.set": Inert,
    "builtins.frozenset": Inert,
    "builtins.getattr": _Call(_getattr),
    "copyreg._reconstructor": Inert,
    "torch.Size": _Call(_sizes),
    "torch._utils._rebuild_tensor": _Call(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _Call(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Call(_first),
    "torch._utils._rebuild_parameter_with_state": _Call(_first),
    # TorchScript writes typed lists and dictionaries through these.
    "torch.jit._pickle.build_intlist": _Call(_first),
    "torch.jit._pickle.build_boollist": _Call(_first),
    "torch.jit._pickle.build_doublelist": _Call(_first),
    "torch.jit._pickle.build_tensorlist": _Call(_first),
    "torch.jit._pickle.restore_type_tag": _Call(_first),
}
