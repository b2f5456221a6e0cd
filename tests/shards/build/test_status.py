"""What a build tells of itself: events.jsonl, `stillreel status`, and that neither is part of the data."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from stillreel.configs import DataError
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.journal import EVENTS, Journal, read_events
from stillreel.shards.commands.status import collect, render
from stillreel.shards.format.plan import read_plans
from tests.making import check, data_digests, stillreel
from tests.shards.build.numbers import NumberJob, run

HERE = socket.gethostname()


def status(out: Path) -> dict[str, object]:
    folder = Folder(str(out))
    return collect(folder, read_plans(folder), time.time())


def test_a_finished_build_tells_what_it_made(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, NumberJob(rejected=frozenset({1, 5, 6})), max_rejects=1)
    events = read_events(Folder(str(out)))
    assert [event["event"] for event in events] == ["started", "shard", "shard", "shard", "ended"]
    assert {key: events[0][key] for key in ("shards", "finished", "samples", "ray")} == {
        "shards": 3, "finished": 0, "samples": 12, "ray": "off",
    }  # fmt: skip
    first = events[1]
    assert (first["shard"], first["host"], first["planned"], first["written"], first["rejected"]) == (
        "numbers-000000", HERE, 4, 3, {"corrupt": 1},
    )  # fmt: skip
    assert events[-1]["how"] == "finished"
    told = status(out)
    assert (told["state"], told["shards"]) == ("finished", {"finished": 3, "planned": 3})
    assert told["samples"] == {"finished": 12, "planned": 12, "written": 9, "rejected": {"corrupt": 3}}
    assert (told["failed"], told["hosts"], told["seconds_left"]) == ([], {HERE: 3}, None)
    assert told["bytes"] == sum(path.stat().st_size for path in out.glob("shards/*") if path.suffix != ".json")
    verdict = check(out)
    assert not verdict.problems and not verdict.strangers


def test_events_are_not_needed_and_are_no_data(tmp_path: Path) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b")
    (tmp_path / "b" / EVENTS).unlink()
    assert data_digests(tmp_path / "a") == data_digests(tmp_path / "b")
    assert (tmp_path / "a" / "manifest.json").exists()
    told = status(tmp_path / "b")
    assert (told["state"], told["samples"]) == ("finished", status(tmp_path / "a")["samples"])
    assert not check(tmp_path / "b").problems
    run(tmp_path / "b")
    assert not (tmp_path / "b" / EVENTS).exists(), "a run that has nothing to do tells nothing"


def test_a_shard_that_failed_is_told_with_its_last_error_and_host(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError):
        run(out, NumberJob(fails=1, times=9), attempts=2)
    told = status(out)
    assert (told["state"], told["shards"]) == ("failed", {"finished": 2, "planned": 3})
    assert told["failed"] == [
        {"shard": "numbers-000001", "attempts": 2, "error": "OSError: this time", "host": HERE},
    ]
    assert f"failed   numbers-000001, 2 attempts, last on {HERE}: OSError: this time" in render(told)
    said = stillreel("status", out, "json=true")
    assert said.returncode == 1 and json.loads(said.stdout)["failed"] == told["failed"]
    for path in tmp_path.glob("failed-*"):
        path.unlink()
    run(out, NumberJob())
    assert (status(out)["state"], status(out)["failed"]) == ("finished", [])
    assert [event["event"] for event in read_events(Folder(str(out)))].count("started") == 2


def test_a_running_build_tells_its_rate_and_the_time_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out)
    (out / "shards" / "numbers-000002.json").unlink()
    lines = [
        {"event": "started", "time": 1000.0},
        {
            "event": "shard",
            "time": 1004.0,
            "shard": "numbers-000000",
            "planned": 4,
            "written": 4,
            "seconds": 4,
            "host": "a",
        },
        {
            "event": "shard",
            "time": 1008.0,
            "shard": "numbers-000001",
            "planned": 4,
            "written": 4,
            "seconds": 9,
            "host": "b",
        },
        {"event": "host_left_out", "time": 1009.0, "host": "c", "error": "it does not see SOURCE"},
    ]
    (out / EVENTS).write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"event": "shard", "ti')
    folder = Folder(str(out))
    told = collect(folder, read_plans(folder), 1012.0)
    assert (told["state"], told["samples_per_second"], told["seconds_left"], told["last_event_seconds"]) == (
        "running", 1.0, 4, 3.0,
    )  # fmt: skip
    assert [one["shard"] for one in told["slowest"]] == ["numbers-000001", "numbers-000000"]
    assert told["hosts_left_out"] == [{"host": "c", "error": "it does not see SOURCE"}]
    assert "rate 1.0 samples/s, 4 s left" in render(told)


@pytest.mark.parametrize(
    "line", ['{"event": "shard"}', '{"event": 3}', "[]", "\0", '{"event": "shard", "seconds": "x", "rejected": []}']
)
def test_no_line_of_events_ends_status(tmp_path: Path, line: str) -> None:
    run(tmp_path / "out")
    with (tmp_path / "out" / EVENTS).open("a") as file:
        file.write(f"{line}\n")
    assert status(tmp_path / "out")["shards"] == {"finished": 3, "planned": 3}


def test_events_that_cannot_be_written_end_no_build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "out" / EVENTS).mkdir(parents=True)
    run(tmp_path / "out")
    assert caplog.text.count("events.jsonl cannot be written") == 1


def test_a_bucket_is_put_to_now_and_then_and_keeps_what_was_there() -> None:
    folder = Folder("memory://events-of-a-build")
    for run_number in range(2):
        with Journal(folder) as journal:
            journal.begin(number=run_number)
            before = folder.read(EVENTS)
            for number in range(100):
                journal.attempt_failed(f"set-{number:06d}", 1, "no luck", "")
            assert folder.read(EVENTS) == before, "a put a line would be a hundred"
        assert len(read_events(folder)) == 102 * (run_number + 1)
