"""A bucket's bad days: what stumbles is tried again, what is down is said to be down, and neither is taken for damage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.exceptions import FSTimeoutError

from stillreel import cli
from stillreel.configs.system.lease import leased
from stillreel.configs.system.storage import Folder
from tests.making import animate, check, picture_folder
from tests.shards.faulty_s3 import FAULTS, Fault, Proxy, Warm, faulty_bucket, put, trials


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with faulty_bucket() as proxy:
        yield proxy


@pytest.fixture
def well(proxy: Proxy) -> Iterator[Proxy]:
    """The proxy, which is well again after the test."""
    yield proxy
    proxy.inflict(None)


@pytest.fixture(scope="module")
def out(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished build in the bucket."""
    put(picture_folder(tmp_path_factory.mktemp("faulty") / "stills", 6), "s3://clips/few")
    assert animate("s3://clips/few", "s3://clips/sound", shard_size=3, frames=3, size=64) == 0
    return "s3://clips/sound"


def test_a_lock_whose_making_was_not_answered_is_this_drivers_own(well: Proxy) -> None:
    folder = Folder("s3://clips/locked")
    folder.exists()  # the connection and the region are known: what comes next is HEAD of the bucket, and PUT of the lock
    well.inflict(Fault("the answer to the PUT is lost", "dropped", after=1, until=2))
    with leased(folder):
        assert well.hit == 1
        assert folder.exists(".lock")
    assert not folder.exists(".lock")


def test_expired_credentials_end_a_build_at_once(
    well: Proxy, out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["animate", "s3://clips/few", str(tmp_path / "out"), "ray=inline", "shard_size=3", "frames=3", "size=64"]
    assert cli.main([*words, "dry_run=true"]) == 0
    needed = well.asked
    assert cli.main(words) == 0
    for path in (tmp_path / "out" / "shards").glob("*"):
        path.unlink()
    well.inflict(Fault("credentials expire", "expired", after=needed // 8))
    capsys.readouterr()
    assert cli.main(words) in (1, 2)
    said = capsys.readouterr().err
    assert "refuses" in said and "attempt 2" not in said and "Traceback" not in said, said
    well.inflict(None)
    assert cli.main(words) == 0


@pytest.mark.parametrize("kind", ["500", "cut", "dropped"])
def test_stumbles_are_no_damage(well: Proxy, out: str, kind: str) -> None:
    well.inflict(Fault("1 of 10 requests", kind, 0.1), seed=1)
    assert not check(out).problems
    assert well.hit


def test_a_bucket_that_is_down_is_no_damage(well: Proxy, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    well.inflict(Fault("down", "500", after=8))
    assert cli.main(["verify", out, "progress=off"]) == 1
    said = capsys.readouterr()
    assert "PROBLEM" not in said.out and "cannot be reached now" in said.err, said


def test_a_time_out_over_which_s3fs_stumbles_is_no_damage(
    out: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks for the number of an error that has none; a silent server would be waited for a minute here."""

    def time_out(*_: object, **__: object) -> bytes:
        raise FSTimeoutError

    monkeypatch.setattr("s3fs.core._fetch_range", time_out)
    assert cli.main(["verify", out, "progress=off"]) == 1
    said = capsys.readouterr()
    assert not said.out and "cannot be reached now: FSTimeoutError" in said.err, said


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_said_and_mended_by_the_same_command(well: Proxy, fault: Fault) -> None:
    with Warm() as warm:
        for trial in trials(well, warm, [fault]):
            assert trial.is_well, trial
