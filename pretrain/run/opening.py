"""The model that is meant, whatever a user names: a run, a checkpoint of one, a peer's file, a trainer's folder, a CLIP by name.

describe(name)       what it is, without its weights where it is one of ours or of open_clip's list
open_model(name)     it, on the CPU
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import open_clip

from stillreel.configs import DataError, RequestError
from stillreel.configs.model import ModelSettings, PeerOptions, TowerSettings
from stillreel.configs.system.claims import parse_json
from stillreel.pretrain.model import VideoTextModel, build_model, load_model, read_peer
from stillreel.pretrain.model.adapter import is_openais, preprocess_named, preprocess_of
from stillreel.pretrain.model.checkpoint import CONFIG
from stillreel.pretrain.model.clip_files import is_clip, is_image_tower, read_clip, read_image_tower
from stillreel.pretrain.model.files import FORMAT, Checkpoint, read_checkpoint
from stillreel.pretrain.model.keys import KeyLine
from stillreel.pretrain.model.pretrained import load_towers, named_cfg, preprocess_asked
from stillreel.pretrain.model.towers import model_cfg_of
from stillreel.pretrain.run.checkpoint import step_name, steps_in
from stillreel.pretrain.run.folder import CHECKPOINTS, FINAL

_SCHEMES = ("local-dir:", "hf-hub:")


class Described(NamedTuple):
    """A model without its weights: its settings, the towers and their pixels as open_clip has them, and the frames of the clips
    that it was trained on (0: nobody says)."""

    settings: ModelSettings
    towers: dict[str, Any]
    preprocess: dict[str, Any]
    frames: int = 0

    @property
    def size(self) -> int:
        """H = W of the frames that the towers read; 0 where they are not square."""
        size = self.towers["vision_cfg"].get("image_size", 224)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return int(height) if height == width else 0


class Foreign(NamedTuple):
    """Somebody else's checkpoint as a model of ours, and what became of each of its tensors."""

    model: VideoTextModel
    lines: Sequence[KeyLine]


def model_folder(path: str) -> str:
    """The folder of a model: PATH itself, or of a run's OUT its final one, or its latest checkpoint."""
    here = Path(path).expanduser()
    latest = [here / CHECKPOINTS / step_name(step) for step in steps_in(here / CHECKPOINTS)[-1:]]
    return str(next((one for one in (here, here / FINAL, *latest) if (one / CONFIG).is_file()), path))


def open_model(name: str, pretrained: str = "", peer: PeerOptions | None = None) -> VideoTextModel:
    """The model of a name, in evaluation mode on the CPU.

    `pretrained` are the weights of a CLIP by open_clip's name: its tag, or a file; `peer` is what a published file does not
    say. RequestError where nothing of that name is here, DataError where what is there is no model.
    """
    path = model_folder(name)
    if _config_of(path) is not None:
        return load_model(path)
    if Path(path).expanduser().exists():
        return read_foreign(path, read_checkpoint(path), peer=peer).model
    settings = ModelSettings(towers=TowerSettings(name=_known(name), pretrained=pretrained))
    if not pretrained and not name.startswith(_SCHEMES):
        raise RequestError(
            f"{name} is a CLIP by open_clip's name, and its weights are not named; give pretrained=, such as openai, or a file"
        )
    return build_model(settings).eval()


def describe(name: str, peer: PeerOptions | None = None, pretrained: str = "") -> Described:
    """What a name means, as `open_model` has it; reads weights only of what does not say what it is. RequestError where nothing
    of that name is here."""
    path = model_folder(name)
    config = _config_of(path)
    if config is not None:
        settings = ModelSettings.resolve({**config["model"], "towers": {"name": "inferred"}})
        frames = config.get("origin", {}).get("frames")
        frames = frames if isinstance(frames, int) else 0
        return Described(settings, config["towers"], config.get("preprocess") or {}, frames)
    if Path(path).expanduser().exists():
        model = read_foreign(path, read_checkpoint(path), peer=peer).model
        return Described(model.settings, model_cfg_of(model.clip), preprocess_of(model.clip))
    return describe_fresh(ModelSettings(towers=TowerSettings(name=_known(name), pretrained=pretrained)))


def describe_fresh(settings: ModelSettings) -> Described:
    """What `build_model` would make of settings."""
    name = settings.towers.name
    if name.startswith(_SCHEMES):
        clip = load_towers(settings.towers)
        return Described(settings, model_cfg_of(clip), preprocess_of(clip))
    return Described(settings, named_cfg(name), preprocess_asked(settings.towers))


def read_foreign(
    file: str,
    checkpoint: Checkpoint,
    *,
    peer: PeerOptions | None = None,
    quick_gelu: bool | None = None,
    base: TowerSettings | None = None,
) -> Foreign:
    """The model that somebody else's file is. `base` names the towers that a file of a CLIP's tensors cannot tell, or has the
    text tower for an image tower alone.

    RequestError for a model of ours.
    """
    if checkpoint.config.get("format") == FORMAT:
        raise RequestError(f"{file} is a model of stillreel's already; use it as it is, or export it")
    try:
        if is_clip(checkpoint.tensors):
            if peer not in (None, PeerOptions()):
                raise RequestError(f"peer.* is for CLIP4Clip, CLIP2Video and STAN, and {file} is a CLIP alone")
            return _read_clip(checkpoint, quick_gelu, base)
        if quick_gelu is not None:
            raise RequestError(
                f"quick_gelu is for CLIPs alone; {file} is a video model, and all published have QuickGELU"
            )
        return Foreign(*read_peer(checkpoint.tensors, peer))
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _read_clip(checkpoint: Checkpoint, quick_gelu: bool | None, base: TowerSettings | None) -> Foreign:
    if is_image_tower(checkpoint.tensors):
        if base is None or not base.pretrained:
            raise RequestError(
                "it is an image tower alone; `stillreel import-checkpoint FILE OUT towers=NAME pretrained=TAG` puts it into a "
                "CLIP that has a text tower"
            )
        clip = read_image_tower(checkpoint, load_towers(base), f"{base.name} {base.pretrained}")
    else:
        other = None if base is None or is_openais(named_cfg(base.name)) else named_cfg(base.name)
        clip = read_clip(checkpoint, quick_gelu=quick_gelu, model_cfg=other)
        if base is not None and not clip.preprocess:
            clip = clip._replace(preprocess=preprocess_named(base.name))
    mean = ModelSettings(towers=TowerSettings(name="inferred"))
    return Foreign(VideoTextModel(clip.build(), mean).eval(), clip.lines)


def is_ours(name: str) -> bool:
    """Whether a name is a model of stillreel's, or a run's that has one."""
    return _config_of(model_folder(name)) is not None


def origin_in(path: str) -> dict[str, Any]:
    """Where a model of ours is from, as its configuration says."""
    return dict((_config_of(path) or {}).get("origin", {}))


def _known(name: str) -> str:
    """A name of open_clip's, as it is. RequestError for any other, which is no path either."""
    if name == "tiny" or name.startswith(_SCHEMES) or name in open_clip.list_models():
        return name
    near = difflib.get_close_matches(name, open_clip.list_models(), n=2)
    also = f" (near it: {', '.join(near)})" if near else ""
    raise RequestError(
        f"{name}: no such file or folder, and no name of open_clip's{also}; expected the OUT of a run, a checkpoint, somebody "
        "else's file, or a CLIP such as ViT-B-32 with pretrained=openai"
    )


def _config_of(path: str) -> dict[str, Any] | None:
    """The configuration of a model of ours; None where there is none."""
    try:
        config = parse_json((Path(path).expanduser() / CONFIG).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise DataError(f"{path}/{CONFIG} is cut off or no JSON") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        return None
    if not isinstance(config.get("model"), dict) or not isinstance(config.get("towers"), dict):
        raise DataError(f"{path}/{CONFIG} lacks model or towers")
    return config
