"""The build engine by itself: whoever hands it plans and a function that makes a shard gets its promises."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from stillreel.configs import DataError, RequestError
from stillreel.configs.system.storage import Folder
from stillreel.shards.build import engine
from stillreel.shards.build.engine import describe_totals
from stillreel.shards.build.executors import InPool, ShardTask
from stillreel.shards.build.survey import survey
from stillreel.shards.format.manifest import read_manifest
from stillreel.shards.format.plan import read_plans
from stillreel.shards.format.receipt import Receipt, read_receipt
from tests.making import ROOT, check, data_digests, held_by_another
from tests.shards.build.numbers import PATIENCE_S, NumberJob, make_shard, open_or_write_plans, run


def finished(out: Path) -> list[str]:
    return sorted(path.stem for path in out.glob("shards/*.json"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run(out)
    return data_digests(out)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_data_are_the_same_for_any_workers(undisturbed: dict[str, str], tmp_path: Path, workers: int) -> None:
    manifest = run(tmp_path / "out", workers=workers)
    assert data_digests(tmp_path / "out") == undisturbed
    assert not check(tmp_path / "out").problems
    assert read_manifest(Folder(str(tmp_path / "out"))) == manifest
    totals = manifest.totals
    assert (totals.planned, totals.written, totals.rejected, totals.shards) == (12, 12, {}, 3)
    assert len(undisturbed) == 10


@pytest.mark.parametrize(("workers", "way"), [(1, "raises"), (2, "raises"), (1, "dies"), (2, "dies")])
def test_a_shard_that_fails_is_tried_again(
    undisturbed: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int, way: str
) -> None:
    out = tmp_path / "out"
    run(out, NumberJob(fails=1, times=2, way=way), workers=workers)
    assert data_digests(out) == undisturbed
    attempts = [read_receipt(Folder(str(out)), name).attempt for name in finished(out)]
    assert attempts == [1, 3, 1], "a worker that dies takes no other's shard along"
    why = "OSError: this time" if way == "raises" else "BrokenProcessPool: its worker was ended by SIGKILL"
    assert [f"numbers-000001: attempt {one} of 3 failed: {why}" in caplog.text for one in (1, 2, 3)] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(("workers", "way"), [(1, "raises"), (2, "dies")])
def test_a_shard_that_always_fails_is_failed_and_named_and_the_next_run_makes_it(
    undisturbed: dict[str, str], tmp_path: Path, workers: int, way: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="1 of 3 shards failed after 2 attempts: numbers-000001"):
        run(out, NumberJob(fails=1, times=9, way=way), workers=workers, attempts=2)
    assert finished(out) == ["numbers-000000", "numbers-000002"]
    assert not (out / "manifest.json").exists()
    assert not list(out.glob("shards/.*.part"))
    kept = {path: path.stat().st_mtime_ns for path in out.glob("shards/*")}
    run(out, workers=workers)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was finished is left as it is"
    assert data_digests(out) == undisturbed


@pytest.mark.parametrize("ray", ["off", "local"])
def test_a_shard_that_is_late_is_named_once_and_not_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, ray: str
) -> None:
    monkeypatch.setattr("stillreel.shards.build.late._AT_LEAST_S", 2.0)
    monkeypatch.setattr("stillreel.shards.build.late._TIMES", 1)
    run(tmp_path / "out", NumberJob(fails=2, times=1, way="waits"), ray=ray)
    told = [line for line in caplog.text.splitlines() if "numbers-000002 has run for" in line]
    assert len(told) == 1, caplog.text
    host = re.escape(socket.gethostname())
    assert re.search(
        rf"numbers-000002 has run for \d+ s, \d+ times the median of others, in process \d+ of {host}$", told[0]
    )
    assert not check(tmp_path / "out").problems


def test_what_a_resume_finds_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    out = tmp_path / "out"
    run(out)
    (out / "shards" / "numbers-000000.json").unlink()
    (out / "shards" / "numbers-000001.tar").write_bytes(b"cut")
    run(out)
    assert "3 shards: 1 valid, 1 damaged, 0 stale, 1 missing" in caplog.text
    assert "numbers-000001 is damaged: shards/numbers-000001.tar has 3 bytes, its receipt says" in caplog.text


@pytest.mark.parametrize("workers", [1, 2])
def test_too_many_rejects_stop_it_with_the_reasons(tmp_path: Path, workers: int) -> None:
    out, job = tmp_path / "out", NumberJob(rejected=frozenset(range(6)))
    with pytest.raises(DataError, match=r"rejects \(corrupt \d\) are more than max_rejects=0\.25 allows of 12 samples"):
        run(out, job, workers=workers, max_rejects=0.25)
    assert not (out / "manifest.json").exists()
    assert "numbers-000000" not in finished(out), "one shard alone was over the budget of all"
    manifest = run(out, job, workers=workers, max_rejects=0.5)
    assert manifest.totals.rejected == {"corrupt": 6}
    line = describe_totals(manifest, Folder(str(out)))
    assert line.startswith("planned 12 = written 6 + rejected 6 (corrupt 6); 3 shards, ")


def test_without_a_limit_all_may_be_rejected_even_in_one_large_shard(tmp_path: Path) -> None:
    count = 10_001  # more than a budget is judged after
    job = NumberJob(rejected=frozenset(range(count)))
    manifest = run(tmp_path / "out", job, count=count, size=count, max_rejects=1)
    assert manifest.totals.rejected == {"corrupt": count}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_request_that_no_worker_can_meet_ends_it_at_once(tmp_path: Path, workers: int) -> None:
    with pytest.raises(RequestError, match="this host cannot make it"):
        run(tmp_path / "out", NumberJob(fails=0, times=9, way="refuses"), workers=workers)
    assert len(list(tmp_path.glob("failed-*"))) == 1


def test_a_worker_with_other_libraries_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    run(out)
    (out / "shards" / "numbers-000000.json").unlink()
    monkeypatch.setattr("stillreel.__version__", "0.0.1")
    with pytest.raises(RequestError, match=r"other library versions than the plan: stillreel 0\.0\.1, planned "):
        run(out)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with (
        held_by_another(tmp_path / "out"),
        pytest.raises(RequestError, match=f"OUT {tmp_path / 'out'}: another stillreel is writing it"),
    ):
        run(tmp_path / "out")
    run(tmp_path / "out")


def test_receipts_are_read_once_a_run_and_what_is_finished_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    run(out)
    kept = (out / "manifest.json").stat().st_mtime_ns
    read: list[str] = []

    def noted(folder: Folder, shard: str) -> Receipt:
        read.append(shard)
        return read_receipt(folder, shard)

    monkeypatch.setattr("stillreel.shards.build.survey.read_receipt", noted)
    caplog.set_level("INFO", "stillreel")
    run(out)
    assert sorted(read) == ["numbers-000000", "numbers-000001", "numbers-000002"]
    assert "nothing to do: every planned shard is finished" in caplog.text
    assert (out / "manifest.json").stat().st_mtime_ns == kept
    (out / "shards" / "numbers-000001.json").unlink()
    read.clear()
    run(out)
    assert len(read) == 3


@pytest.mark.parametrize("what", ["numbers-000001.json", "numbers-000001.tar"])
def test_a_shard_that_is_gone_when_the_books_are_closed_is_in_no_manifest(tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    run(out)
    folder = Folder(str(out))
    plans = read_plans(folder)
    receipts = survey(folder, plans, full=False).receipts
    (out / "manifest.json").unlink()
    (out / "shards" / what).unlink()
    with pytest.raises(DataError, match="1 finished shards were changed or removed while the build ran"):
        engine._publish_manifest(folder, plans, receipts)
    assert not (out / "manifest.json").exists()


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 75), (signal.SIGKILL, -9)])
def test_workers_end_with_the_command(
    undisturbed: dict[str, str], tmp_path: Path, how: signal.Signals, code: int
) -> None:
    """Also where they are in the middle of a shard, and where nobody is left to stop them."""
    script = (
        "import sys; from pathlib import Path; from stillreel.configs import Interrupted\n"
        "from tests.shards.build.numbers import NumberJob, run\n"
        "if __name__ == '__main__':\n"
        "    try: run(Path(sys.argv[1]), NumberJob(fails=2, times=1, way='hangs'), workers=2)\n"
        "    except Interrupted as error: print(error); sys.exit(error.exit_code)"
    )
    (tmp_path / "script.py").write_text(script)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: list(tmp_path.glob("failed-*")) and len(finished(out)) == 2)
    (worker,) = {int(path.name.split(".")[3]) for path in out.glob("shards/.*.part")}
    process.send_signal(how)
    said = process.communicate(timeout=PATIENCE_S)[0]  # the pipe is open as long as any of them is there
    assert process.returncode == code, said
    assert ("finished shards are kept. Run the same command again to go on" in said) == (code == 75)
    wait_for(lambda: not is_alive(worker))
    run(out)
    assert data_digests(out) == undisturbed


def is_alive(process_id: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.01)


def test_a_worker_that_dies_while_it_waits_is_replaced(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "out"))
    (plan,) = open_or_write_plans(folder, [], count=8, size=4)
    job = NumberJob(notes=str(tmp_path))
    with InPool(make_shard, 1) as pool:
        for shard in plan.shard_numbers:
            pool.submit(ShardTask(folder.url, 0, plan.digest, shard, attempt=1, max_rejected=0, job=job))
            outcome = pool.wait(PATIENCE_S)
            assert outcome is not None and outcome.receipt is not None
            (idle,) = pool._idle
            for worker in list(idle._processes.values()):
                worker.kill()
            wait_for(lambda idle=idle: idle._broken)  # known by then; a shard that came earlier would lose an attempt
    assert finished(tmp_path / "out") == ["numbers-000000", "numbers-000001"]
