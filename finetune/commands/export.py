"""A model of ours for others: `stillreel export CHECKPOINT OUT`.

    OUT/model.safetensors, config.json   the whole model, by our names
    OUT/towers/                          the CLIP inside

The towers are laid out as open_clip reads them (`local-dir:OUT/towers`), or as HF's CLIPModel does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from stillreel.configs.exchange import ExportSettings
from stillreel.configs.system.storage import Folder
from stillreel.pretrain.model.adapter import AnyClip, Towers, preprocess_of
from stillreel.pretrain.model.checkpoint import check_free, in_json, publish_tensors, save_model
from stillreel.pretrain.model.clip_files import hub_config, hub_state
from stillreel.pretrain.model.other_files import siglip_config
from stillreel.pretrain.model.towers import model_cfg_of
from stillreel.pretrain.run.opening import describe, open_model


def run(checkpoint: str, out: str, settings: ExportSettings) -> int:
    """Write OUT. RequestError where there is no CHECKPOINT."""
    folder = Folder(out)
    check_free(folder)
    model = open_model(checkpoint, settings.pretrained)
    save_model(model, folder, {"file": checkpoint, "frames": describe(checkpoint).frames})
    print(f"{folder.url}: the whole model, model.safetensors and config.json")
    if settings.towers == "none":
        return 0
    towers = folder.within("towers")
    if settings.towers == "open_clip":
        _write_open_clip(model.clip, towers, settings.dtype)
        print(f"{towers.url}: the towers; open_clip.create_model_and_transforms('local-dir:{towers.path}')")
    else:
        _write_hub(model.clip, towers, settings.dtype)
        kind = "SiglipModel" if isinstance(model.clip, AnyClip) else "CLIPModel"
        print(f"{towers.url}: the towers; transformers.{kind}.from_pretrained('{towers.path}')")
    left = len(model.state_dict()) - len(model.clip.state_dict())
    if left:
        print(f"the towers leave out {left} tensors of the video model: its temporal module and head")
    return 0


def _write_open_clip(clip: Towers, folder: Folder, dtype: str) -> None:
    told = preprocess_of(clip)
    preprocess = {key: told[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    cfg = model_cfg_of(clip) | ({"custom_text": True} if isinstance(clip, AnyClip) else {})
    config = {"model_cfg": cfg, "preprocess_cfg": preprocess}
    _publish(folder, "open_clip_model.safetensors", clip.state_dict(), dtype, "open_clip_config.json", config)


def _write_hub(clip: Towers, folder: Folder, dtype: str) -> None:
    config = siglip_config(clip) if isinstance(clip, AnyClip) else hub_config(model_cfg_of(clip))
    _publish(folder, "model.safetensors", hub_state(clip.state_dict()), dtype, "config.json", config)


def _publish(
    folder: Folder, weights: str, state: Mapping[str, Any], dtype: str, config_name: str, config: Mapping[str, Any]
) -> None:
    tensors = {name: tensor.detach().to(getattr(torch, dtype)).contiguous() for name, tensor in state.items()}
    publish_tensors(folder, weights, tensors)
    folder.publish(config_name, in_json(config))
