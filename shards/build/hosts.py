"""Whether a host is fit to make shards: it must see the source and OUT as the driver does, and have the planned libraries.

A host that is dead is noticed. One that is ill, without a mount or with other libraries, fails fast, and so draws shard after
shard. So each process of a host proves what it sees before its first shard, and again after each one that fails: the driver's
token in OUT, whose name is of this run alone; a file of the source, by its planned size; versions. Only who fails this is ill.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from stillreel.configs.system.storage import PART_SUFFIX, Folder
from stillreel.shards.build.libraries import other_versions
from stillreel.shards.format.writer import TooManyRejects

_TRIES, _PAUSE_S = 3, 1.0  # a network may stumble, and one that caches listings lag
_FILES = 20  # of a source, that the driver itself looks for before it asks hosts for none
_token_that_was_seen = ""  # in a process that makes shards


class Witness(NamedTuple):
    """A file of the source that every host must see: where, its name, and its bytes."""

    folder: str
    name: str
    size: int


class Proof(NamedTuple):
    """What a host has to show: planned versions, the driver's token in OUT by its name and what it holds, files of the source."""

    libraries: Mapping[str, str] = {}
    out: str = ""
    token: str = ""
    secret: bytes = b""
    witnesses: tuple[Witness, ...] = ()


@contextmanager
def proof_in(folder: Folder, libraries: Mapping[str, str], witnesses: Iterable[Iterable[Witness]]) -> Iterator[Proof]:
    """Within it lies the driver's token in OUT. `witnesses` are, of each place that is read, files that may be asked for; the
    first that the driver itself finds as planned is.

    On a disk its name is another in each run, for a network's file system may remember what it saw by one; a killed driver's is
    cleaned up as all that is unfinished. In a bucket, which shows what was last written, it is always the same.
    """
    token = f".driver.{os.getpid()}.{os.urandom(8).hex()}{PART_SUFFIX}" if folder.is_local else f".driver{PART_SUFFIX}"
    found = [next(filter(_is_there, _first(candidates)), None) for candidates in witnesses]
    proof = Proof(libraries, folder.url, token, os.urandom(16), tuple(one for one in found if one is not None))
    leave_token(proof)
    try:
        yield proof
    finally:
        with suppress(Exception):  # the next run does; what is finished is finished
            folder.remove(token)


def leave_token(proof: Proof) -> None:
    """Write it, or write it again where a hand has removed it."""
    if not proof.token:  # of who only reads
        return
    Folder(proof.out).publish(proof.token, proof.secret)


def why_ill(proof: Proof) -> str:
    """What this host lacks, in words; empty where it is fit."""
    if other := other_versions(proof.libraries):
        return f"it has other library versions than the plan: {other}"
    for turn in range(_TRIES):
        lacking = _unseen(proof)
        if not lacking:
            break
        if turn + 1 < _TRIES:
            time.sleep(_PAUSE_S)
    return lacking


def make_if_fit(proof: Proof, make_shard: Callable[[Any], Any], task: Any) -> tuple[str, Any]:
    """Runs in a process of a host: ("made", what `make_shard` returns), ("ill", why), or ("failed", the exception)."""
    global _token_that_was_seen
    if _token_that_was_seen != proof.token or not proof.token:
        if why := why_ill(proof):
            return "ill", why
        _token_that_was_seen = proof.token
    try:
        return "made", make_shard(task)
    except TooManyRejects as error:  # counted by the driver: no fault of anybody's
        return "failed", error
    except Exception as error:
        _token_that_was_seen = ""
        if why := why_ill(proof):
            return "ill", f"{why} ({type(error).__name__}: {error})"
        return "failed", error


def _unseen(proof: Proof) -> str:
    if proof.token:
        folder = Folder(proof.out)
        try:
            if folder.read(proof.token) != proof.secret:
                return f"it sees another OUT at {proof.out} than the driver"
            if folder.is_local:
                _try_to_write(folder)
        except FileNotFoundError:
            return f"it does not see OUT {proof.out}, or another one: the driver's token {proof.token} is not there"
        except Exception as error:  # each bucket has its own kinds
            return f"it cannot read and write OUT {proof.out}: {type(error).__name__}: {error}"
    for one in proof.witnesses:
        try:
            size = Folder(one.folder).size(one.name)
        except Exception as error:
            return f"it cannot read the source {one.folder}: {type(error).__name__}: {error}"
        if size != one.size:
            found = "is not there" if size is None else f"has {size:,} bytes"
            return (
                f"it does not see the source {one.folder} as it was planned: {one.name} of {one.size:,} bytes {found}"
            )
    return ""


def _try_to_write(folder: Folder) -> None:
    """A host that has OUT mounted to read only fails here, and leaves nothing."""
    trial = Path(folder.locate(f".host.{os.getpid()}.{os.urandom(4).hex()}{PART_SUFFIX}"))
    trial.touch(exist_ok=False)
    trial.unlink()


def _first(candidates: Iterable[Witness]) -> Iterator[Witness]:
    return (one for _, one in zip(range(_FILES), candidates, strict=False))


def _is_there(one: Witness) -> bool:
    try:
        return Folder(one.folder).size(one.name) == one.size
    except Exception:  # the shards that need it will say what is wrong with it
        return False
