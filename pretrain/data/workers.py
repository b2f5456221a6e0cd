"""Loader workers beside the processes that they load for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from stillreel.configs import DataError

PATIENCE_S = 600.0  # a batch that takes longer is not coming

_SENT_TO_ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # by terminals, torchrun and job schedulers


def load_batches(
    dataset: Dataset[Any],
    *,
    order: Sequence[int] | None = None,
    workers: int = 0,
    start_method: str | None = None,
    prefetch: int = 2,
    pin_memory: bool = False,
) -> Iterator[Any]:
    """What a dataset gives, each a whole batch, as it is; of a dataset with items those in `order` (None: 0, 1, ...).

    Each of `workers` processes reads `prefetch` batches ahead. DataError when one fails or is killed. Draws nothing from
    torch's generator.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        sampler=order,
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=heed_only_parent,
        prefetch_factor=prefetch if workers else None,
        multiprocessing_context=start_method if workers else None,
        timeout=PATIENCE_S if workers else 0,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # a loader draws a number from it, and must not from the run's
    )
    with _signals_wait():
        batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, ConnectionError, EOFError) as error:  # of a dead worker, whatever was being sent
            raise DataError(f"a loader worker failed or was killed: {type(error).__name__}: {error}") from None
        yield batch


def heed_only_parent(_worker: int = 0) -> None:
    """Let a loader worker outlive signals that are sent to the whole group of processes: a `worker_init_fn`.

    A worker that dies of such a signal makes its parent raise in the middle of a step, and the checkpoint is lost. So workers
    ignore what others send, and end by their parent's SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parent = os.getppid()

    def listen() -> None:
        # The parent's death is noticed by torch's own watch over it.
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Handle what arrives meanwhile afterwards: while Python forks it drops what a handler raises, and a lock of logging's
    with it; and a worker must not die before it heeds only its parent: SIGTERM it finds blocked, since torch sets a handler
    of its own before the worker's first line of ours."""
    if threading.current_thread() is not threading.main_thread():  # handlers run in the main one, which does not fork
        yield
        return
    arrived: list[int] = []
    found = {one: signal.getsignal(one) for one in _SENT_TO_ALL}
    handlers = {one: handler for one, handler in found.items() if handler is not None}  # None: not Python's, left alone
    for one in handlers:
        signal.signal(one, lambda number, _: arrived.append(number))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for one, handler in handlers.items():
            signal.signal(one, handler)
        for number in arrived:
            signal.raise_signal(number)


def _as_it_is(batch: Any) -> Any:
    return batch
