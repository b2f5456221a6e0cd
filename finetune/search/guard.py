"""What stands between strangers and the search: bounded bodies, bounded queues, known hosts; and the counts of all that."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from stillreel.configs import StillreelError
from stillreel.configs.system.hardware import peak_memory

T = TypeVar("T")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::\d{1,5})?", re.ASCII)
_PATIENCE_S = 60.0  # that a body may take to arrive
_SILENCE_S = 10.0  # between two pieces of it; and what a request's head may take
_DRAINED = 32 << 20  # bytes of a refused body that are read and dropped, so that its sender hears why
_BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # of the histogram, seconds


class Refusal(StillreelError):
    """A request that is not answered: its status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


async def read_chunks(request: Request, most: int, what: str) -> AsyncIterator[bytes]:
    """The body as it comes. Refusal 413 as soon as it is known to be longer than `most`, 408 when it does not come."""
    declared = request.headers.get("content-length", "0")
    size, refused = 0, not declared.isdecimal() or int(declared) > most
    if refused and int(declared if declared.isdecimal() else 0) > _DRAINED:
        raise _too_large(what, most)
    now = asyncio.get_running_loop().time
    end = now() + _PATIENCE_S
    try:
        async with asyncio.timeout(_SILENCE_S) as limit:
            async for chunk in request.stream():
                limit.reschedule(min(now() + _SILENCE_S, end))
                size += len(chunk)
                refused = refused or size > most
                if refused and size > _DRAINED:
                    break
                if not refused:
                    yield chunk
    except TimeoutError:
        raise Refusal(
            408, f"{what} did not arrive: {_PATIENCE_S:.0f} s are allowed, {_SILENCE_S:.0f} of silence"
        ) from None
    if refused:
        raise _too_large(what, most)


def _too_large(what: str, most: int) -> Refusal:
    return Refusal(413, f"{what} is too large: at most {most:,} bytes")


class Desk:
    """Work for threads: `hands` at a time, `waiting` more in line, and a Refusal 503 for the next one."""

    def __init__(self, hands: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(hands)
        self._places = hands + waiting
        self.taken = 0

    async def do(self, work: Callable[[], T]) -> T:
        """What the work gives, or raises."""
        if self.taken >= self._places:
            raise Refusal(503, "busy: too many searches at once; try again in a moment")
        self.taken += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(self._leave)  # not before it is done, even if nobody waits any more
        return await asyncio.shield(future)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _leave(self, future: asyncio.Future[Any]) -> None:
        self.taken -= 1
        if not future.cancelled():
            future.exception()  # seen, so that nobody complains of one that nobody waited for


class Counts:
    """Requests by route and status, and how long they took, as Prometheus reads them."""

    def __init__(self) -> None:
        self._answers: Counter[tuple[str, int]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._begun = time.time()

    def add(self, route: str, status: int, seconds: float) -> None:
        self._answers[route, status] += 1
        self._seconds[route] += seconds  # type: ignore[assignment]
        for bound in _BOUNDS:
            self._buckets[route, bound] += seconds <= bound

    def text(self, gauges: dict[str, float]) -> str:
        """All counts and these gauges."""
        lines = ["# TYPE stillreel_requests_total counter"]
        for (route, status), count in sorted(self._answers.items()):
            lines.append(f'stillreel_requests_total{{route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE stillreel_request_seconds histogram")
        for route, seconds in sorted(self._seconds.items()):
            total = sum(count for (own, _), count in self._answers.items() if own == route)
            buckets = [*((f"{bound:g}", self._buckets[route, bound]) for bound in _BOUNDS), ("+Inf", total)]
            lines += [f'stillreel_request_seconds_bucket{{route="{route}",le="{le}"}} {count}' for le, count in buckets]
            lines.append(f'stillreel_request_seconds_sum{{route="{route}"}} {seconds:.6f}')
            lines.append(f'stillreel_request_seconds_count{{route="{route}"}} {total}')
        for name, value in {
            **gauges,
            "peak_memory_bytes": peak_memory(),
            "uptime_seconds": time.time() - self._begun,
        }.items():
            lines += [f"# TYPE stillreel_{name} gauge", f"stillreel_{name} {value:.10g}"]
        return "\n".join(lines) + "\n"


def host_is_known(request: Request, hosts: frozenset[str]) -> bool:
    """Whether a request was meant for this server: a page elsewhere may bend its own name to this address.

    `hosts` are the names that it may go by; with none of them every name does, but it must be one, with a port at most.
    """
    found = _HOST.fullmatch(request.headers.get("host", ""))
    return found is not None and (not hosts or found[1].strip("[]").lower() in hosts)


class PromptProtocol(H11Protocol):
    """HTTP to clients that get on with it: one whose request's head is not there in time, or whose rest nobody will read, is
    hung up on. Uvicorn itself waits for ever."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_waiting()

    def _wait(self) -> None:
        """Begin to, or go on, or stop where a request is being answered: its handler has a patience of its own."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(_SILENCE_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
