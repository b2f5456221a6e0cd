"""CLIP's checkpoints: OpenAI's, open_clip's and the HF hub's into the state dict of open_clip's towers, and back.

The names of the first two are the same (open_clip kept OpenAI's, and puts a custom text tower's under `text.`); the hub's
differ in every one, have query, key and value apart, and the two projections transposed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import open_clip
import torch
from torch import Tensor

from configs import DataError
from pretrain.model.files import Checkpoint
from pretrain.model.keys import Fate, KeyLine, check_shapes, list_some
from pretrain.model.towers import build_towers, count_blocks, infer_sizes, model_cfg_of

# In checkpoints, and computed from sizes: OpenAI's three numbers, the causal mask, the positions 0, 1, 2, ...
_COMPUTED = re.compile(r"(input_resolution|context_length|vocab_size|(.*\.)?attn_mask|(.*\.)?position_ids)")
_CUSTOM_TEXT = "text."


class ClipCheckpoint(NamedTuple):
    """Towers read from a file: fp32 tensors by open_clip's names, its configuration of them, and what became of each key."""

    state: dict[str, Tensor]
    model_cfg: dict[str, Any]
    lines: tuple[KeyLine, ...]


class _Pair(NamedTuple):
    """A tensor by OpenAI's name, and the hub's that it is made of."""

    openai: str
    hub: tuple[str, ...]
    transposed: bool = False


def is_clip(names: Mapping[str, object]) -> bool:
    """Whether a state dict is a CLIP's alone, by the names in it."""
    return "visual.conv1.weight" in names or "vision_model.embeddings.patch_embedding.weight" in names


def read_clip(checkpoint: Checkpoint, *, quick_gelu: bool | None = None) -> ClipCheckpoint:
    """The towers of a checkpoint, every key accounted for.

    `quick_gelu` None takes what tells it: the configuration beside the file, or that it is OpenAI's; else open_clip's
    default, GELU. DataError lists the tensors that are missing, too many, or of another shape than the others imply.
    """
    given = {name: tensor for name, tensor in checkpoint.tensors.items() if not _COMPUTED.fullmatch(name)}
    lines = [KeyLine("unused", name, "", "computed from sizes") for name in checkpoint.tensors if name not in given]
    from_hub = any(name.startswith("vision_model.") for name in given)
    state, renamed = _from_hub(given) if from_hub else _from_open_clip(given)
    if quick_gelu is None:
        of_openai = checkpoint.container == "TorchScript" or "input_resolution" in checkpoint.tensors
        quick_gelu = _told_activation(checkpoint.config, from_hub=from_hub, of_openai=of_openai)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    with torch.device("meta"):
        towers = build_towers(_model_cfg(shapes, checkpoint.config, quick_gelu=quick_gelu))
    expected = {name: tuple(tensor.shape) for name, tensor in towers.state_dict().items()}
    check_shapes(shapes, expected)
    tensors = {name: state[name].float() for name in expected}
    return ClipCheckpoint(tensors, model_cfg_of(towers), (*renamed, *lines))


def hub_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of open_clip's towers by the names of HF's `CLIPModel`."""
    tensors: dict[str, Tensor] = {}
    for pair in _pairs(state):
        whole = state[pair.openai].T if pair.transposed else state[pair.openai]
        parts = whole.chunk(len(pair.hub)) if len(pair.hub) > 1 else (whole,)
        tensors.update(zip(pair.hub, (part.contiguous() for part in parts), strict=True))
    return tensors


def hub_config(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json that HF's `CLIPModel` needs beside `hub_state`."""
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    activation = "quick_gelu" if model_cfg.get("quick_gelu") else "gelu"

    def tower(cfg: Mapping[str, Any], heads: int) -> dict[str, Any]:
        return {
            "hidden_size": cfg["width"],
            "intermediate_size": int(cfg["width"] * cfg.get("mlp_ratio", 4.0)),
            "num_hidden_layers": cfg["layers"],
            "num_attention_heads": heads,
            "hidden_act": activation,
            "projection_dim": model_cfg["embed_dim"],
        }

    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": model_cfg["embed_dim"],
        "vision_config": {
            **tower(vision, vision["width"] // vision.get("head_width", 64)),
            "model_type": "clip_vision_model",
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
        },
        "text_config": {
            **tower(text, text["heads"]),
            "model_type": "clip_text_model",
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["context_length"],
            # CLIP reads a caption at its end-of-text token, by its own vocabulary the last id.
            "bos_token_id": text["vocab_size"] - 2,
            "eos_token_id": text["vocab_size"] - 1,
        },
    }


def _from_open_clip(given: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[KeyLine]]:
    state: dict[str, Tensor] = {}
    lines = []
    for name, tensor in given.items():
        bare = name.removeprefix(_CUSTOM_TEXT)
        state[bare] = tensor
        lines.append(KeyLine("kept" if bare == name else "renamed", name, bare))
    return state, lines


def _from_hub(given: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[KeyLine]]:
    pairs = list(_pairs(given))
    known = {name for pair in pairs for name in pair.hub}
    missing, extra = known - given.keys(), given.keys() - known
    if missing or extra:
        raise DataError(
            "not the CLIPModel of HF that its names say: "
            + list_some(missing=sorted(missing), unexpected=sorted(extra))
        )
    state: dict[str, Tensor] = {}
    lines = []
    for pair in pairs:
        parts = [given[name] for name in pair.hub]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        state[pair.openai] = whole.T.contiguous() if pair.transposed else whole
        what: Fate = "merged" if len(parts) > 1 else "kept" if pair.hub == (pair.openai,) else "renamed"
        lines.append(KeyLine(what, " ".join(pair.hub), pair.openai, "transposed" if pair.transposed else ""))
    return state, lines


def _pairs(names: Mapping[str, object]) -> Iterator[_Pair]:
    """Every tensor of a CLIP with as many blocks as `names`, by either's names, has."""
    yield _Pair("logit_scale", ("logit_scale",))
    yield _Pair("visual.class_embedding", ("vision_model.embeddings.class_embedding",))
    yield _Pair("visual.conv1.weight", ("vision_model.embeddings.patch_embedding.weight",))
    yield _Pair("visual.positional_embedding", ("vision_model.embeddings.position_embedding.weight",))
    yield _Pair("visual.proj", ("visual_projection.weight",), transposed=True)
    yield _Pair("token_embedding.weight", ("text_model.embeddings.token_embedding.weight",))
    yield _Pair("positional_embedding", ("text_model.embeddings.position_embedding.weight",))
    yield _Pair("text_projection", ("text_projection.weight",), transposed=True)
    yield from _twins("visual.ln_pre", "vision_model.pre_layrnorm")  # spelt so
    yield from _twins("visual.ln_post", "vision_model.post_layernorm")
    yield from _twins("ln_final", "text_model.final_layer_norm")
    for openai, hub in (
        ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
        ("transformer.resblocks.", "text_model.encoder.layers."),
    ):
        for block in range(max(count_blocks(names, openai), count_blocks(names, hub))):
            yield from _block_pairs(f"{openai}{block}", f"{hub}{block}")


def _block_pairs(openai: str, hub: str) -> Iterator[_Pair]:
    for part in ("weight", "bias"):
        apart = tuple(f"{hub}.self_attn.{letter}_proj.{part}" for letter in "qkv")
        yield _Pair(f"{openai}.attn.in_proj_{part}", apart)
    for one, other in (
        ("attn.out_proj", "self_attn.out_proj"),
        ("ln_1", "layer_norm1"),
        ("ln_2", "layer_norm2"),
        ("mlp.c_fc", "mlp.fc1"),
        ("mlp.c_proj", "mlp.fc2"),
    ):
        yield from _twins(f"{openai}.{one}", f"{hub}.{other}")


def _twins(openai: str, hub: str) -> Iterator[_Pair]:
    for part in ("weight", "bias"):
        yield _Pair(f"{openai}.{part}", (f"{hub}.{part}",))


def _told_activation(config: Mapping[str, Any], *, from_hub: bool, of_openai: bool) -> bool:
    """Whether the towers have QuickGELU, by what lies beside the tensors."""
    if "model_cfg" in config:
        return bool(config["model_cfg"].get("quick_gelu", False))
    if from_hub:
        # transformers leaves a configuration's defaults out, and QuickGELU is one.
        acts = {config.get(f"{tower}_config", {}).get("hidden_act", "quick_gelu") for tower in ("vision", "text")}
        if not acts <= {"quick_gelu", "gelu"} or len(acts) > 1:
            raise DataError(f"its config.json asks for {' and '.join(sorted(acts))}; expected quick_gelu or gelu")
        return acts == {"quick_gelu"}
    return of_openai


def _model_cfg(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], *, quick_gelu: bool) -> dict[str, Any]:
    """open_clip's configuration of the towers; heads, which no tensor tells, by what lies beside them."""
    sizes = infer_sizes(shapes, quick_gelu=quick_gelu)
    cfg = sizes.model_cfg()
    vision, text = cfg["vision_cfg"], cfg["text_cfg"]
    for tower, prefix in ((vision, "visual."), (text, "")):
        hidden = shapes.get(f"{prefix}transformer.resblocks.0.mlp.c_fc.weight", (4 * tower["width"],))[0]
        if hidden != 4 * tower["width"]:
            tower["mlp_ratio"] = (hidden + 0.5) / tower["width"]
    if "vision_config" in config:
        vision_heads = config["vision_config"].get("num_attention_heads", 12)  # transformers' own defaults
        vision["head_width"] = sizes.vision_width // vision_heads
        text["heads"] = config.get("text_config", {}).get("num_attention_heads", 8)
        return cfg
    twin = config.get("model_cfg") or _twin_in_open_clip(cfg)
    vision["head_width"] = twin.get("vision_cfg", {}).get("head_width", vision["head_width"])
    text["heads"] = twin.get("text_cfg", {}).get("heads", text["heads"])
    return cfg


def _twin_in_open_clip(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The model of open_clip's own list that has these sizes: ViT-H and its like have wider heads than 64."""

    def sizes(one: Mapping[str, Any]) -> tuple[object, ...]:
        vision, text = one["vision_cfg"], one["text_cfg"]
        width, patch, layers = (vision.get(key) for key in ("width", "patch_size", "layers"))
        return one["embed_dim"], width, patch, layers, text.get("width"), text.get("layers")

    for name in open_clip.list_models():
        known: dict[str, Any] = open_clip.get_model_config(name) or {}
        if known and name.startswith("ViT-") and sizes(known) == sizes(cfg):
            return known
    return {}
