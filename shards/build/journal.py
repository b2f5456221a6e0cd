"""What happens while a data set is built, a line an event: OUT/events.jsonl, which the driver alone writes.

    {"event": "started", "time": 1764326400.0, "plans": {"plan-000.parquet": "6c47..."}, "shards": 1240, "done": 17, ...}
    {"event": "shard", "shard": "cc12m-000017", "host": "node3", "seconds": 41.2, "written": 9950, "rejected": {...}, ...}
    {"event": "attempt_failed", "shard": "cc12m-000018", "attempt": 1, "error": "...", "host": "node3"}
    {"event": "host_left_out", "host": "node4", "error": "..."}
    {"event": "ended", "how": "finished"}      or `stopped`, or `failed` with its error; a driver that was killed says nothing

It is no part of the data: no other file knows it, and `verify` passes over it. A disk is appended to; in a bucket, where nothing
can be, the object is put anew, at most every few seconds.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import IO, Any, Self

from stillreel.configs.system.storage import Folder
from stillreel.shards.format.receipt import Receipt

EVENTS = "events.jsonl"
_PUT_S = 15.0
_log = logging.getLogger(__name__)

Event = dict[str, Any]


class Journal:
    """Writes events. A context manager, whose end is one, too, if it has begun; what its storage refuses is told once, and keeps
    no build from going on."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._begun = False
        self._refused = False
        self._lines: list[str] = []  # in a bucket: all; on a disk: none
        self._file: IO[str] | None = None  # on a disk
        self._put = -_PUT_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if not self._begun:
            return
        if kind is None:
            self._write("ended", how="finished")
        elif kind is KeyboardInterrupt:
            self._write("ended", how="stopped")
        else:
            self._write("ended", how="failed", error=one_line(error))
        self._flush()
        if self._file is not None:
            with _Forgiven(self):
                self._file.close()

    def begin(self, **told: object) -> None:
        """The first event of a run; without it there is no last one."""
        self._begun = True
        if not self._folder.is_local:
            self._lines = [json.dumps(event) for event in read_events(self._folder)]
        self._write("started", **told)
        self._flush()

    def shard(self, receipt: Receipt, host: str) -> None:
        """A shard is finished."""
        self._write(
            "shard",
            shard=receipt.shard,
            host=host,
            seconds=receipt.seconds.get("total", 0),
            attempt=receipt.attempt,
            planned=receipt.planned,
            written=receipt.written,
            rejected=receipt.rejected,
            bytes=receipt.bytes,
        )

    def attempt_failed(self, shard: str, attempt: int, error: str, host: str) -> None:
        """A shard was not made; it is tried again, or has failed."""
        self._write("attempt_failed", shard=shard, attempt=attempt, error=error, host=host)

    def host_left_out(self, host: str, error: str) -> None:
        """No more shards go to a host."""
        self._write("host_left_out", host=host, error=error)

    def beat(self) -> None:
        """Time has passed: what waits to be put may be due."""
        if self._lines and time.monotonic() - self._put > _PUT_S:
            self._flush()

    def _write(self, event: str, **told: object) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **told})
        if not self._folder.is_local:
            self._lines.append(line)
            self.beat()
            return
        with _Forgiven(self):
            if self._file is None:
                self._file = open(self._folder.locate(EVENTS), "a", buffering=1, encoding="utf-8")  # noqa: SIM115
            self._file.write(f"{line}\n")

    def _flush(self) -> None:
        if self._lines:
            self._put = time.monotonic()
            with _Forgiven(self):
                self._folder.publish(EVENTS, "".join(f"{line}\n" for line in self._lines).encode())


class _Forgiven:
    """Within it, what goes wrong is told once."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> bool:
        if not isinstance(error, Exception):
            return False
        if not self._journal._refused:
            self._journal._refused = True
            _log.warning(f"{EVENTS} cannot be written: {one_line(error)}; the build goes on without it")
        return True


def read_events(folder: Folder) -> list[Event]:
    """The events of a folder, in order; [] where there are none. A line that is cut, or no event, is passed over: it is told to
    people, and nothing is decided by it."""
    try:
        data = folder.read(EVENTS)
    except FileNotFoundError:
        return []
    events = []
    for line in data.decode("utf-8", "replace").splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, Mapping) and isinstance(event.get("event"), str):
            events.append(dict(event))
    return events


def one_line(error: BaseException | None) -> str:
    """The kind of an error, and the last line of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1].rstrip('.') if text else ''}"
