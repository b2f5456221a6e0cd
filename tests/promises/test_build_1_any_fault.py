"""Promises 1 and 3 of a build, by a machine that draws its faults: whatever strikes wherever, nothing that was finished meanwhile
differs from an undisturbed build, and once all is mended a rerun ends with its bytes.

A fault strikes at a drawn event: the reading of a picture, its decoding, a write, or a step of publishing. What happens to
source files happens to files; what a disk refuses, and a kill, are raised where they would be, and then nothing is cleaned up.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from stillreel.animate.clips.clip import ClipMaker
from stillreel.animate.sources.parquet import ParquetSource
from stillreel.animate.sources.pictures import FileSource
from stillreel.animate.sources.tars import TarSource
from stillreel.configs import StillreelError
from stillreel.configs.system import storage
from stillreel.configs.system.storage import Draft
from stillreel.shards.format.writer import TarWriter
from tests.making import animate, check, data_digests, jpeg, write_tar

_SAMPLES = 11  # in four shards
_KINDS = ("tars", "pictures", "files", "parquet")
_STORES = ("recipe", "frames")
_OF_SOURCE = ("gone", "cut", "grown", "swapped", "slow", "forbidden")
_OF_OUT = {"full": errno.ENOSPC, "over quota": errno.EDQUOT, "read-only": errno.EROFS, "busy": errno.EIO}
_OF_DECODER = ("crash", "hang")

Drawn = tuple[str, int, bool, int]  # kind, where it strikes, whether it lasts, which file of the source
_DRAWN = st.tuples(
    st.sampled_from([*_OF_SOURCE, *_OF_OUT, *_OF_DECODER, "kill"]),
    st.integers(0, 999),
    st.booleans(),
    st.integers(0, 99),
)


class Killed(BaseException):
    """kill -9, as far as one process can do that to itself."""


def strikes(kind: str, where: str) -> bool:
    """Whether a kind of fault is met at such events."""
    return kind == "kill" or kind in {"source": _OF_SOURCE, "out": _OF_OUT, "decoder": _OF_DECODER}[where]


class Fault:
    """Strikes at number `at` of the events where its kind can; a lasting one keeps what it refuses refused."""

    def __init__(self, kind: str, at: int, lasting: bool, victim: Path | None) -> None:
        self.kind, self.at, self.lasting, self.victim = kind, at, lasting, victim
        self.events: Counter[str] = Counter()
        self.has_struck = False

    def meet(self, where: str) -> None:
        """Called at each event. Raises what strikes there."""
        self.events[where] += 1
        met = sum(count for at, count in self.events.items() if strikes(self.kind, at))
        if not strikes(self.kind, where) or met <= self.at or (self.has_struck and not self.lasting):
            return
        first, self.has_struck = not self.has_struck, True
        if self.kind == "kill":
            raise Killed
        if self.kind in _OF_OUT:
            raise OSError(_OF_OUT[self.kind], os.strerror(_OF_OUT[self.kind]))
        if self.kind in ("slow", "hang"):
            raise TimeoutError("no answer")
        if self.kind == "forbidden":
            raise PermissionError(errno.EACCES, "forbidden")
        if self.kind == "crash":
            raise RuntimeError("a decoder's worker has died")
        if first:
            assert self.victim is not None
            spoil(self.victim, self.kind)


def spoil(path: Path, how: str) -> None:
    """What may happen to a file of a source."""
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "cut":
        os.truncate(path, len(data) * 2 // 3)
    elif how == "grown":
        path.write_bytes(data[:40] + data)
    else:  # another file in its place; who has the old one open still reads that
        other = path.with_name(".other")
        other.write_bytes(data[::-1] + b"other")
        os.replace(other, path)


def disturbed(patch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Have the build meet the fault wherever it reads, decodes, writes and publishes."""

    def before(holder: Any, name: str, where: str) -> None:
        function = getattr(holder, name)

        def meets(*arguments: Any) -> Any:
            fault.meet(where)
            return function(*arguments)

        patch.setattr(holder, name, meets)

    def while_reading(holder: Any) -> None:
        pictures: Callable[..., Iterator[bytes | None]] = holder.pictures

        def meets(self: Any, samples: Sequence[Any]) -> Iterator[bytes | None]:
            read = pictures(self, samples)
            for _ in samples:
                fault.meet("source")
                yield next(read)

        patch.setattr(holder, "pictures", meets)

    for kind in (TarSource, FileSource, ParquetSource):
        while_reading(kind)
    before(ClipMaker, "make", "decoder")
    before(Draft, "__init__", "out")
    before(storage, "fsync", "out")
    add, leave = TarWriter.add, Draft.__exit__

    def add_in_part(self: TarWriter, members: Sequence[tuple[str, bytes]]) -> Any:
        try:
            fault.meet("out")
        except BaseException:
            self._file.write(members[0][1][:100])
            raise
        return add(self, members)

    def leave_or_be_dead(self: Draft, *what: object) -> None:
        if not (fault.has_struck and fault.kind == "kill"):
            leave(self, *what)

    patch.setattr(TarWriter, "add", add_in_part)
    patch.setattr(Draft, "__exit__", leave_or_be_dead)


def write_source(kind: str, folder: Path) -> Path:
    """Eleven tiny samples, of which one is no picture and, in a folder of pictures, one is not there."""
    payloads = [jpeg(number, 48, 40) for number in range(_SAMPLES)]
    payloads[4] = b"not a picture"
    folder.mkdir()
    if kind == "tars":
        for tar, numbers in enumerate((range(5), range(5, _SAMPLES))):
            members = [
                (f"{n:02d}.{end}", data) for n in numbers for end, data in (("jpg", payloads[n]), ("txt", b"a dog"))
            ]
            write_tar(folder / f"{tar}.tar", members)
    elif kind == "parquet":
        for file, numbers in enumerate((range(5), range(5, _SAMPLES))):
            columns = {
                "image": pa.array([payloads[n] for n in numbers], pa.binary()),
                "caption": ["a dog"] * len(numbers),
            }
            pq.write_table(pa.table(columns), folder / f"{file}.parquet", row_group_size=2)
    elif kind == "files":
        for number, data in enumerate(payloads):
            (folder / f"{number:02d}.jpg").write_bytes(data)
            (folder / f"{number:02d}.txt").write_text("a dog")
    else:
        for number in range(_SAMPLES - 1):
            (folder / f"{number:02d}.jpg").write_bytes(payloads[number])
        rows = "".join(f"{number:02d}.jpg\ta dog\n" for number in range(_SAMPLES))
        (folder / "captions.tsv").write_text("file\tcaption\n" + rows)
    return folder


@cache
def home() -> Path:
    # In memory, where there is room: a thousand builds wait for their disk otherwise, forty times each.
    return Path(tempfile.mkdtemp(prefix="stillreel-faults-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


@cache
def undisturbed(kind: str, store: str) -> tuple[dict[str, str], Counter[str]]:
    """Digests of the build that nothing befalls, and how many events of each sort it has."""
    source = home() / kind / "stills"
    if not source.exists():
        source.parent.mkdir()
        write_source(kind, source)
    fault = Fault("none", 0, lasting=False, victim=None)  # counts
    with pytest.MonkeyPatch.context() as patch:
        disturbed(patch, fault)
        build(source, home() / kind / store, store)
    return data_digests(home() / kind / store), fault.events


def build(source: Path, out: Path, store: str) -> None:
    assert animate(source, out, store=store, shard_size=3, frames=2, size=16, attempts=2, max_rejects=1) == 0


class AnyFault(RuleBasedStateMachine):
    """One data set, built under one fault after another, and then under none."""

    @initialize(kind=st.sampled_from(_KINDS), store=st.sampled_from(_STORES), drawn=_DRAWN)
    def begin(self, kind: str, store: str, drawn: Drawn) -> None:
        self.store = store
        self.expected, self.events = undisturbed(kind, store)
        self.source = home() / kind / "stills"  # a plan names the place, so each build has it there
        self.kept, self.out = home() / "kept", home() / "out"
        shutil.copytree(self.source, self.kept)
        self.is_whole = True
        assert self.build_under(drawn).has_struck, "each data set meets one fault at least"

    @rule(drawn=_DRAWN)
    def build_under_another(self, drawn: Drawn) -> None:
        self.build_under(drawn)

    def build_under(self, drawn: Drawn) -> Fault:
        kind, at, lasting, victim = drawn
        files = sorted(path for path in self.source.iterdir() if path.suffix != ".tsv")
        met = sum(count for where, count in self.events.items() if strikes(kind, where))
        fault = Fault(kind, at % met, lasting, files[victim % len(files)] if files else None)
        if not files and kind in _OF_SOURCE:
            return fault
        with pytest.MonkeyPatch.context() as patch:
            disturbed(patch, fault)
            try:
                build(self.source, self.out, self.store)
            # An OSError of OUT that strikes before the shards or after them is exit 1, too.
            except (StillreelError, OSError, Killed):
                self.look_at_what_is_finished()
            else:
                assert data_digests(self.out) == self.expected, "a build that says it is done is whole"
        self.is_whole = self.is_whole and not (fault.has_struck and kind in _OF_SOURCE)
        return fault

    @precondition(lambda self: not self.is_whole)
    @rule()
    def mend(self) -> None:
        self.is_whole = True
        shutil.rmtree(self.source)
        shutil.copytree(self.kept, self.source)

    def look_at_what_is_finished(self) -> None:
        """Every shard with a receipt has the bytes of an undisturbed build."""
        done = {path.stem for path in self.out.glob("shards/*.json")}
        found = {name: digest for name, digest in data_digests(self.out).items() if Path(name).stem in done}
        assert found.items() <= self.expected.items()

    def teardown(self) -> None:
        try:
            self.mend()
            build(self.source, self.out, self.store)
            assert data_digests(self.out) == self.expected
            assert not check(self.out).problems
            assert not list(self.out.glob("shards/.*")), "what was killed has left nothing"
        finally:
            shutil.rmtree(self.kept)
            shutil.rmtree(self.out, ignore_errors=True)


def run(builds: int) -> None:
    how = settings(max_examples=builds, stateful_step_count=2, deadline=None, suppress_health_check=list(HealthCheck))
    try:
        run_state_machine_as_test(AnyFault, settings=how)
    finally:
        shutil.rmtree(home())
        for made in (home, undisturbed):
            made.cache_clear()


def test_any_fault_and_then_a_rerun_ends_as_if_nothing_had_been() -> None:
    run(20)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_drawn_faults() -> None:
    run(1000)
