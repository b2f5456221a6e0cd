"""A model of ours for others: `stillreel export CHECKPOINT OUT`.

    OUT/model.safetensors, config.json   the whole model, by our names
    OUT/towers/                          the CLIP inside

The towers are laid out as open_clip reads them (`local-dir:OUT/towers`), or as HF's CLIPModel does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP

from stillreel.configs.exchange import ExportSettings
from stillreel.configs.system.storage import Folder
from stillreel.pretrain.model.checkpoint import check_free, in_json, load_model, publish_tensors, save_model
from stillreel.pretrain.model.clip_files import hub_config, hub_state
from stillreel.pretrain.model.towers import model_cfg_of


def run(checkpoint: str, out: str, settings: ExportSettings) -> int:
    """Write OUT. RequestError when CHECKPOINT is none of ours."""
    folder = Folder(out)
    check_free(folder)
    model = load_model(checkpoint)
    save_model(model, folder, {"file": checkpoint})
    print(f"{folder.url}: the whole model, model.safetensors and config.json")
    if settings.towers == "none":
        return 0
    towers = folder.within("towers")
    if settings.towers == "open_clip":
        _write_open_clip(model.clip, towers, settings.dtype)
        print(f"{towers.url}: the towers; open_clip.create_model_and_transforms('local-dir:{towers.path}')")
    else:
        _write_hub(model.clip, towers, settings.dtype)
        print(f"{towers.url}: the towers; transformers.CLIPModel.from_pretrained('{towers.path}')")
    left = len(model.state_dict()) - len(model.clip.state_dict())
    if left:
        print(f"the towers leave out {left} tensors of the video model: its temporal module and head")
    return 0


def _write_open_clip(clip: CLIP, folder: Folder, dtype: str) -> None:
    preprocess = {
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"model_cfg": model_cfg_of(clip), "preprocess_cfg": preprocess}
    _publish(folder, "open_clip_model.safetensors", clip.state_dict(), dtype, "open_clip_config.json", config)


def _write_hub(clip: CLIP, folder: Folder, dtype: str) -> None:
    config = hub_config(model_cfg_of(clip))
    _publish(folder, "model.safetensors", hub_state(clip.state_dict()), dtype, "config.json", config)


def _publish(
    folder: Folder, weights: str, state: Mapping[str, Any], dtype: str, config_name: str, config: Mapping[str, Any]
) -> None:
    tensors = {name: tensor.detach().to(getattr(torch, dtype)).contiguous() for name, tensor in state.items()}
    publish_tensors(folder, weights, tensors)
    folder.publish(config_name, in_json(config))
