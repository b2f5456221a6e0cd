"""Promise 4 of a build: one bad picture is one rejected row; more rejects than `max_rejects` stop the build early, with the
reasons; a shard that cannot be made has failed after `attempts`; nothing is retried for ever. (Dying workers: promise 3.)
"""

from __future__ import annotations

from pathlib import Path

import pytest

from stillreel.configs import DataError
from stillreel.configs.system.storage import Folder
from stillreel.shards.build.engine import RejectBudget
from tests.making import animate, check, picture_folder, rows_of, stillreel


def spoil(source: Path, count: int) -> Path:
    for path in sorted(source.glob("*.jpg"))[:count]:
        path.write_bytes(b"not a picture")
    return source


def test_bad_pictures_are_rejected_rows(tmp_path: Path) -> None:
    source = spoil(picture_folder(tmp_path / "stills", 20), 2)
    assert animate(source, tmp_path / "out") == 0
    rejected = [row for row in rows_of(tmp_path / "out") if row["status"] == "rejected"]
    assert [(row["reason"], row["detail"], row["sha256"]) for row in rejected] == [
        ("not_an_image", "13 bytes that begin with b'not a pi'", None)
    ] * 2


def test_too_many_rejects_stop_the_build_with_the_reasons(tmp_path: Path) -> None:
    source = spoil(picture_folder(tmp_path / "stills", 20), 3)
    said = stillreel("animate", source, tmp_path / "out", "ray=off")
    assert said.returncode == 1
    assert "3 rejects (not_an_image 3) are more than max_rejects=0.1 allows of 20 samples" in said.stderr
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_it_stops_early_and_goes_on_under_a_larger_budget(tmp_path: Path) -> None:
    source = spoil(picture_folder(tmp_path / "stills", 40), 30)
    with pytest.raises(DataError, match="5 rejects"):
        animate(source, tmp_path / "out", shard_size=10)
    assert not list((tmp_path / "out" / "shards").glob("*.tar")), "the first shard alone was over the budget of all"
    assert animate(source, tmp_path / "out", shard_size=10, max_rejects=0.75) == 0
    assert check(tmp_path / "out").written == 10


@pytest.mark.parametrize(
    ("fraction", "total", "done", "rejected", "stops"),
    [
        (0.1, 100, 10, 10, False),  # at most 10 of 100 in the end
        (0.1, 100, 20, 11, True),
        (0.0, 100, 1, 1, True),
        (1.0, 100, 100, 100, False),
        (0.1, 1_000_000, 5_000, 1_000, False),  # too early to judge a large source
        (0.1, 1_000_000, 5_000, 1_001, True),
        (0.1, 1_000_000, 50_000, 5_000, False),  # later, the fraction of what is done
        (0.1, 1_000_000, 50_000, 5_001, True),
    ],
)
def test_budget(fraction: float, total: int, done: int, rejected: int, stops: bool) -> None:
    budget = RejectBudget(fraction, total)
    budget.count(done, {"corrupt": rejected})
    if stops:
        with pytest.raises(DataError, match="Fix the source, or run again with a larger max_rejects"):
            budget.check()
    else:
        budget.check()


def test_shard_that_cannot_be_written_is_failed_after_its_attempts(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "stills", 12)
    out = tmp_path / "out"
    # A folder where a tar should go: renaming onto it fails, every time, for this shard alone.
    (out / "shards" / "stills-000001.tar").mkdir(parents=True)
    said = stillreel("animate", source, out, "ray=off", "shard_size=4", "attempts=2")
    assert said.returncode == 1
    assert "stills-000001: attempt 1 of 2 failed: IsADirectoryError" in said.stderr
    assert "stills-000001: attempt 2 of 2 failed" in said.stderr
    assert "1 of 3 shards failed after 2 attempts: stills-000001" in said.stderr
    (out / "shards" / "stills-000001.tar").rmdir()
    assert animate(source, out, shard_size=4) == 0
    assert check(out).problems == []


def test_source_that_fails_to_answer_is_no_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk or network that is down says nothing about the data: the shard fails, no row is lost to it."""
    source = picture_folder(tmp_path / "stills", 8)
    read = Folder.read_ranges
    calls = 0

    def fails_once(self: Folder, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise TimeoutError("no answer")
        return read(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Folder, "read_ranges", fails_once)
    assert animate(source, tmp_path / "out", shard_size=4) == 0
    assert check(tmp_path / "out").written == 8


def test_receipts_tell_the_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stillreel.shards.format.receipt import decode_receipt

    source = picture_folder(tmp_path / "stills", 4)
    read = Folder.read_ranges
    calls: list[int] = []

    def fails_once(self: Folder, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError("cut")
        return read(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Folder, "read_ranges", fails_once)
    assert animate(source, tmp_path / "out") == 0
    assert decode_receipt((tmp_path / "out" / "shards" / "stills-000000.json").read_bytes()).attempt == 2
