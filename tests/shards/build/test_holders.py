"""What is dear to open is held by processes on Ray: whoever ends, each question is answered; whoever cannot hold it is named."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from stillreel.configs import DataError
from stillreel.shards.build import holders
from stillreel.shards.build.holders import Asked, Holders
from stillreel.shards.build.libraries import library_versions
from stillreel.shards.build.ray_start import start_ray
from tests.making import ROOT
from tests.shards.build.nodes import cluster, node
from tests.shards.build.numbers import PATIENCE_S

pytestmark = pytest.mark.long
_NEED = {"num_cpus": 0, "resources": {"holder": 1}}
_ODD = "TEST_OF_HOLDERS_IS_ODD"


def doubling(trap: Path | None = None) -> Callable[[int], tuple[int, int]]:
    """Opened in a holder: twice a number, and in which process. In the trap the first process ends that is asked for three."""
    return partial(_double, trap)


def _double(trap: Path | None, number: int) -> tuple[int, int]:
    if number < 0:
        raise ValueError("of a question")
    if number == 3 and trap is not None and not trap.exists():
        trap.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 2, os.getpid()


def doubling_but_on_the_odd_host() -> Callable[[int], tuple[int, int]]:
    if os.environ.get(_ODD):
        raise DataError("it has lost the model")
    return doubling()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two, with room for two holders and for one; the second one is odd. This process is a driver there."""
    folder = tmp_path_factory.mktemp("nodes")
    with cluster(folder, '--resources={"holder": 2}') as address:
        more = (f"--address={address}", '--resources={"holder": 1, "odd": 1}')
        with node(folder / "odd", *more, PYTHONPATH=str(ROOT), **{_ODD: "1"}):
            ray = start_ray(address, 0)
            try:
                yield
            finally:
                ray.shutdown()


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holders, "_LOOK_S", 0.1)


def test_each_question_is_answered_though_a_process_ends(nodes: None, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    held = Holders("twice", partial(doubling, trap), _NEED, library_versions(["numpy"]))
    held.look()
    asked = [Asked(held.key, turn, number) for turn, number in enumerate(range(12))]
    answers = [one.answer() for one in asked]
    assert [twice for twice, _ in answers] == [number * 2 for number in range(12)]
    assert trap.exists() and len({process for _, process in answers}) > 1
    with pytest.raises(ValueError, match="of a question"):
        Asked(held.key, 0, -1).answer()
    held.look()


def test_a_host_that_cannot_hold_it_is_named_and_others_answer(nodes: None, caplog: pytest.LogCaptureFixture) -> None:
    held = Holders("twice", doubling_but_on_the_odd_host, _NEED, {})
    held.look()
    assert {Asked(held.key, turn, turn).answer()[0] for turn in range(6)} == {0, 2, 4, 6, 8, 10}
    look_until(lambda: "does not hold twice" in caplog.text, held)
    assert {Asked(held.key, turn, 1).answer()[0] for turn in range(3)} == {2}
    held.look()
    assert caplog.text.count("does not hold twice: DataError: it has lost the model. Others do") == 1


def test_where_no_host_is_left_each_is_named(nodes: None) -> None:
    held = Holders("twice", doubling, _NEED | {"resources": {"holder": 1, "odd": 1}}, {"numpy": "0.0.1"})
    with pytest.raises(
        DataError,
        match=r"no host is left that holds twice\. \S+ \([\d.]+\): it has other lib.* numpy \S+, planned 0\.0\.1",
    ):
        look_until(lambda: False, held)


def test_a_host_that_ends_takes_its_holders_along_and_one_that_joins_has_its_own(
    nodes: None, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(holders, "_PATIENCE_S", 0.0)
    held = Holders("twice", doubling, {"num_cpus": 0, "resources": {"late": 1}}, {})
    look_until(lambda: "no host of the cluster holds twice yet, which needs resources {'late': 1}" in caplog.text, held)
    address = ray.get_runtime_context().gcs_address
    with node(tmp_path / "late", f"--address={address}", '--resources={"late": 1}', PYTHONPATH=str(ROOT)):
        look_until(lambda: bool(holders._named(held.key)), held)
        assert Asked(held.key, 0, 21).answer()[0] == 42
    look_until(lambda: not holders._named(held.key), held)
    assert "does not hold" not in caplog.text, "a host that has ended is not ill"


def look_until(what: Callable[[], bool], held: Holders) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        held.look()
        assert time.monotonic() < end
        time.sleep(0.1)
