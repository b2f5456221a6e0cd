"""Promise 4 of a build, where a picture crashes or hangs its decoder: it is one rejected row, its neighbors are written, and the
bytes are the same on every way there. What the machine did (SIGKILL) is never put down to a picture.

The decoder is real but for a few lines that every Python process of the build runs when it starts: they crash, hang or kill it
where a picture's bytes ask for that.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from stillreel.configs import RequestError
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.manifest import read_manifest
from tests.making import ROOT, animate, check, data_digests, picture_folder, rows_of, stillreel

_DEADLY = """
import os, pathlib, signal
from stillreel.animate.pictures.picture import PictureReader

read = PictureReader.read

def deadly(self, data):
    word, _, note = data.rpartition(b"!")[2].decode("latin-1").partition("@")
    way, _, times = word.partition("*")
    if way in ("SIGSEGV", "SIGFPE", "SIGKILL", "spins"):
        with open(note, "a") as file:  # a line for each time
            file.write("died\\n")
        if not times or len(pathlib.Path(note).read_text().splitlines()) <= int(times):
            if way == "spins":
                sum(range(10**15))  # in C, and holds the interpreter's lock
            os.kill(os.getpid(), getattr(signal, way))
    return read(self, data)

PictureReader.read = deadly
"""
_SETTINGS = ("shard_size=10", "progress=off", "picture_cpu_seconds=1", "max_rejects=0.5")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "deadly").mkdir()
    (tmp_path / "deadly" / "sitecustomize.py").write_text(_DEADLY)
    return picture_folder(tmp_path / "stills", 20)


def poison(source: Path, number: int, way: str) -> Path:
    """Make a picture deadly; returns the file that tells how often it has been."""
    path, note = source / f"{number:05d}.jpg", source.parent / f"note-{number}"
    path.write_bytes(path.read_bytes() + f"!{way}@{note}".encode())
    return note


def build(source: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(source.parent / "deadly"), str(ROOT)])
    return stillreel("animate", source, out, *(words or ("ray=off",)), *_SETTINGS, PYTHONPATH=path)


def deaths(note: Path) -> int:
    return len(note.read_text().splitlines())


def rejects(out: Path) -> list[tuple[object, ...]]:
    return [(row["source_key"], row["reason"], row["detail"]) for row in rows_of(out) if row["status"] == "rejected"]


def test_pictures_that_crash_and_hang_are_rejected_and_their_neighbors_are_not(source: Path, tmp_path: Path) -> None:
    crash, hang, first = (poison(source, *one) for one in ((3, "SIGSEGV"), (7, "spins"), (10, "SIGFPE")))
    said = build(source, tmp_path / "out")
    assert said.returncode == 0, said.stderr
    assert "stills-000000: attempt 1 of 3 failed: BrokenProcessPool: its worker was ended by SIGSEGV" in said.stderr
    assert "written 17 + rejected 3 (crashed 2, timed_out 1)" in said.stdout
    assert rejects(tmp_path / "out") == [
        ("00003.jpg", "crashed", "the process that decodes it was ended by SIGSEGV, each time"),
        ("00007.jpg", "timed_out", "decoding it takes over 1 CPU seconds"),
        ("00010.jpg", "crashed", "the process that decodes it was ended by SIGFPE, each time"),
    ]
    for key, reason, _ in rejects(tmp_path / "out"):
        assert f"{key} is rejected: {reason}: " in said.stderr
    assert not check(tmp_path / "out").problems
    # With its worker, with those before it where there are any, and twice alone. Before the hang, the crash ended the worker.
    assert [deaths(crash), deaths(hang), deaths(first)] == [4, 3, 3]
    again = build(source, tmp_path / "two", "ray=off", "workers=2")
    assert again.returncode == 0, again.stderr
    assert data_digests(tmp_path / "two") == data_digests(tmp_path / "out")


def test_on_ray_it_is_the_same(source: Path, tmp_path: Path) -> None:
    for number, way in ((3, "SIGSEGV"), (7, "spins")):
        poison(source, number, way)
    for name, words in (("ray", ("ray=local", "workers=2")), ("off", ("ray=off",))):
        said = build(source, tmp_path / name, *words)
        assert said.returncode == 0, said.stderr
        assert "written 18 + rejected 2 (crashed 1, timed_out 1)" in said.stdout
    assert data_digests(tmp_path / "ray") == data_digests(tmp_path / "off")


@pytest.mark.parametrize(
    ("way", "times"),
    [
        ("SIGSEGV", 1),
        ("SIGSEGV", 3),
        ("spins", 2),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("SIGSEGV", 2), ("spins", 1), ("spins", 3))),
    ],
)
def test_a_picture_that_does_not_do_it_twice_alone_is_written(
    source: Path, tmp_path: Path, way: str, times: int
) -> None:
    note = poison(source, 5, f"{way}*{times}")
    assert build(source, tmp_path / "out").returncode == 0
    assert deaths(note) == times + 1
    undisturbed = {"shard_size": 10, "picture_cpu_seconds": 1, "max_rejects": 0.5}
    assert animate(source, tmp_path / "undisturbed", **undisturbed) == 0
    assert data_digests(tmp_path / "out") == data_digests(tmp_path / "undisturbed")
    assert not rejects(tmp_path / "out")


def test_a_shard_gets_the_attempt_that_finds_the_picture_even_where_attempts_is_1(source: Path, tmp_path: Path) -> None:
    poison(source, 5, "SIGSEGV")
    said = build(source, tmp_path / "out", "ray=off", "attempts=1")
    assert said.returncode == 0, said.stderr
    assert [reason for _, reason, _ in rejects(tmp_path / "out")] == ["crashed"]
    retried = build(source, tmp_path / "out", "ray=off", "attempts=1", "extend=rejects")
    assert retried.returncode == 0, retried.stderr
    assert "planned 21 = written 19 + rejected 2 (crashed 2)" in retried.stdout


def test_a_kill_is_the_machine_s_and_fails_the_attempt(source: Path, tmp_path: Path) -> None:
    note = poison(source, 5, "SIGKILL*3")
    said = build(source, tmp_path / "out")
    assert said.returncode == 1
    for attempt, why in (
        (1, "its worker was ended by SIGKILL"),
        *((n, "samples was ended by SIGKILL") for n in (2, 3)),
    ):
        assert f"stills-000000: attempt {attempt} of 3 failed: " in said.stderr
        assert why in said.stderr
    assert "1 of 2 shards failed after 3 attempts: stills-000000" in said.stderr
    assert deaths(note) == 3
    rerun = build(source, tmp_path / "out")
    assert rerun.returncode == 0, rerun.stderr
    assert "written 20 + rejected 0;" in rerun.stdout


def test_the_limit_is_part_of_the_plan_but_where_it_is_that_of_plans_that_know_none(
    source: Path, tmp_path: Path
) -> None:
    for name, settings in (("usual", {}), ("other", {"picture_cpu_seconds": 60})):
        assert animate(source, tmp_path / name, **settings) == 0
        planned = read_manifest(Folder(str(tmp_path / name))).plans[0].settings
        assert {key: planned[key] for key in planned.keys() & {"picture_cpu_seconds"}} == settings
    with pytest.raises(RequestError, match="picture_cpu_seconds: planned 60, asked 'the default'"):
        animate(source, tmp_path / "other")
    assert animate(source, tmp_path / "usual", picture_cpu_seconds=30) == 0
