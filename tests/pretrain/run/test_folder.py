"""Where a run goes on, what it refuses, and what it keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillreel.configs import DataError, RequestError
from stillreel.configs.run import RunSettings
from stillreel.pretrain.data.together import Together
from stillreel.pretrain.run import Checkpoint, RunFolder
from stillreel.pretrain.run.folder import kept_steps
from tests.pretrain.run.making import BINDING, folder_at, run_to, saved_steps, toy_settings
from tests.warm import Warm


def begin(out: Path, **settings: object) -> Checkpoint | None:
    chosen = toy_settings(**settings)  # type: ignore[arg-type]
    with folder_at(out, chosen) as folder:
        return folder.begin(chosen, BINDING)


def step_of(out: Path, **settings: object) -> int:
    found = begin(out, **settings)
    return 0 if found is None else found.step


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    run_to(out, 10, 20, 30)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A run with checkpoints after 10, 20 and 30 steps, to be harmed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def harm(out: Path, step: int) -> None:
    file = out / "checkpoints" / f"step-{step:08d}" / "training.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def test_a_new_run_writes_what_it_is(tmp_path: Path) -> None:
    assert begin(tmp_path / "new") is None
    told = json.loads((tmp_path / "new" / "run.json").read_text())
    settings = toy_settings()
    assert told["settings"] == settings.model_dump(mode="json") and told["settings_digest"] == settings.digest()
    assert {"stillreel", "torch", "safetensors"} <= told["libraries"].keys()


def test_auto_goes_on_from_the_latest(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "stillreel")
    assert step_of(run) == 30
    assert "going on from" in caplog.text
    assert step_of(run, resume=str(run)) == 30


def test_damaged_checkpoints_are_named_passed_over_and_lose_their_names(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    harm(run, 30)
    assert step_of(run) == 20
    assert [one.levelname for one in caplog.records] == ["WARNING", "WARNING"]
    damaged, aside = caplog.messages
    assert damaged.startswith("damaged, passed over: ") and "step-00000030: training.safetensors has" in damaged
    assert aside.startswith("set aside as ")
    assert saved_steps(run) == ["step-00000010", "step-00000020", "step-00000030.damaged"]
    run_to(run, 30)
    assert step_of(run) == 30
    harm(run, 30)
    assert step_of(run) == 20
    assert "step-00000030.damaged-2" in saved_steps(run)


def test_if_none_is_whole_nothing_is_begun_anew(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (10, 20, 30):
        harm(run, step)
    with pytest.raises(DataError, match="holds 3 checkpoints and none is whole"):
        begin(run)
    assert caplog.text.count("damaged, passed over") == 3
    assert saved_steps(run) == ["step-00000010", "step-00000020", "step-00000030"]


def test_what_a_killed_saver_left_is_removed(run: Path) -> None:
    (run / "checkpoints" / ".step-00000040.1.aa.part").mkdir()
    assert step_of(run) == 30
    assert len(saved_steps(run)) == 3


def test_never_refuses_a_folder_that_holds_a_run(run: Path, tmp_path: Path) -> None:
    assert begin(tmp_path / "new", resume="never") is None
    for out in (run, tmp_path / "new"):
        with pytest.raises(RequestError, match="holds a run already; go on with resume=auto, or give another OUT"):
            begin(out, resume="never")


def test_other_settings_are_said_and_used(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "stillreel")
    begin(run, lr=1e-5, save_every=7)
    said = caplog.messages[-1].splitlines()
    assert said[0].endswith("after 30 steps, with other settings:")
    assert said[1:] == ["  optimizer.lr: 4e-6 -> 1e-5", "  save_every: 1000 -> 7"]
    assert json.loads((run / "run.json").read_text())["settings"]["optimizer"]["lr"] == 1e-5


def test_settings_that_bind_are_refused_and_nothing_changes(run: Path) -> None:
    before = (run / "run.json").read_bytes()
    with pytest.raises(RequestError, match=r"step-00000030 cannot go on(.|\n)*seed was 0, is 5\n  width was 4, is 8"):
        begin(run, seed=5, width=8, lr=1e-5)
    assert (run / "run.json").read_bytes() == before


def test_a_checkpoint_of_another_run_begins_a_new_one_and_the_same_command_goes_on(run: Path, tmp_path: Path) -> None:
    given, out = str(run / "checkpoints" / "step-00000020"), tmp_path / "other"
    assert step_of(out, resume=given) == 20
    assert step_of(out, resume=given) == 20  # killed before it saved
    run_to(out, 25, resume=given)
    assert step_of(out, resume=given) == 25
    assert step_of(out) == 25
    with pytest.raises(RequestError, match="holds a run already, which did not begin from"):
        begin(out, resume=str(run / "checkpoints" / "step-00000010"))
    assert step_of(tmp_path / "third", resume=str(run)) == 30


def test_a_run_does_not_go_back_over_its_own_checkpoints(run: Path) -> None:
    home = run / "checkpoints"
    with pytest.raises(RequestError, match="OUT holds later checkpoints: step-00000020, step-00000030"):
        begin(run, resume=str(home / "step-00000010"))
    shutil.rmtree(home / "step-00000030")
    assert step_of(run, resume=str(home / "step-00000020")) == 20


def test_a_path_without_a_checkpoint_is_a_wrong_request_and_a_damaged_one_says_so(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"neither a checkpoint \(it has no state\.json\) nor a run's folder"):
        begin(tmp_path / "new", resume="aut")
    harm(run, 20)
    with pytest.raises(DataError, match=r"step-00000020: training\.safetensors has"):
        begin(tmp_path / "new", resume=str(run / "checkpoints" / "step-00000020"))


def test_a_bucket_is_refused() -> None:
    with pytest.raises(RequestError, match="memory://bucket/run: a run needs a folder on a disk"):
        RunFolder("memory://bucket/run", RunSettings(), Together(1, 10), 0)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    settings = toy_settings()
    code = (
        "import sys; from pathlib import Path; from tests.pretrain.run.test_folder import begin\n"
        "from stillreel.configs import RequestError\n"
        "try: begin(Path(sys.argv[1]))\nexcept RequestError as error: print(error)"
    )
    with folder_at(tmp_path, settings):
        said = Warm("-c", [code, str(tmp_path)]).finish(timeout=240)
    assert said.stdout == f"OUT {tmp_path}: another stillreel is writing it\n"
    assert begin(tmp_path) is None


def test_a_step_that_is_saved_already_is_left_alone(run: Path) -> None:
    file = run / "checkpoints" / "step-00000030" / "state.json"
    before = file.stat()
    run_to(run, 30)
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_the_latest_the_milestones_and_the_best_stay(tmp_path: Path) -> None:
    scores = {2: 0.5, 3: float("nan"), 4: 0.9, 5: 0.9, 7: 0.1}
    run_to(tmp_path, *range(1, 11), metrics=scores, keep_last=2, keep_every=3, best_metric="score")
    assert [int(name[-8:]) for name in saved_steps(tmp_path)] == [3, 4, 6, 9, 10]


steps = st.dictionaries(st.integers(0, 60), st.none() | st.floats(-1, 1), min_size=1, max_size=12)


@given(steps, st.integers(1, 5), st.integers(0, 9), st.booleans())
def test_kept_steps_are_as_promised(
    values: dict[int, float | None], keep: int, milestones: int, wants_best: bool
) -> None:
    settings = RunSettings(keep_last=keep, keep_every=milestones, best_metric="score" if wants_best else "")
    kept = kept_steps(values, settings)
    known = [value for value in values.values() if value is not None]
    for step in values:
        is_latest = sum(other > step for other in values) < keep
        is_milestone = milestones and step % milestones == 0
        may_be_best = wants_best and known and values[step] == max(known)
        if is_latest or is_milestone:
            assert step in kept
        elif not may_be_best:
            assert step not in kept
    if wants_best and known:
        assert max(known) in [values[step] for step in kept]


def test_checkpoints_are_due_every_so_many_steps_and_at_milestones() -> None:
    settings = RunSettings(save_every=4, keep_every=6)
    assert [step for step in range(1, 13) if settings.saves_after(step)] == [4, 6, 8, 12]
    assert [step for step in range(1, 13) if RunSettings(save_every=5).saves_after(step)] == [5, 10]
