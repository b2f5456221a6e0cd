"""Towers with weights: a name and a tag that open_clip knows, or a file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP

from stillreel.configs import DataError, RequestError
from stillreel.configs.model import TowerSettings
from stillreel.pretrain.model.clip_files import ClipCheckpoint, read_clip
from stillreel.pretrain.model.files import FORMAT, Checkpoint, read_checkpoint
from stillreel.pretrain.model.keys import check_shapes
from stillreel.pretrain.model.towers import TINY, build_towers, check_architecture


def load_towers(settings: TowerSettings) -> CLIP:
    """The CLIP that is asked for, in fp32 on the CPU.

    Weights that were trained with QuickGELU get it, whether the name says so or not. Raises RequestError for an unknown name
    or architecture or for weights that are not there, and DataError for a file whose tensors are not those of the name.
    """
    name, pretrained = settings.name, settings.pretrained
    scheme, _, rest = name.rpartition(":")
    try:
        if scheme == "local-dir":
            return _from_file(Path(rest), None)
        if scheme:
            return _from_open_clip(name, None, quick_gelu=False)
        model_cfg = named_cfg(name)
        with torch.device("meta"):
            build_towers(model_cfg)  # refused before anything large is made or downloaded
        if not pretrained:
            return build_towers(model_cfg)
        if Path(pretrained).exists():
            return _from_file(Path(pretrained), model_cfg)
        return _tagged(name, pretrained)
    except RequestError as error:
        raise RequestError(f"towers.name={name} towers.pretrained={pretrained}: {error}") from None
    except DataError as error:
        raise DataError(f"towers.name={name} towers.pretrained={pretrained}: {error}") from None


def named_cfg(name: str) -> dict[str, Any]:
    """The open_clip configuration of a name of its list, or of `tiny`. RequestError for an unknown name."""
    if name == "tiny":
        return TINY.model_cfg()
    known = open_clip.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, [one for one in known if one.startswith("ViT-")], n=3, cutoff=0.0)
        raise RequestError(f"open_clip knows no such model; the nearest are {', '.join(near)}")
    return dict(open_clip.get_model_config(name))


def _tagged(name: str, tag: str) -> CLIP:
    known = open_clip.list_pretrained_tags_by_model(name)
    if tag not in known:
        tags = f"one of its tags, {', '.join(known)}" if known else "a tag: it has none"
        raise RequestError(f"{tag} is neither a file nor {tags}")
    return _from_open_clip(name, tag, quick_gelu=bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu")))


def _from_open_clip(name: str, tag: str | None, *, quick_gelu: bool) -> CLIP:
    try:
        clip = open_clip.create_model(name, tag, force_quick_gelu=quick_gelu)
    except (RuntimeError, ValueError, OSError) as error:
        raise RequestError(f"open_clip cannot load it: {error}") from None
    check_architecture(clip)
    return clip


def _from_file(path: Path, model_cfg: dict[str, Any] | None) -> CLIP:
    """A file of OpenAI's, open_clip's or the hub's, or the towers of a model of ours; sizes must be those of `model_cfg`, where
    there is one."""
    checkpoint = read_checkpoint(path)
    found = _own_towers(checkpoint) if checkpoint.config.get("format") == FORMAT else read_clip(checkpoint)
    quick_gelu = found.model_cfg["quick_gelu"]
    if model_cfg is not None:
        quick_gelu = quick_gelu or model_cfg.get("quick_gelu", False)
    clip = build_towers((found.model_cfg if model_cfg is None else model_cfg) | {"quick_gelu": quick_gelu})
    check_shapes(
        {name: tuple(tensor.shape) for name, tensor in found.state.items()},
        {name: tuple(tensor.shape) for name, tensor in clip.state_dict().items()},
    )
    clip.load_state_dict(found.state)
    return clip


def _own_towers(checkpoint: Checkpoint) -> ClipCheckpoint:
    """Of a model of ours, whose other parts are left."""
    state = {
        name.removeprefix("clip."): tensor for name, tensor in checkpoint.tensors.items() if name.startswith("clip.")
    }
    return ClipCheckpoint(state, checkpoint.config["towers"], ())
