"""Work that is no build has a build's attempts, and `verify` finds on Ray what it finds here."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from stillreel.configs import RequestError
from stillreel.configs.build import VerifySettings
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.executors import InPool, ShardTask
from stillreel.shards.build.hosts import make_if_fit
from stillreel.shards.build.work import Doubtful, work_off
from stillreel.shards.commands.verify import verify
from tests.shards.build.numbers import run


def look(task: ShardTask) -> int:
    """Squares its number; the job says what goes wrong with it, and until which attempt."""
    how, until = task.job.get(task.shard, ("", 0))
    if how and task.attempt <= until:
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        raise {"fails": OSError, "doubts": Doubtful, "refuses": RequestError}[how](f"no luck with {task.shard}")
    return task.shard**2


def tasks(count: int, **wrong: tuple[str, int]) -> list[ShardTask]:
    job = {int(name[1:]): how for name, how in wrong.items()}
    return [ShardTask("", 0, "", number, 1, 0, job) for number in range(count)]


@pytest.mark.parametrize("workers", [1, 3])
def test_each_task_ends_once_whatever_its_workers_die_of(caplog: pytest.LogCaptureFixture, workers: int) -> None:
    wrong = {"_1": ("dies", 1), "_2": ("fails", 2), "_4": ("fails", 9), "_5": ("doubts", 9)}
    with InPool(look, workers) as executor:
        ends = {end.task.shard: end for end in work_off(executor, tasks(8, **wrong), lambda one: f"n{one.shard}")}
    assert {number: end.receipt for number, end in ends.items() if end.error is None} == {
        0: 0,
        1: 1,
        2: 4,
        3: 9,
        5: "no luck with 5",
        6: 36,
        7: 49,
    }
    assert isinstance(ends[4].error, OSError) and ends[4].task.attempt == 3
    assert ends[5].task.attempt == 1, "what is doubtful is not asked for again"
    assert "n1: attempt 1 of 3 failed: BrokenProcessPool: its worker was ended by SIGKILL" in caplog.text
    assert caplog.text.count("n4: attempt") == 3 and "n5" not in caplog.text


def test_a_request_that_cannot_be_met_ends_the_work() -> None:
    with InPool(look, 2) as executor, pytest.raises(RequestError, match="no luck with 1"):
        list(work_off(executor, tasks(4, _1=("refuses", 9)), str))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["shards", "plan"])
def test_verify_finds_on_ray_what_it_finds_on_threads(tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    run(out)
    shards = out / "shards"
    if damage == "shards":
        flip(shards / "numbers-000001.tar", 700)
        (shards / "numbers-000002.json").unlink()
    if damage == "plan":  # it is no longer the manifest's, so nothing about its layout is believed
        (out / "manifest.json").write_bytes(b"{}")
    before = set(out.rglob("*"))
    here, there = (
        verify(Folder(str(out)), VerifySettings(progress="off", ray=ray, workers=2)) for ray in ("off", "local")
    )
    assert there == here
    assert here.problems and here.planned == 12
    assert set(out.rglob("*")) == before, "it writes nothing into OUT"


def test_a_host_that_does_not_see_out_is_ill_and_not_believed(tmp_path: Path) -> None:
    """Where every shard seems to be missing, nothing is said of shards."""
    from stillreel.shards.build.hosts import Proof, Witness
    from stillreel.shards.build.survey import Task
    from stillreel.shards.commands.verify import Job, _task_of, check_shard
    from stillreel.shards.format.plan import read_plans

    out = tmp_path / "out"
    run(out)
    (plan,) = read_plans(Folder(str(out)))
    task = _task_of(Job(Task(plan, 0), None, None))
    proof = Proof(witnesses=(Witness(str(out), plan.file, (out / plan.file).stat().st_size),))
    kind, checked = make_if_fit(proof, check_shard, task)
    assert kind == "made" and checked.written and not checked.problems
    (out / "shards" / "numbers-000000.json").unlink()
    kind, found = make_if_fit(proof, check_shard, task)
    assert kind == "failed" and isinstance(found, Doubtful) and found.found.problems
    out.rename(tmp_path / "unmounted")
    kind, why = make_if_fit(proof, check_shard, task)
    assert kind == "ill" and "it does not see the source" in why


def test_a_shard_that_was_finished_unheard_is_known_by_its_bytes(tmp_path: Path) -> None:
    from stillreel.shards.build.survey import Task, receipt_left
    from stillreel.shards.format.plan import read_plans

    out = tmp_path / "out"
    run(out)
    folder = Folder(str(out))
    (plan,) = read_plans(folder)
    receipt = receipt_left(folder, Task(plan, 1))
    assert receipt is not None and receipt.shard == "numbers-000001"
    flip(out / "shards" / "numbers-000001.tar", 700)
    assert receipt_left(folder, Task(plan, 1)) is None, "its maker may have ended before it began to mend it"
    (out / "shards" / "numbers-000002.json").unlink()
    assert receipt_left(folder, Task(plan, 2)) is None
