"""Promise 4 of a build: storage that refuses (full, read-only, forbidden) stops it at once, with one sentence. OUT that cannot be
written from the start is a wrong request. Room made, a rerun ends with the bytes of an undisturbed build.
"""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stillreel.animate.sources.pictures import PictureSource
from stillreel.configs import RequestError, StorageRefused
from stillreel.configs.system.storage import Folder, writing
from stillreel.shards.format.writer import TarWriter
from tests.making import animate, check, data_digests, picture_folder, s3_at, s3_server, stillreel

Remount = Callable[[str], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Remount]]:
    """A disk of one MiB, and how to mount it with other options."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.decode().strip()}")
    yield place, lambda options: subprocess.run(["mount", "-o", f"remount,{options}", place], check=True) and None
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("refused") / "stills", 48, width=320, height=240)


@pytest.mark.parametrize("how", ["workers=1", "workers=2"])
def test_full_disk_stops_a_build_at_once(source: Path, tmp_path: Path, disk: tuple[Path, Remount], how: str) -> None:
    place, remount = disk
    words = ("animate", source, place / "out", "ray=off", how, "shard_size=4", "progress=off")
    said = stillreel(*words)
    assert said.returncode == 1
    assert "attempt" not in said.stderr, "nothing was rendered in vain"
    refusals = [line for line in said.stderr.splitlines() if "No space left on device" in line]
    assert refusals == [
        f"stillreel animate: OUT {place / 'out'} refuses: No space left on device. Nothing more is tried; what is finished "
        "is kept. Make room or get access, and run the same command again to go on"
    ]
    finished = len(list(place.glob("out/shards/*.json")))
    assert 0 < finished < 12
    remount("size=64m")
    again = stillreel(*words)
    assert again.returncode == 0, again.stderr
    assert f"{finished} valid" in again.stderr
    assert animate(source, tmp_path / "whole", shard_size=4) == 0
    assert data_digests(place / "out") == data_digests(tmp_path / "whole")
    assert check(place / "out").problems == []


def test_read_only_at_the_start_is_a_wrong_request(source: Path, disk: tuple[Path, Remount]) -> None:
    place, remount = disk
    for begun in (False, True):
        remount("ro")
        said = stillreel("animate", source, place / "out", "ray=off", "shard_size=4")
        assert said.returncode == 2
        assert f"OUT {place / 'out'} cannot be written: Read-only file system" in said.stderr
        remount("rw,size=64m")
        if not begun:
            assert animate(source, place / "out", shard_size=4) == 0


def test_file_in_the_place_of_out_is_a_wrong_request(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    said = stillreel("animate", source, tmp_path / "file" / "out", "ray=off")
    assert said.returncode == 2
    assert "cannot be written: Not a directory" in said.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM])
def test_what_no_retry_will_mend_is_tried_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tries = []

    def refuse(*_: object) -> None:
        tries.append(1)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(TarWriter, "add", refuse)
        with pytest.raises(StorageRefused, match=os.strerror(number)):
            animate(source, tmp_path / "out", shard_size=4)
    assert len(tries) == 1
    assert not list(tmp_path.glob("out/shards/*"))


@pytest.mark.parametrize("number", [errno.EIO, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT])
def test_what_may_be_over_in_a_moment_is_raised_as_it_is(number: int) -> None:
    with pytest.raises(OSError, match=f"Errno {number}"), writing("/out"):
        raise OSError(number, os.strerror(number))


def test_a_refusal_comes_back_from_a_worker() -> None:
    assert str(pickle.loads(pickle.dumps(StorageRefused("/out refuses")))) == "/out refuses"


def test_missing_credentials_are_a_refusal() -> None:
    from botocore.exceptions import EndpointConnectionError, NoCredentialsError

    with pytest.raises(StorageRefused, match="OUT s3://out refuses: Unable to locate credentials"), writing("s3://out"):
        raise NoCredentialsError
    with pytest.raises(EndpointConnectionError), writing("s3://out"):
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


@pytest.mark.parametrize(("allowed", "code"), [(0, 2), (3, 2), (60, 1)])
def test_bucket_whose_credentials_expire(source: Path, allowed: int, code: int) -> None:
    """A real S3 server that takes our keys for so many requests, and then no more."""
    from moto import settings
    from moto.core.authorization import ActionAuthenticatorMixin

    out = f"s3://denied-{allowed}/out"
    with (
        s3_server() as (host, port),
        s3_at(f"http://{host}:{port}"),
        pytest.MonkeyPatch.context() as patch,
    ):
        Folder("s3://x").fs.mkdir(f"denied-{allowed}")
        patch.setattr(ActionAuthenticatorMixin, "request_count", 0)
        patch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", allowed)
        said = stillreel("animate", source, out, "ray=off", "shard_size=4")
        patch.undo()
        assert said.returncode == code, said.stderr
        assert f"OUT {out} refuses: " in said.stderr
        assert "attempt" not in said.stderr
        assert "Traceback" not in said.stderr


def test_source_that_refuses_to_be_listed_is_not_said_to_be_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = picture_folder(tmp_path / "stills", 2)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "forbidden")

    monkeypatch.setattr(PictureSource, "listing", refuse)
    with pytest.raises(RequestError, match=f"SOURCE {source} cannot be read: PermissionError"):
        animate(source, tmp_path / "out")
