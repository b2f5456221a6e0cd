"""TensorBoard and wandb have what metrics.jsonl has; a run that goes on is the same one there; neither can end a run."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillreel.configs import RequestError
from stillreel.configs.run import RunSettings
from stillreel.pretrain.run import MetricsLogger
from tests.pretrain.run.test_metrics import lines_of, reading
from tests.warm import Warm


def in_wandb(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, whose wandb knows nobody and could reach nobody."""
    pytest.importorskip("wandb")
    prelude = (
        "import math\nfrom pathlib import Path\nfrom stillreel.configs.run import RunSettings\n"
        "from stillreel.pretrain.run import MetricsLogger\nfrom tests.pretrain.run.test_metrics import reading\n"
        f"out, settings = Path({str(home / 'my-run')!r}), RunSettings(tracker='wandb')\nout.mkdir(exist_ok=True)\n"
    )
    known = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    known |= {"HOME": str(home), "WANDB_BASE_URL": "http://127.0.0.1:9", **environment}
    return Warm("-c", [prelude + code], known).finish(timeout=300)


def records_of(file: Path) -> Iterator[Any]:
    """What a .wandb file holds: a log as LevelDB's, of protocol buffers."""
    from wandb.proto import wandb_internal_pb2

    data = file.read_bytes()
    place, whole = 7, b""  # after the file's own head
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:  # no place for a head: zeros up to the next block
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def told_to_wandb(out: Path) -> list[tuple[Any, list[dict[str, Any]]]]:
    """Of each start, the earliest first: the run's record, and its rows."""
    found = []
    for file in sorted(out.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        records = list(records_of(file))
        (run,) = (one.run for one in records if one.WhichOneof("record_type") == "run")
        rows = [
            {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in one.history.item}
            for one in records
            if one.WhichOneof("record_type") == "history"
        ]
        found.append((run, rows))
    return found


def test_wandb_has_the_numbers_and_a_run_that_goes_on_is_the_same_one(tmp_path: Path) -> None:
    code = """
import time
with MetricsLogger(out, settings, 0) as journal:
    journal.write(reading(10, loss=3.0, mfu=0.25))
    journal.write(reading(20, loss=math.nan))
    journal.add(20, {"heldout.r1": 0.5})
    journal.write(reading(30, loss=9.0))
time.sleep(1)  # wandb names a start by its second
with MetricsLogger(out, settings, 20) as journal:
    journal.write(reading(30, loss=2.0))
with MetricsLogger(out, settings, 0) as journal:
    journal.write(reading(10, loss=1.0))
"""
    said = in_wandb(code, tmp_path, WANDB_MODE="offline", WANDB_PROJECT="mine")
    assert said.returncode == 0, said.stderr
    (first, rows), (second, more), (anew, last) = told_to_wandb(tmp_path / "my-run")
    assert first.run_id == second.run_id != anew.run_id
    assert (first.project, first.display_name) == ("mine", "my-run"), "the environment's, else ours"
    config = {item.key: json.loads(item.value_json) for item in first.config.update}
    assert config["tracker"] == "wandb" and config["save_every"] == 1000
    assert [row["_step"] for row in rows] == [10, 20, 30]
    told = {key: value for key, value in rows[0].items() if not key.startswith("_")}
    assert told == reading(10, loss=3.0, mfu=0.25).record()
    assert {"lr", "grad_norm", "logit_scale", "loss.infonce", "mfu", "data_wait", "clips_per_s"} <= rows[0].keys()
    assert "loss" not in rows[1] and rows[1]["heldout.r1"] == 0.5, "no number is no value; a step's metrics are one row"
    assert [(row["_step"], row["loss"]) for row in more + last] == [(30, 2.0), (10, 1.0)]


def test_wandb_s_own_process_may_die_and_the_run_goes_on(tmp_path: Path) -> None:
    """As when a job scheduler ends it before the run."""
    code = """
import logging, os, signal, time
logging.basicConfig(format="%(message)s")
with MetricsLogger(out, settings, 0) as journal:
    journal.write(reading(10))
    (core,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    os.kill(int(core), signal.SIGKILL)
    for step in (20, 30, 40):
        time.sleep(1)
        journal.write(reading(step))
print("done")
"""
    said = in_wandb(code, tmp_path, WANDB_MODE="offline")
    assert said.stdout.splitlines()[-1] == "done", said.stderr
    assert [line["step"] for line in lines_of(tmp_path / "my-run")] == [10, 20, 30, 40]
    assert said.stderr.count("WandbTracker failed at ") == 1


def test_whom_wandb_does_not_know_is_told_what_to_do(tmp_path: Path) -> None:
    said = in_wandb("MetricsLogger(out, settings, 0)", tmp_path)
    assert said.returncode == 1
    last = said.stderr.splitlines()[-1]
    assert last.startswith("stillreel.configs.errors.RequestError: tracker=wandb: ")
    assert last.endswith("log in (`wandb login`), set WANDB_MODE=offline, or leave it out")


def test_tensorboard_has_the_numbers_and_forgets_steps_that_come_again(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = RunSettings(tracker="tensorboard")
    with MetricsLogger(tmp_path, settings, 0) as journal:
        journal.write(reading(10, loss=3.0))
        journal.write(reading(20, loss=math.nan))
        journal.write(reading(30, loss=9.0))
    with MetricsLogger(tmp_path, settings, 20) as journal:
        journal.write(reading(30, loss=2.0))
    board = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in board.Scalars("loss")] == [(10, 3.0), (30, 2.0)]
    assert [one.step for one in board.Scalars("loss.infonce")] == [10, 20, 30]


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_without_its_package_it_is_said_what_to_install(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [one for one in sys.modules if one.startswith(("torch.utils.tensorboard", "wandb"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RequestError, match=rf'tracker={name} needs .*: pip install "stillreel\[{name}\]"'):
        MetricsLogger(tmp_path, RunSettings(tracker=name), 0)


def test_both_may_be_asked_for() -> None:
    assert RunSettings().trackers == ()
    assert RunSettings.resolve({"tracker": "wandb,tensorboard"}).trackers == ("wandb", "tensorboard")


@pytest.mark.parametrize("wrong", ["mlflow", "wandb,", "wandb,wandb", "wandb tensorboard"])
def test_a_tracker_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(RequestError, match=f"tracker.*expected tensorboard, wandb, or both .*; given '{wrong}'"):
        RunSettings.resolve({"tracker": wrong})
