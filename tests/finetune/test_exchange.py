"""Checkpoint exchange: peers' files come in strictly, ours go out to open_clip and HF, and every key is accounted for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from stillreel.cli import main
from stillreel.configs import DataError, RequestError
from stillreel.configs.exchange import ExportSettings, ImportSettings
from stillreel.configs.system.storage import Folder
from stillreel.finetune.commands import export, import_checkpoint
from stillreel.pretrain.model import VideoTextModel, load_peer
from stillreel.pretrain.model.checkpoint import load_model, save_model
from stillreel.pretrain.model.clip_files import hub_config, hub_state
from stillreel.pretrain.model.towers import TINY, build_towers
from tests.making import SHARED, needs_shared
from tests.parity import Reference
from tests.pretrain import containers
from tests.pretrain.containers import WRITERS
from tests.pretrain.published import PUBLISHED, published
from tests.pretrain.zoo import inputs, shaken


def assert_same_model(found: VideoTextModel, model: VideoTextModel) -> None:
    """The same tensors to the bit, and the same scores."""
    state, expected = found.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    unused = {"clip.logit_scale"} if model.settings.temperature else set()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items() if name not in unused)
    batch = inputs()
    assert torch.equal(found.score(*batch), model.score(*batch))


def import_file(file: Path, out: Path, **settings: object) -> VideoTextModel:
    assert import_checkpoint.run(str(file), str(out), ImportSettings.resolve(settings)) == 0
    return load_model(out)


@pytest.mark.parametrize("container", WRITERS)
def test_a_peer_loads_from_every_container(container: str, tmp_path: Path) -> None:
    model, state = published("CLIP2Video")
    path = WRITERS[container](tmp_path / "file", state)
    assert_same_model(load_peer(path), model)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_peer_is_imported_to_the_bit(name: str, tmp_path: Path) -> None:
    model, state = published(name)
    write = containers.write_mmengine if name.startswith("STAN") else containers.write_torch
    path = write(tmp_path / "best.pth", state)
    assert_same_model(import_file(path, tmp_path / "out"), model)


@needs_shared
@pytest.mark.parametrize(
    ("kind", "container"),
    [
        ("clip4clip_seqLSTM", "legacy"),
        ("clip4clip_tightTransf", "training"),
        ("clip2video_full", "torch"),
        ("stan_retrieval", "mmengine"),
        ("mugstan_retrieval", "safetensors"),
    ],
)
def test_a_published_file_scores_as_published_once_imported(kind: str, container: str, tmp_path: Path) -> None:
    reference = Reference(SHARED / "reference" / kind / "open.npz")
    file = WRITERS[container](tmp_path / "file", reference.weights())
    model = import_file(file, tmp_path / "out", peer=reference.options("peer").model_dump())
    assert (reference.scores(model) - reference.arrays["out/sim"]).abs().max() <= 1e-5


def test_the_report_has_every_key_of_the_file_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, state = published("STAN")
    state["text_backbone.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    import_file(containers.write_mmengine(tmp_path / "best.pth", state), tmp_path / "out", peer={"temperature": 0.05})
    report = (tmp_path / "out" / "report.txt").read_text()
    given = [
        line.split()[1] for line in report.splitlines() if line.startswith(("kept", "renamed", "merged", "unused"))
    ]
    assert sorted(given) == sorted(state)
    said = capsys.readouterr().out
    for part in ("taken: its entry 'state_dict'", "left: 'meta', 'message_hub'", "position_ids", "temperature", "0.05"):
        assert part in said
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model"]["temperature"] == 0.05
    assert config["origin"]["settings"]["peer"]["temperature"] == 0.05
    assert config["towers"]["vision_cfg"]["width"] == 64


@pytest.mark.parametrize("publisher", ["OpenAI", "open_clip", "HF"])
def test_a_clip_alone_becomes_the_mean_over_frames(publisher: str, tmp_path: Path) -> None:
    model = shaken("mean")
    state = model.clip.state_dict()
    if publisher == "OpenAI":
        path = containers.write_torchscript(tmp_path / "ViT.pt", state)
    elif publisher == "HF":
        path = containers.write_sharded(tmp_path / "hub", hub_state(state), hub_config(TINY.model_cfg()))
    else:
        path = containers.write_training(tmp_path / "epoch_1.pt", state)
    told = {"quick_gelu": "yes"} if publisher == "open_clip" else {}
    assert_same_model(import_file(path, tmp_path / "out", **told), model)


def test_open_clip_loads_the_exported_towers(tmp_path: Path) -> None:
    model = shaken("stan")
    save_model(model, Folder(str(tmp_path / "ours")), {})
    assert export.run(str(tmp_path / "ours"), str(tmp_path / "out"), ExportSettings()) == 0
    clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out' / 'towers'}")
    clip.eval()
    frames, _, ids, _ = inputs(words=TINY.context_length)
    with torch.no_grad():
        assert torch.equal(clip.encode_image(frames[:, 0]), model.clip.encode_image(frames[:, 0]))
        assert torch.equal(clip.encode_text(ids), model.clip.encode_text(ids))
    assert "Normalize(mean=(0.48145466" in str(preprocess).replace("[", "(")
    assert_same_model(load_model(tmp_path / "out"), model)


@pytest.mark.parametrize("form", ["hf", "open_clip"])
def test_exported_towers_come_back(form: str, tmp_path: Path) -> None:
    model = shaken("mean")
    save_model(model, Folder(str(tmp_path / "ours")), {})
    export.run(str(tmp_path / "ours"), str(tmp_path / "out"), ExportSettings.resolve({"towers": form}))
    assert_same_model(import_file(tmp_path / "out" / "towers", tmp_path / "back"), model)


def test_half_precision_is_for_the_towers_only(tmp_path: Path) -> None:
    model = shaken("mean")
    save_model(model, Folder(str(tmp_path / "ours")), {})
    export.run(str(tmp_path / "ours"), str(tmp_path / "out"), ExportSettings(dtype="float16"))
    towers = load_file(tmp_path / "out" / "towers" / "open_clip_model.safetensors")
    assert {tensor.dtype for tensor in towers.values()} == {torch.float16}
    build_towers(TINY.model_cfg()).load_state_dict(towers, strict=True)
    assert_same_model(load_model(tmp_path / "out"), model)


def test_a_model_that_does_not_fit_its_config_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    save_model(shaken("mean"), Folder(str(folder)), {})
    state = load_file(folder / "model.safetensors")
    state["clip.ln_final.bias"] = torch.zeros(3)
    state["clip.extra"] = state.pop("clip.ln_final.weight")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(DataError) as error:
        load_model(folder)
    for part in (
        "missing: clip.ln_final.weight",
        "unexpected: clip.extra",
        "clip.ln_final.bias is (3,), expected (64,)",
    ):
        assert part in str(error.value)


def test_commands_say_what_is_wrong_with_a_request(tmp_path: Path) -> None:
    model, state = published("CLIP4Clip meanP")
    clip = containers.write_torch(tmp_path / "clip.pt", model.clip.state_dict())
    peer = containers.write_torch(tmp_path / "peer.pt", state)
    ours = tmp_path / "ours"
    import_file(peer, ours)
    for file, out, settings, message in (
        (peer, ours, {}, "holds a config.json already"),
        (ours, tmp_path / "new", {}, "is a model of stillreel's already"),
        (clip, tmp_path / "new", {"peer": {"temperature": 0.5}}, "is a CLIP alone"),
        (peer, tmp_path / "new", {"quick_gelu": "no"}, "is a video model"),
        (tmp_path / "none", tmp_path / "new", {}, "no such file"),
    ):
        with pytest.raises(RequestError, match=message):
            import_checkpoint.run(str(file), str(out), ImportSettings.resolve(settings))
    with pytest.raises(RequestError, match="no such file or folder, and no name of open_clip's"):
        export.run(str(tmp_path / "none"), str(tmp_path / "new"), ExportSettings())
    assert not (tmp_path / "new").exists()


class Trace:
    """Would touch a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_the_commands_from_the_front_door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, state = published("CLIP4Clip seqTransf")
    path = containers.write_torch(tmp_path / "pytorch_model.bin.2", state)
    assert main(["import-checkpoint", str(path), str(tmp_path / "ours")]) == 0
    assert "temporal=seq" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "theirs")]) == 0
    assert f"local-dir:{tmp_path / 'theirs' / 'towers'}" in capsys.readouterr().out
    torch.save({"state_dict": state, "extra": Trace(tmp_path / "trace")}, path)
    assert main(["import-checkpoint", str(path), str(tmp_path / "again")]) == 1
    assert "posix.system" in capsys.readouterr().err
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "again").exists()
