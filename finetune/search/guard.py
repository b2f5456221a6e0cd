"""What stands between strangers and the search: bounded bodies, bounded queues, known hosts; and the counts of all that."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from stillreel.configs import StillreelError
from stillreel.configs.system.hardware import peak_memory

T = TypeVar("T")
_PATIENCE_S = 60.0  # that a body may take to arrive
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
    try:
        async with asyncio.timeout(_PATIENCE_S):
            async for chunk in request.stream():
                size += len(chunk)
                refused = refused or size > most
                if refused and size > _DRAINED:
                    break
                if not refused:
                    yield chunk
    except TimeoutError:
        raise Refusal(408, f"{what} did not arrive within {_PATIENCE_S:.0f} s") from None
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

    `hosts` are the names that it may go by; with none of them every name does.
    """
    name = request.headers.get("host", "").rsplit(":", 1)
    return not hosts or name[0].strip("[]").lower() in hosts or ":".join(name).strip("[]").lower() in hosts
