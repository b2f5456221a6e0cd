"""Towers with weights: a name and a tag that open_clip knows, or a file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import download_pretrained, download_pretrained_from_hf

from stillreel.configs import DataError, RequestError
from stillreel.configs.model import TowerSettings
from stillreel.pretrain.model.adapter import Towers, is_openais, plain_cfg, preprocess_named, preprocess_of_tag
from stillreel.pretrain.model.clip_files import ClipCheckpoint, read_clip
from stillreel.pretrain.model.files import FORMAT, Checkpoint, config_beside, read_checkpoint
from stillreel.pretrain.model.towers import TINY, build_towers


def load_towers(settings: TowerSettings) -> Towers:
    """The CLIP that is asked for, in fp32 on the CPU.

    Weights that were trained with QuickGELU get it, whether the name says so or not. Raises RequestError for an unknown name
    or for weights that are not there, and DataError for a file whose tensors are not those of the name.
    """
    name, pretrained = settings.name, settings.pretrained
    scheme, _, rest = name.rpartition(":")
    try:
        if scheme == "local-dir":
            return _from_file(read_checkpoint(Path(rest)), None)
        if scheme:
            return _from_file(read_checkpoint(_fetched_folder(name, rest)), None)
        model_cfg = named_cfg(name)
        if not pretrained:
            return build_towers(model_cfg, preprocess_named(name))
        if Path(pretrained).exists():
            # Of towers whose sizes and activation the tensors tell, those of the name are refused before they are built.
            return _from_file(read_checkpoint(Path(pretrained)), model_cfg, preprocess_named(name))
        return _tagged(name, pretrained, model_cfg)
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
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        raise RequestError(f"open_clip knows no such model; the nearest are {', '.join(near)}")
    return plain_cfg(open_clip.get_model_config(name))


def preprocess_asked(settings: TowerSettings) -> dict[str, Any]:
    """How pixels are prepared for towers by open_clip's name, as `load_towers` keeps it: by the weights' tag, by what lies beside
    their file, or as all weights of the name have it; {} is OpenAI's way."""
    name, pretrained = settings.name, settings.pretrained
    if pretrained in open_clip.list_pretrained_tags_by_model(name):
        return preprocess_of_tag(name, pretrained)
    beside = config_beside(Path(pretrained)) if pretrained else {}
    told = beside.get("preprocess" if beside.get("format") == FORMAT else "preprocess_cfg")
    return dict(told) if isinstance(told, dict) and told else preprocess_named(name)


def _tagged(name: str, tag: str, model_cfg: dict[str, Any]) -> Towers:
    known = open_clip.list_pretrained_tags_by_model(name)
    if tag not in known:
        tags = f"one of its tags, {', '.join(known)}" if known else "a tag: it has none"
        raise RequestError(f"{tag} is neither a file nor {tags}")
    cfg = open_clip.get_pretrained_cfg(name, tag)
    try:
        file = download_pretrained(cfg)
    except Exception as error:  # of a network, in as many ways as its libraries have
        hub, url = cfg.get("hf_hub", "").rstrip("/"), cfg.get("url", "")
        what = f"open_clip_model.safetensors of the hub's {hub}" if hub else url
        raise RequestError(
            f"its weights, {what}, are not here and cannot be fetched ({_first_line(error).partition('. ')[0]}); put that file "
            "on this machine, and give its path in place of the tag, as pretrained="
        ) from None
    if cfg.get("quick_gelu"):
        model_cfg = model_cfg | {"quick_gelu": True}
    return _from_file(read_checkpoint(file), model_cfg, preprocess_of_tag(name, tag))


def _fetched_folder(name: str, repository: str) -> Path:
    """The folder of the hub's cache that has a repository's configuration and weights."""
    try:
        config = download_pretrained_from_hf(repository, filename="open_clip_config.json")
        download_pretrained_from_hf(repository)
    except Exception as error:  # of a network, in as many ways as its libraries have
        raise RequestError(f"{name} is not here and cannot be fetched: {_first_line(error)}") from None
    return Path(config).parent


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _from_file(
    checkpoint: Checkpoint, model_cfg: dict[str, Any] | None, preprocess: dict[str, Any] | None = None
) -> Towers:
    """A file of OpenAI's, open_clip's or the hub's, or the towers of a model of ours; sizes must be those of `model_cfg`, where
    there is one."""
    if checkpoint.config.get("format") == FORMAT:
        found = _own_towers(checkpoint)
    else:
        found = read_clip(checkpoint, model_cfg=None if model_cfg is None or is_openais(model_cfg) else model_cfg)
    cfg = found.model_cfg
    if model_cfg is not None:
        quick_gelu = bool(cfg.get("quick_gelu") or model_cfg.get("quick_gelu"))
        cfg = model_cfg | ({"quick_gelu": quick_gelu} if is_openais(model_cfg) else {})
    return found._replace(model_cfg=cfg, preprocess=found.preprocess or preprocess or {}).build()


def _own_towers(checkpoint: Checkpoint) -> ClipCheckpoint:
    """Of a model of ours, whose other parts are left."""
    state = {
        name.removeprefix("clip."): tensor for name, tensor in checkpoint.tensors.items() if name.startswith("clip.")
    }
    return ClipCheckpoint(state, checkpoint.config["towers"], (), checkpoint.config.get("preprocess") or {})
