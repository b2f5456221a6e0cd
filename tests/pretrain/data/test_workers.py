"""Loader workers and signals, in real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from multiprocessing import active_children

import pytest
from torch.utils.data import Dataset

from stillreel.configs import DataError
from stillreel.pretrain.data.workers import load_batches
from tests.warm import Warm


class Numbers(Dataset[int]):
    """0 ... 19, slowly enough that a worker is at work while something happens to it."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, number: int) -> int:
        time.sleep(0.05)
        return number


def begun(workers: int) -> tuple[Iterator[int], list[int]]:
    """Batches of which the first one is read, and the workers that read on."""
    before = set(active_children())
    batches = load_batches(Numbers(), workers=workers)
    assert next(batches) == 0
    pids = [child.pid for child in active_children() if child not in before and child.pid]
    assert len(pids) == workers
    return batches, pids


def test_an_order_is_kept_by_any_number_of_workers() -> None:
    for workers in (0, 1, 2):
        assert list(load_batches(Numbers(), order=range(1, 20, 4), workers=workers)) == [1, 5, 9, 13, 17]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_workers_outlive_what_is_sent_to_the_whole_group(number: signal.Signals) -> None:
    """Sent by another process than their parent, as schedulers and terminals do."""
    batches, pids = begun(workers=2)
    subprocess.run(["kill", f"-{number.name.removeprefix('SIG')}", *map(str, pids)], check=True)
    assert list(batches) == list(range(1, 20))


STARTING = """
import os, random, signal
from stillreel.pretrain.data.workers import load_batches
from tests.pretrain.data.test_workers import Numbers

parent, seed = os.getpid(), random.seed

def struck(*words):  # by torch, in a worker, after it has set handlers and before it calls anything of ours
    if os.getpid() != parent:
        os.system(f"kill -TERM {os.getpid()}")
    seed(*words)

random.seed = struck
print(list(load_batches(Numbers(), workers=2)))
"""


def test_workers_outlive_what_is_sent_while_they_start() -> None:
    done = Warm("-c", [STARTING]).finish(timeout=240)
    assert done.stdout == f"{list(range(20))}\n", done.stderr


def test_a_worker_that_is_killed_is_an_error() -> None:
    batches, (pid,) = begun(workers=1)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(DataError, match="failed or was killed"):
        list(batches)


FORKING = """
import logging, os, signal, sys
from stillreel.pretrain.data.workers import load_batches
from tests.pretrain.data.test_workers import Numbers

hook, number = sys.argv[1], int(sys.argv[2])
signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises, as commands that can be stopped do
os.register_at_fork(**{hook: lambda: os.kill(os.getpid(), number)})
try:
    print(list(load_batches(Numbers(), workers=2)))
except KeyboardInterrupt:
    logging.getLogger().warning("stopped")  # waits for ever where the fork has left logging's lock
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hook", ["before", "after_in_parent", "after_in_child"])
def test_a_signal_during_the_fork_is_heeded_by_the_parent_alone(hook: str, number: signal.Signals) -> None:
    done = Warm("-c", [FORKING, hook, str(int(number))]).finish(timeout=240)
    assert done.returncode == 0, done.stderr
    assert (str(list(range(20))) in done.stdout) == (hook == "after_in_child"), done.stdout
    assert ("stopped" in done.stderr) == (hook != "after_in_child"), done.stderr
    assert "ignored" not in done.stderr
