"""A checkpoint is there whole or not at all: through kills and full disks, and whatever happens to its files afterwards."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stillreel.configs import DataError
from stillreel.configs.settings import canonical_json
from stillreel.pretrain.model.checkpoint import load_model
from stillreel.pretrain.run import take_snapshot
from stillreel.pretrain.run.checkpoint import open_checkpoint, write_checkpoint
from tests.making import ROOT
from tests.pretrain.run.making import equal, run_to, saved_steps, state_at, toy_settings, toy_task
from tests.warm import Warm

SAVER = (sys.executable, "-m", "tests.pretrain.run.saver")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("saved")
    run_to(out, 5)
    return out


def test_a_checkpoint_is_a_model_s_folder_and_says_what_it_is_of(saved: Path) -> None:
    folder = saved / "checkpoints" / "step-00000005"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "model.safetensors", "state.json", "training.safetensors"
    ]  # fmt: skip
    task, _ = toy_task()
    assert equal(dict(load_model(folder).state_dict()), dict(task.model.state_dict()))
    state = json.loads((folder / "state.json").read_text())
    assert (state["step"], state["stream"]) == (5, state_at(5).to_dict())
    settings = toy_settings()
    assert state["settings"] == json.loads(canonical_json(settings.model_dump(mode="json")))
    assert state["settings_digest"] == settings.digest()
    assert {name: one["bytes"] for name, one in state["files"].items()} == {
        path.name: path.stat().st_size for path in folder.iterdir() if path.name != "state.json"
    }
    assert open_checkpoint(folder).stream == state_at(5)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "training.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_damage_of_any_file_is_seen(saved: Path, tmp_path: Path, name: str, harm: str) -> None:
    folder = tmp_path / "step-00000005"
    shutil.copytree(saved / "checkpoints" / "step-00000005", folder)
    data = (folder / name).read_bytes()
    middle = data.index(b"fingerprint") + 15 if name == "state.json" else len(data) // 2
    match harm:
        case "flipped":
            changed = bytes([data[middle] ^ 1])  # a digit of JSON stays one
            (folder / name).write_bytes(data[:middle] + changed + data[middle + 1 :])
        case "cut":
            (folder / name).write_bytes(data[:middle])
        case "gone":
            (folder / name).unlink()
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        open_checkpoint(folder)


def test_savers_killed_at_random_moments_leave_whole_checkpoints_only(tmp_path: Path) -> None:
    said = Warm("tests.pretrain.run.saver", ["kill", str(tmp_path), "16"]).finish(timeout=280)
    assert said.returncode == 0, said.stderr[-4000:]
    trials = [json.loads(line) for line in said.stdout.splitlines()]
    assert len(trials) == 16
    for trial in trials:  # the saver opened every folder with a checkpoint's name, and loaded the latest
        assert trial["whole"][-1] >= trial["before"]
        assert len(trial["whole"]) <= 3  # keep=2, and the one before whose removal was cut off
    assert sum(bool(trial["parts"]) for trial in trials) >= 4, "kills should hit saves"
    assert trials[-1]["whole"][-1] > 1, "and some of them come after one"
    assert not [name for name in saved_steps(tmp_path) if name.startswith(".")]


def test_a_full_disk_is_said_and_leaves_the_earlier_checkpoints(tmp_path: Path) -> None:
    """A real one: a small file system in memory, mounted where only the saver sees it."""
    size = 6 * sum(one.nbytes for one in take_snapshot(*toy_task()).weights.values())
    mount = (
        f'mount -t tmpfs -o size={size} none {tmp_path} && head -c {size // 3} /dev/zero > {tmp_path}/room && exec "$@"'
    )
    inside = ("unshare", "-rm", "sh", "-c", mount, "sh")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*inside, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this machine lets its users mount nothing")
    said = subprocess.run(
        [*inside, *SAVER, "full", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert said.returncode == 0, said.stderr[-4000:]
    told = json.loads(said.stdout)
    failed = len(told["whole"]) + 1
    assert failed >= 2
    assert told["whole"] == list(range(1, failed)) and told["again"] == failed
    assert told["left"] == [f"step-{step:08d}" for step in told["whole"]]
    match = re.search(
        rf"checkpoints/step-{failed:08d}/(model|training)\.safetensors: the disk is full: the checkpoint needs ([\d,]+) "
        r"bytes \([\d.]+ MB\), and ([\d,]+) are free",
        told["error"],
    )
    assert match, told["error"]
    assert int(match[2].replace(",", "")) == told["needed"]
    assert 0 < int(match[3].replace(",", "")) < told["needed"]


@pytest.mark.parametrize("room", [0, 1000, 1 << 20], ids=["nothing", "a header", "a part"])
def test_a_limit_of_file_sizes_is_a_full_disk(tmp_path: Path, room: int) -> None:
    task, optimizer = toy_task()
    snapshot = take_snapshot(task, optimizer)
    write_checkpoint(tmp_path, task.model, snapshot, state_at(1), {}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(DataError, match=r"step-00000002/model\.safetensors: the disk is full \(or a limit"):
            write_checkpoint(tmp_path, task.model, snapshot, state_at(2), {}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert open_checkpoint(tmp_path / "step-00000001").step == 1
    write_checkpoint(tmp_path, task.model, snapshot, state_at(2), {}, {})


def test_a_disk_that_fails_otherwise_is_said_too(tmp_path: Path) -> None:
    task, optimizer = toy_task()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"step-00000002/model\.safetensors: cannot be written: Not a directory"):
        write_checkpoint(tmp_path / "file", task.model, take_snapshot(task, optimizer), state_at(2), {}, {})
