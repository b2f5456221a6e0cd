"""What ranks tell each other before each step: whether all of them have their batch, and how much of it was damaged.

A rank whose data fail while the others wait for its gradients would hang them. So no rank uses a batch before all ranks
have said that they have theirs: three integers, summed over CPU sockets, about 0.1 ms on one machine. If one says no, all raise
its error, in the same step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from stillreel.configs import DataError, RequestError, StillreelError

Value = TypeVar("Value")


class Failure(NamedTuple):
    """An error on its way to another process, in a user's words: an exception would arrive there as a traceback."""

    kind: type[StillreelError]
    message: str

    def error(self) -> StillreelError:
        return self.kind(self.message)


def take_next(batches: Iterator[Any]) -> tuple[Any, StillreelError | None]:
    """The next batch, or why there is none; (None, None) at the end."""
    try:
        batch = next(batches, None)
    except StillreelError as error:
        return None, error
    except Exception as error:  # whatever it is, the other ranks must hear of it
        return None, DataError(f"a loader worker failed or was killed: {type(error).__name__}: {error}")
    return (None, batch.error()) if isinstance(batch, Failure) else (batch, None)


class Together:
    """The ranks that share batches: all of torch.distributed, and made by all of them at the same point; or one alone."""

    def __init__(self, ranks: int, patience_s: float) -> None:
        """`patience_s` is how long a rank waits for the others' batches. Without torch.distributed nobody is told anything."""
        self._group: Any = None
        if ranks > 1 and dist.is_available() and dist.is_initialized():
            if dist.get_world_size() != ranks:
                raise RequestError(
                    f"batches are shared by {ranks} ranks; torch.distributed has {dist.get_world_size()}"
                )
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=patience_s))

    def agree(self, counts: Sequence[int], error: StillreelError | None) -> list[int]:
        """The sums of all ranks' counts. Raises `error`, or that of the first rank that has one."""
        if self._group is None:
            if error is not None:
                raise error
            return list(counts)
        numbers = torch.tensor([error is not None, *counts], dtype=torch.int64)
        try:
            dist.all_reduce(numbers, group=self._group)
            sums: list[int] = numbers.tolist()
            if not sums[0]:
                return sums[1:]
            told: list[Failure | None] = [None] * dist.get_world_size()
            own = None if error is None else Failure(type(error), str(error))
            dist.all_gather_object(told, own, group=self._group)
        except RuntimeError as broken:
            if error is not None:
                raise error from None
            raise DataError(f"another rank is gone, or its data came too late: {broken}") from None
        if error is not None:
            raise error
        rank, failure = next((rank, one) for rank, one in enumerate(told) if one is not None)
        raise failure._replace(message=f"rank {rank}: {failure.message}").error()

    def collect(self, value: Value) -> list[Value]:
        """The values of all ranks, by rank, on all of them."""
        if self._group is None:
            return [value]
        told: list[Any] = [None] * dist.get_world_size()
        try:
            dist.all_gather_object(told, value, group=self._group)
        except RuntimeError as broken:
            raise DataError(f"another rank is gone: {broken}") from None
        return told

    def hear(self, value: Value) -> Value:
        """Rank 0's value, on all ranks."""
        if self._group is None:
            return value
        told = [value]
        try:
            dist.broadcast_object_list(told, src=0, group=self._group)
        except RuntimeError as broken:
            raise DataError(f"another rank is gone: {broken}") from None
        return told[0]
