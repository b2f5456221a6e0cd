"""Storage that answers late is tried again, and the log of whoever wants to know says so."""

from __future__ import annotations

import pytest

from stillreel.shards.stream.faults import StorageFailure, patiently


def test_a_failed_attempt_is_told_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "stillreel")
    answers = iter([OSError("busy"), b"data"])

    def read() -> bytes:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert patiently("a.tar", 3, read) == b"data"
    assert [(one.levelname, one.message) for one in caplog.records] == [
        ("DEBUG", "a.tar: attempt 1 of 3 failed: OSError: busy")
    ]


def test_no_attempt_begins_after_two_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.sleep", lambda _: None)

    def read() -> bytes:
        clock[0] += 50.0
        raise ConnectionError("closed")

    with pytest.raises(StorageFailure, match="no answer after 3 attempts: ConnectionError: closed"):
        patiently("a.tar", 20, read)
