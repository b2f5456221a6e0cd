"""The script of a GPU day, small and on the CPU: that all of its parts run, and end in time; not what they measure."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_options import PHASES, SIZES, Phase, Size, read_options
from tests.making import jpeg

REPOSITORY = Path(__file__).parents[2]


def run_day(*words: object, timeout: float = 560) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu_pretrain", *map(str, words)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.slow
def test_it_tells_of_every_part(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number, 120, 90))
    small = "device=cpu size=tiny compile=off rounds=2 steps=1 warmup=1 workers=1 stream_seconds=1 seconds=500"
    out = tmp_path / "out"
    day = run_day(tmp_path, f"out={out}", *small.split())
    assert day.returncode == 0, day.stdout + day.stderr
    said = (out / "results.txt").read_text()
    for phase in PHASES:
        assert f"\n{phase}: " in said
    for part in ("versions", "smoke", "eager", "open_clip", "rendering", "stream", "loader", "profile"):
        assert f"  {part:<10} " in said
    assert "agrees with the CPU's on 6 clips" in said and "x open_clip" in said
    assert "left out" not in said and "stopped" not in said
    assert set(said.splitlines()[1:]) <= set(day.stdout.splitlines())
    assert "aten::" in (out / "profile-eager.txt").read_text()
    assert json.loads(gzip.decompress((out / "trace-eager.json.gz").read_bytes()))["traceEvents"]


def test_its_seconds_are_a_bound_and_what_they_leave_out_is_named(tmp_path: Path) -> None:
    begin = time.monotonic()
    day = run_day("device=cpu", "size=tiny", "seconds=10", f"out={tmp_path}")
    assert time.monotonic() - begin < 40  # Python's own start and end, on a busy machine
    said = (tmp_path / "results.txt").read_text()
    for phase in PHASES:
        assert f"  {phase:<10} left out" in said or f"  {phase:<10} stopped" in said or f"\n{phase}: " in said, (
            day.stderr
        )


def test_what_draws_pictures_imports_no_torch() -> None:
    """Of sixteen processes that do, each takes seconds for it."""
    code = "import sys, benchmarks.gpu_pretrain; print({'torch', 'open_clip', 'numba'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, text=True) == "set()\n"


def test_what_phases_are_forked_from_asks_no_device() -> None:
    """CUDA cannot be used in a fork of a process that has asked for it."""
    code = (
        "import torch\n"
        "asked = []\n"
        "for module, name in ((torch._C, '_cuda_getDeviceCount'), (torch._C, '_cuda_init'), (torch.cuda, 'is_available')):\n"
        "    if hasattr(module, name):\n"
        "        setattr(module, name, lambda *given, name=name: asked.append(name))\n"
        "import benchmarks.gpu_phases\n"
        "print(asked)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, text=True) == "[]\n"


def test_a_phase_goes_on_after_what_fails_or_hangs(tmp_path: Path) -> None:
    phase = Phase(read_options([f"out={tmp_path}"]), time.monotonic() + 30)

    def hang() -> None:
        while True:
            try:
                time.sleep(60)
            except Exception:  # as a compiler catches what goes wrong in it
                continue

    begin = time.monotonic()
    assert not phase.attempt("broken", lambda: 1 // 0)
    assert not phase.attempt("endless", hang, 0.2)
    assert phase.attempt("fine", lambda: None)
    assert time.monotonic() - begin < 10 and phase.failed == ["broken"]
    said = (tmp_path / "results.txt").read_text()
    assert "ZeroDivisionError" in said and "endless    left out: not done within 0 s" in said
    phase = Phase(read_options([f"out={tmp_path}"]), time.monotonic() + 1)
    assert not phase.attempt("late", lambda: None)
    assert "late       left out: 1 s are left" in (tmp_path / "results.txt").read_text()


@pytest.mark.parametrize(
    ("name", "gb", "clips"), [("b32", 85, 208), ("b32", 151, 320), ("b16", 85, 48), ("b16", 151, 96), ("b32", 24, 48)]
)
def test_steps_have_as_many_clips_as_a_card_holds(name: str, gb: int, clips: int) -> None:
    from benchmarks.gpu_steps import fitting_batch

    assert fitting_batch(SIZES[name], gb * 10**9) == clips
    assert clips * SIZES[name].clip_gb + 3 * 2.5 < gb  # and three models with their states


@pytest.mark.parametrize(
    ("words", "named"), [("speed=9", "speed=9"), ("size=l14", "size=l14"), ("phases=race,tea", "phases=tea")]
)
def test_unknown_words_are_refused(words: str, named: str) -> None:
    with pytest.raises(SystemExit, match=f"unknown: {named};"):
        read_options(["device=cpu", words])


def test_where_one_does_not_fit_all_have_half_the_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_phases

    real = gpu_phases.build

    def build(name: str, size: Size, *rest: Any) -> Any:
        if name == "open_clip" and size.batch > 2:
            raise torch.OutOfMemoryError("tried to allocate 9 GiB\nof which 8 are free")
        return real(name, size, *rest)

    monkeypatch.setattr(gpu_phases, "build", build)
    words = ["device=cpu", "size=tiny", "compile=off", "rounds=1", "steps=1", "warmup=1", f"out={tmp_path}"]
    options = read_options(words)._replace(shards=tmp_path)
    gpu_phases.run_race(Phase(options, time.monotonic() + 200), options)
    said = (tmp_path / "results.txt").read_text()
    assert "open_clip  4 clips do not fit: tried to allocate 9 GiB\n  tiny: 2 clips a step" in said
    assert said.count("x open_clip") == 2 and gpu_phases.fitted(options).batch == 2


def test_the_commands_of_the_day_are_ones_it_understands() -> None:
    lines = [shlex.split(line, comments=True) for line in _make("gpu-day").splitlines()]
    asked = [read_options(line[3:]) for line in lines if "benchmarks.gpu_pretrain" in line]
    assert [one.size for one in asked] == [SIZES["b32"], SIZES["b16"]] and asked[0].phases == PHASES
    fetched = next(line for line in lines if "download" in line)
    pins = [word.partition("==") for word in fetched if "==" in word]
    assert len(pins) == 8 and all(version for _, _, version in pins)
    assert {f"manylinux{tag}_x86_64" for tag in ("_2_28", "_2_27", "_2_17", "2014", "1")} <= set(fetched)


def _make(target: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.check_output(["make", "-s", target], cwd=REPOSITORY, env=kept, text=True)
