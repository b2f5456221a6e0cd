"""A model of ours on the disk: FOLDER/model.safetensors, and FOLDER/config.json, which says what it is and where it is from.

The config is published last, so a folder that has one is whole. It holds the sizes of the towers, so that a model loads
without open_clip's lists or anybody's network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from stillreel import __version__
from stillreel.configs import DataError, RequestError
from stillreel.configs.model import ModelSettings
from stillreel.configs.system.storage import Folder
from stillreel.pretrain.model.adapter import is_openais, preprocess_of
from stillreel.pretrain.model.files import FORMAT, read_checkpoint
from stillreel.pretrain.model.keys import check_shapes
from stillreel.pretrain.model.model import VideoTextModel, assign_tensors
from stillreel.pretrain.model.towers import build_towers, model_cfg_of

SCHEMA_VERSION = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_model(
    model: VideoTextModel, folder: Folder, origin: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Write a model's tensors and configuration; `origin` says where they are from. RequestError when one lies there.

    `tensors` are written in place of the model's own: of one that lies in shards over the ranks, or their average.
    """
    check_free(folder)
    publish_tensors(folder, WEIGHTS, model.state_dict() if tensors is None else tensors)
    publish_config(model, folder, origin)


def publish_config(model: VideoTextModel, folder: Folder, origin: Mapping[str, Any]) -> None:
    """What makes a folder with its tensors a model."""
    config = {
        "format": FORMAT,
        "schema": SCHEMA_VERSION,
        "stillreel": __version__,
        "model": model.settings.model_dump(mode="json", exclude={"towers"}),
        "towers": model_cfg_of(model.clip),
        "preprocess": preprocess_of(model.clip),
        "origin": dict(origin),
    }
    folder.publish(CONFIG, in_json(config))


def publish_tensors(folder: Folder, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Write safetensors whole or not at all."""
    with folder.draft(name) as draft:
        save_file(dict(tensors), draft.path, {"format": "pt"})
        draft.publish()


def check_free(folder: Folder) -> None:
    """RequestError when the folder holds a model already: nothing is ever overwritten."""
    if folder.exists(CONFIG):
        raise RequestError(f"{folder.url} holds a {CONFIG} already; give another folder")


def load_model(path: str | Path) -> VideoTextModel:
    """The model in a folder of `save_model`, in evaluation mode on the CPU.

    RequestError when the folder holds none of ours; DataError for every missing, unexpected or wrong-shaped tensor.
    """
    found = read_checkpoint(path)
    config = found.config
    if config.get("format") != FORMAT:
        raise RequestError(f"{path} is no model of stillreel's; `stillreel import-checkpoint {path} OUT` makes it one")
    if config.get("schema") != SCHEMA_VERSION:
        raise DataError(f"{path} has model schema {config.get('schema')}; this stillreel reads {SCHEMA_VERSION}")
    if not isinstance(config.get("model"), dict) or not isinstance(config.get("towers"), dict):
        raise DataError(f"{path}: its {CONFIG} lacks model or towers")
    settings = ModelSettings.resolve({**config["model"], "towers": {"name": "inferred"}})
    # No file has the buffers of other towers than OpenAI's, so these are built with them.
    with torch.device("meta" if is_openais(config["towers"]) else "cpu"):
        model = VideoTextModel(build_towers(config["towers"], config.get("preprocess") or {}), settings)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        check_shapes({name: tuple(tensor.shape) for name, tensor in found.tensors.items()}, expected)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    assign_tensors(model, found.tensors)
    return model


def in_json(value: Mapping[str, Any]) -> bytes:
    """JSON for people."""
    return (json.dumps(value, indent=1) + "\n").encode()
