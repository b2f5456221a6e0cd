"""Signals ask for a stop; the step that they fall into is finished."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from stillreel.pretrain.data.together import Together
from stillreel.pretrain.run import PreemptionHandler
from tests.streaming import write_set
from tests.warm import Warm

ALONE = Together(1, 10)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)], ids=lambda one: str(one)
)
def test_a_signal_is_noted_and_nothing_is_raised(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with PreemptionHandler() as wish:
        assert wish.agreed(ALONE) == 0
        os.kill(os.getpid(), number)
        assert wish.agreed(ALONE) == code
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_stops_at_once() -> None:
    with PreemptionHandler() as wish:
        os.kill(os.getpid(), signal.SIGINT)
        assert wish.wanted == 130
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_first_wish_counts_and_ctrl_c_after_it_does_no_harm() -> None:
    with PreemptionHandler() as wish:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert wish.agreed(ALONE) == 75


def test_a_forked_worker_still_ends_by_sigterm_and_ignores_ctrl_c() -> None:
    with PreemptionHandler() as wish:
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(3)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM
        assert wish.wanted == 0


TRAINER = """
import sys, time
from stillreel.configs.stream import DataSettings
from stillreel.pretrain.data import ClipLoader, Share
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.run import PreemptionHandler
from stillreel.shards.stream.stream import open_blend

alone = Together(1, 10)
loader = ClipLoader(open_blend(sys.argv[1]), DataSettings(frames=2, size=32), Share(4), workers=2)
with PreemptionHandler() as wish:
    for step, batch in enumerate(loader):
        print(step, flush=True)
        time.sleep(0.05)
        if wish.wanted and step % 4 == 3:  # a rank that is asked late still gets its batches
            print("code", wish.agreed(alone), flush=True)
            break
del loader
print("ended", flush=True)
"""


SLOW = [pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGINT, signal.SIGUSR1)]


@pytest.mark.parametrize("number", [signal.SIGTERM, *SLOW], ids=lambda one: str(one))
def test_a_signal_to_the_whole_group_stops_no_loader_worker(tmp_path: Path, number: signal.Signals) -> None:
    """As torchrun, a terminal and job schedulers send it."""
    data = write_set(tmp_path / "set", [16])
    trainer = Warm("-c", [TRAINER, str(data)])
    trainer.wait_for("2")
    os.killpg(trainer.pid, number)
    told, errors = trainer.communicate(timeout=240)
    code = 130 if number == signal.SIGINT else 75
    assert told.splitlines()[-2:] == [f"code {code}", "ended"], errors
    assert trainer.returncode == 0 and not errors
    end = time.monotonic() + 60
    while time.monotonic() < end:  # and its workers end with it
        try:
            os.killpg(trainer.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("workers outlive their trainer")
