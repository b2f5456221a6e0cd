"""An index that is made on Ray: the bytes of one process, whoever works, and nothing that is finished is done again."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from stillreel.configs import DataError
from stillreel.configs.search import IndexSettings
from stillreel.configs.system.storage import Folder
from stillreel.finetune.search.features import model_digest
from stillreel.finetune.search.parts import PartJob, make_part, part_name
from stillreel.finetune.search.sources import open_source
from stillreel.shards.build import hosts
from stillreel.shards.build.executors import ShardTask
from stillreel.shards.build.hosts import Proof, Witness, make_if_fit
from tests.finetune.search.conftest import VIDEOS
from tests.finetune.search.making import FRAMES, SIZE, index
from tests.making import stillreel
from tests.shards.build.nodes import cluster
from tests.streaming import write_set


def digests(out: Path) -> dict[str, str]:
    files = (path for path in out.iterdir() if path.name != ".lock")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def mine(videos: Path, tmp_path: Path) -> Path:
    """Videos, one cut and one that is none."""
    folder = Path(shutil.copytree(videos, tmp_path / "videos"))
    whole = (folder / "video-00.mp4").read_bytes()
    (folder / "a-cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "z-text.mp4").write_text("no video")
    return folder


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_bytes_are_those_of_one_process_and_parts_that_are_there_are_kept(
    mine: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    """`part` is no multiple of `batch`: both ways round it up to one."""
    assert index(mine, tmp_path / "alone", checkpoint, batch=2, part=3) == 0
    expected = digests(tmp_path / "alone")
    out = tmp_path / "ray"
    assert index(mine, out, checkpoint, batch=2, part=3, ray="local", workers=workers) == 0
    assert digests(out) == expected
    assert not list(out.glob("work-*")) and not list(out.rglob(".*.part"))
    assert f"{VIDEOS + 2} of {VIDEOS + 2} indexed" in capfd.readouterr().err


@pytest.mark.long
def test_the_bytes_are_the_same_where_other_processes_encode(mine: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Two that encode, and two tasks that decode."""
    assert index(mine, tmp_path / "alone", checkpoint, batch=2, part=3) == 0
    values = {"frames": FRAMES, "size": SIZE, "video.per_second": 2, "device": "cpu", "batch": 2, "part": 3}
    words = [f"{key}={value}" for key, value in values.items()]
    with cluster(tmp_path, "--num-cpus=2", '--resources={"encoder": 2}') as address:
        words += [f"ray={address}", "encoder.resources=encoder=1"]
        made = stillreel("index", mine, tmp_path / "out", f"checkpoint={checkpoint}", *words)
        assert made.returncode == 0 and "attempt" not in made.stderr, made.stderr
        assert digests(tmp_path / "out") == digests(tmp_path / "alone")


def test_clips_of_shards_are_the_same_too(checkpoint: Path, tmp_path: Path) -> None:
    data = write_set(tmp_path / "clips", [4, 3])
    for ray in ("off", "inline"):
        assert index(data, tmp_path / ray, checkpoint, batch=3, part=3, ray=ray) == 0
    assert digests(tmp_path / "inline") == digests(tmp_path / "off")


def test_no_gpu_for_those_that_ask_for_one(
    videos: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index(videos, tmp_path / "index", checkpoint, ray="inline", device="cuda") == 2
    assert "device=cuda: no host of ray=inline has a GPU" in capsys.readouterr().err


def test_who_encodes_is_settled_by_what_there_is_and_what_is_asked_for() -> None:
    asked = IndexSettings.resolve({"encoder": {"gpus": 0.5, "cpus": 2}})
    assert asked.encoder_needs(has_gpus=True) == {"num_cpus": 2, "resources": {}, "num_gpus": 0.5}
    assert asked.encoder_needs(has_gpus=False) == {}, "each task does"
    assert asked.model_copy(update={"device": "cpu"}).encoder_needs(has_gpus=True) == {}
    named = IndexSettings.resolve({"encoder": {"resources": "encoder=1"}, "device": "cpu"})
    assert named.encoder_needs(has_gpus=True) == {"num_cpus": 0, "resources": {"encoder": 1}}


def test_a_host_that_lost_the_videos_is_ill_and_a_lost_video_costs_attempts(
    mine: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_PAUSE_S", 0.01)
    settings = IndexSettings.resolve({"frames": FRAMES, "size": SIZE, "video": {"per_second": 2}})
    files = open_source(str(mine), settings.video_settings()).survey()
    work = Folder(str(tmp_path / "work"))
    Path(work.path).mkdir()
    proof = Proof(witnesses=(Witness(str(mine), files[-1].path, files[-1].size),))
    model = str(checkpoint), model_digest(str(checkpoint))
    job = PartJob(str(mine), files, settings.video_settings(), 4, model, "cpu", 1, "", proof)
    task = ShardTask(work.url, 0, "", 0, 1, 0, job)
    (mine / "video-03.mp4").unlink()
    kind, why = make_if_fit(proof, make_part, task)
    assert kind == "failed" and isinstance(why, DataError) and str(why).startswith("video-03.mp4: missing")
    mine.rename(tmp_path / "unmounted")
    assert make_if_fit(proof, make_part, task)[0] == "ill"
    with pytest.raises(DataError, match="it does not see the source"):
        make_part(task)
    (tmp_path / "unmounted").rename(mine)
    assert not list(Path(work.path).iterdir())
    assert make_part(ShardTask(work.url, 0, "", 0, 3, 0, job)) == len(files), "the last attempt takes it as it is"
    assert [path.name for path in Path(work.path).iterdir()] == [part_name(0)]
    other = job._replace(model=(model[0], "of another"))
    with pytest.raises(DataError, match="holds another model here"):
        make_part(ShardTask(work.url, 0, "", 1, 1, 0, other))
