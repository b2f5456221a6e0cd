"""One function opens a model, whatever is named: a run, its parts, a trainer's or a peer's file, a CLIP by open_clip's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from stillreel.cli import main
from stillreel.configs import RequestError
from stillreel.configs.exchange import ImportSettings
from stillreel.configs.model import TowerSettings
from stillreel.configs.system.storage import Folder
from stillreel.finetune.commands import import_checkpoint
from stillreel.finetune.search.store import open_index
from stillreel.pretrain.model import load_model
from stillreel.pretrain.model.clip_files import hub_config, hub_state
from stillreel.pretrain.model.pretrained import load_towers, named_cfg
from stillreel.pretrain.run.opening import describe, open_model
from tests.finetune.search.making import write_videos
from tests.pretrain import containers
from tests.pretrain.published import published
from tests.pretrain.trainer import words_of
from tests.pretrain.zoo import shaken
from tests.streaming import write_set

SHORT = {"steps": 2, "workers": 0, "save_every": 1, "optimizer__warmup_steps": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("opening") / "clips", [9, 7])


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    assert main(words_of(data, data.parent / "run", **SHORT)) == 0
    return data.parent / "run"


@pytest.mark.parametrize("part", ["", "final", "checkpoints/step-00000001"])
def test_a_run_and_its_parts_say_their_frames_and_size(part: str, run: Path) -> None:
    settings = json.loads((run / "run.json").read_text())["settings"]
    described = describe(str(run / part))
    assert (described.frames, described.size) == (settings["frames"], 64)
    assert open_model(str(run / part)).settings == described.settings


def test_a_run_starts_from_another_by_its_folder(data: Path, run: Path, tmp_path: Path) -> None:
    assert main(words_of(data, tmp_path / "on", **SHORT, init=run)) == 0


def test_an_index_takes_frames_and_size_from_a_run(run: Path, tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "videos", 2)
    assert main(["index", str(videos), str(tmp_path / "index"), f"checkpoint={run}"]) == 0
    told = open_index(Folder(str(tmp_path / "index"))).manifest["settings"]
    assert (told["frames"], told["size"]) == (describe(str(run)).frames, 64)


def test_an_index_by_a_peers_file_has_its_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = write_videos(tmp_path / "videos", 2)
    peer = containers.write_torch(tmp_path / "peer.pt", published("CLIP4Clip seqTransf")[1])
    for _ in range(2):
        assert main(["index", str(videos), str(tmp_path / "index"), f"checkpoint={peer}", "frames=3"]) == 0
    assert "2 known, 0 to index" in capsys.readouterr().out
    assert main(["search", str(tmp_path / "index"), "a dog"]) == 0
    assert load_model(tmp_path / "index" / "model").settings.temporal == "seq"


def test_export_and_doctor_take_a_peers_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = containers.write_torch(tmp_path / "peer.pt", published("CLIP4Clip meanP")[1])
    assert main(["export", str(peer), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "towers" / "open_clip_config.json").is_file()
    assert main(["doctor", f"model={peer}", "measure=false"]) == 0
    assert "GFLOP a clip" in capsys.readouterr().out


def test_a_name_that_is_nothing_is_refused_with_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no such file or folder, and no name of open_clip's \(near it: ViT-B-32"):
        open_model("ViT-B-33")
    with pytest.raises(RequestError, match=r"its weights are not named; give pretrained="):
        open_model("ViT-B-32")


def test_weights_that_cannot_be_fetched_are_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        RequestError,
        match=r"open_clip_model\.safetensors of the hub's .* not here and cannot be fetched.*give its path",
    ):
        open_model("ViT-B-32-quickgelu", "openai")


@pytest.mark.parametrize("form", ["open_clip", "bare", "hf"])
def test_an_image_tower_alone_is_put_into_a_clip(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base, other = shaken("mean").clip, load_towers(TowerSettings(name="tiny"))
    torch.save(other.state_dict(), tmp_path / "base.pt")
    state = {name: one for name, one in base.state_dict().items() if name.startswith("visual.")}
    if form == "hf":
        named = hub_state(base.state_dict())
        vision = {name: one for name, one in named.items() if name.startswith(("vision_model.", "visual_projection."))}
        file = containers.write_sharded(tmp_path / "vision", vision, hub_config(named_cfg("tiny")))
    else:
        bare = {name.removeprefix("visual."): one for name, one in state.items()}
        file = containers.write_torch(tmp_path / "vision.pt", bare if form == "bare" else state)
    with pytest.raises(RequestError, match="it is an image tower alone"):
        import_checkpoint.run(str(file), str(tmp_path / "out"), ImportSettings())
    settings = ImportSettings(towers="tiny", pretrained=str(tmp_path / "base.pt"))
    assert import_checkpoint.run(str(file), str(tmp_path / "out"), settings) == 0
    found = load_model(tmp_path / "out").clip.state_dict()
    expected = other.state_dict() | state
    assert all(torch.equal(found[name], expected[name]) for name in found)
