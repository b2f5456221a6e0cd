"""Read a pickle of plain containers (MSVD's raw-captions.pkl) and no other.

A pickle is a program for a small machine. The only instructions admitted here are those that make numbers, text, lists,
tuples and dictionaries: none that names, calls or builds anything. So nothing of a file can run, and the unpickler
that follows would refuse a name all the same. (Checkpoints, which need more, have stillreel.pretrain.model.pickles.)
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, NoReturn

from stillreel.configs import DataError

_ADMITTED = frozenset(
    {
        "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE",
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
        "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
        "EMPTY_LIST", "APPEND", "APPENDS", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
        "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS",
        "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    }
)  # fmt: skip


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, _pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to something outside")


def read_plain(data: bytes) -> tuple[Any, int]:
    """The value of a pickle of plain containers, and how many instructions made it.

    The count bounds what an honest file holds: one that repeats a list of lists by reference to make a small file hold a
    billion words has more items than instructions, which whoever walks the value can see. DataError otherwise; nothing
    of the file has run then. Text of Python 2 is taken as UTF-8.
    """
    count = _vet(data)
    try:
        return _Unpickler(io.BytesIO(data), encoding="utf-8").load(), count
    except Exception as error:
        # A malformed pickle can make the unpickler raise almost anything; none of it is a fault of this program.
        raise DataError(f"damaged or cut off: {type(error).__name__}: {error}") from None


def _vet(data: bytes) -> int:
    """Refuse, before anything is made, instructions that are not admitted and memo indices that would take memory."""
    count = 0
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data), 1):
            if opcode.name not in _ADMITTED:
                raise DataError(
                    f"refused: its pickle has the instruction {opcode.name} ({argument!r:.80}) at byte {position}, and "
                    "captions need only text, lists and dictionaries; nothing of it was executed. If you trust where it "
                    "came from, save its captions as JSON: {id: [caption, ...]}"
                )
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > count:
                raise DataError(
                    f"refused: its pickle declares a memo of {argument:,} entries after {count:,} instructions"
                )
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"no pickle, or one that is damaged or cut off: {error}") from None
    return count
