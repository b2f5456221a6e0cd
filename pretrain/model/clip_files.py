"""CLIP's checkpoints: OpenAI's, open_clip's and the HF hub's into the state dict of open_clip's towers, and back.

The names of the first two are the same (open_clip kept OpenAI's, and puts a custom text tower's under `text.`); the hub's
differ in every one, have query, key and value apart, and the two projections transposed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import open_clip
import torch
from torch import Tensor

from stillreel.configs import DataError
from stillreel.pretrain.model.adapter import Towers, preprocess_of
from stillreel.pretrain.model.files import Checkpoint
from stillreel.pretrain.model.keys import KeyLine, check_shapes
from stillreel.pretrain.model.other_files import SIGLIP_PIXELS, other_cfg, read_other, siglip_places
from stillreel.pretrain.model.peers.keymap import Place, collect, place_in_hub_block
from stillreel.pretrain.model.towers import build_towers, count_blocks, infer_sizes, model_cfg_of

# In checkpoints, and computed from sizes: OpenAI's three numbers, the causal mask, the positions 0, 1, 2, ...
_COMPUTED = re.compile(r"(input_resolution|context_length|vocab_size|(.*\.)?attn_mask|(.*\.)?position_ids)")
_CUSTOM_TEXT = "text."
_OF_BLOCKS = ("attn.in_proj_", "attn.out_proj.", "ln_1.", "ln_2.", "mlp.c_fc.", "mlp.c_proj.")


class ClipCheckpoint(NamedTuple):
    """Towers read from a file: fp32 tensors by open_clip's names, its configuration of them and of their pixels, and what
    became of each key."""

    state: dict[str, Tensor]
    model_cfg: dict[str, Any]
    lines: tuple[KeyLine, ...]
    preprocess: dict[str, Any] = {}

    def build(self) -> Towers:
        """The towers with these weights, on the CPU. DataError where the tensors are not those of the configuration."""
        clip = build_towers(self.model_cfg, self.preprocess)
        check_shapes(
            {name: tuple(tensor.shape) for name, tensor in self.state.items()},
            {name: tuple(tensor.shape) for name, tensor in clip.state_dict().items()},
        )
        clip.load_state_dict(self.state, strict=True)
        return clip


def is_clip(names: Mapping[str, object]) -> bool:
    """Whether a state dict is a CLIP's alone, by the names in it."""
    return any(name.startswith(("visual.", "vision_model.", "image_encoder.")) for name in names) or is_image_tower(
        names
    )


def is_image_tower(names: Mapping[str, object]) -> bool:
    """Whether a state dict is an image tower alone: open_clip's, with or without the name that a CLIP has for it, or HF's."""
    if "conv1.weight" in names or all(name.startswith(("visual.", "trunk.", "head.")) for name in names):
        return bool(names)
    return all(name.startswith(("vision_model.", "visual_projection.")) for name in names)


def read_image_tower(checkpoint: Checkpoint, base: Towers, named: str) -> ClipCheckpoint:
    """The base's towers with the image tower of a file in place of its own, of which every tensor must be there."""
    state = dict(base.state_dict())
    expected = {name: tensor.shape for name, tensor in state.items() if name.startswith("visual.")}
    given = {name: tensor for name, tensor in checkpoint.tensors.items() if not _COMPUTED.fullmatch(name)}
    extras = [KeyLine("unused", name, "", "computed from sizes") for name in checkpoint.tensors if name not in given]
    if any(name.startswith("vision_model.") for name in given):
        places = dict(siglip_places(given) if "vision_model.head.probe" in given else _hub_places(given))
    else:
        places = {name: Place((name if name in given else name.removeprefix("visual."),)) for name in expected}
    found, lines = collect(given, expected, lambda name: places.get(name, Place((name,))), {})
    kept = KeyLine("initialized", "", f"the {len(state) - len(found)} other tensors", f"of {named}")
    return ClipCheckpoint(state | found, model_cfg_of(base), (*lines, *extras, kept), preprocess_of(base))


def read_clip(
    checkpoint: Checkpoint, *, quick_gelu: bool | None = None, model_cfg: Mapping[str, Any] | None = None
) -> ClipCheckpoint:
    """The towers of a checkpoint, every key accounted for.

    `quick_gelu` None takes what tells it: the configuration beside the file, or that it is OpenAI's; else open_clip's
    default, GELU. `model_cfg` is open_clip's configuration of towers that are not of OpenAI's architecture, where none lies
    beside the file. DataError lists the tensors that are missing, too many, or of another shape than the others imply.
    """
    preprocess = checkpoint.config.get("preprocess_cfg", {})
    if not isinstance(preprocess, dict):
        raise DataError("the preprocess_cfg beside it is no JSON object")
    given = {name: tensor for name, tensor in checkpoint.tensors.items() if not _COMPUTED.fullmatch(name)}
    extras = [KeyLine("unused", name, "", "computed from sizes") for name in checkpoint.tensors if name not in given]
    if model_cfg is None:
        model_cfg = other_cfg(given, checkpoint.config)
    if model_cfg is not None:
        state, lines = read_other(given, model_cfg)
        siglip = "vision_model.head.probe" in given
        return ClipCheckpoint(state, dict(model_cfg), (*lines, *extras), SIGLIP_PIXELS if siglip else preprocess)
    from_hub = any(name.startswith("vision_model.") for name in given)
    places = dict(_hub_places(given)) if from_hub else _own_places(given)
    shapes = {name: _shape(where, given) for name, where in places.items() if given.keys() >= set(where.names)}
    try:
        told = _told_activation(checkpoint, from_hub=from_hub) if quick_gelu is None else quick_gelu
        model_cfg = _model_cfg(shapes, checkpoint.config, quick_gelu=bool(told))
    except (AttributeError, KeyError, TypeError, ZeroDivisionError) as error:
        raise DataError(f"the configuration beside it describes no CLIP ({type(error).__name__}: {error})") from None
    if told is None:
        extras.append(KeyLine("initialized", "", "quick_gelu", "no: not in the file, nor beside it"))
    with torch.device("meta"):
        towers = build_towers(model_cfg)
    expected = {name: tensor.shape for name, tensor in towers.state_dict().items()}
    state, lines = collect(given, expected, lambda name: places.get(name, Place((name,))), {})
    return ClipCheckpoint(state, model_cfg_of(towers), (*lines, *extras), preprocess)


def hub_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of open_clip's towers by the names of HF's `CLIPModel`, or of a SigLIP by those of its `SiglipModel`."""
    places = siglip_places(state) if "visual.trunk.attn_pool.latent" in state else _hub_places(state)
    parts: dict[str, list[Tensor]] = {}
    for name, where in places:
        for theirs, tensor in where.split(state[name]).items():
            parts.setdefault(theirs, []).append(tensor)
    return {name: torch.cat(found) if len(found) > 1 else found[0].contiguous() for name, found in parts.items()}


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


def _own_places(names: Iterable[str]) -> dict[str, Place]:
    """By OpenAI's names; a custom text tower's are under a prefix."""
    return {name.removeprefix(_CUSTOM_TEXT): Place((name,)) for name in names}


def _hub_places(names: Mapping[str, object]) -> Iterator[tuple[str, Place]]:
    """Every tensor of a CLIP with as many blocks as `names`, by either's names, has; and where the hub keeps it."""
    yield "logit_scale", Place(("logit_scale",))
    yield "visual.class_embedding", Place(("vision_model.embeddings.class_embedding",))
    yield "visual.conv1.weight", Place(("vision_model.embeddings.patch_embedding.weight",))
    yield "visual.positional_embedding", Place(("vision_model.embeddings.position_embedding.weight",))
    yield "visual.proj", Place(("visual_projection.weight",), transposed=True)
    yield "token_embedding.weight", Place(("text_model.embeddings.token_embedding.weight",))
    yield "positional_embedding", Place(("text_model.embeddings.position_embedding.weight",))
    yield "text_projection", Place(("text_projection.weight",), transposed=True)
    yield from _both("visual.ln_pre", "vision_model.pre_layrnorm")  # spelt so
    yield from _both("visual.ln_post", "vision_model.post_layernorm")
    yield from _both("ln_final", "text_model.final_layer_norm")
    for ours, theirs in (
        ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
        ("transformer.resblocks.", "text_model.encoder.layers."),
    ):
        for block in range(max(count_blocks(names, ours), count_blocks(names, theirs))):
            for leaf in (kind + part for kind in _OF_BLOCKS for part in ("weight", "bias")):
                yield f"{ours}{block}.{leaf}", place_in_hub_block(f"{theirs}{block}.", leaf)


def _both(ours: str, theirs: str) -> Iterator[tuple[str, Place]]:
    for part in ("weight", "bias"):
        yield f"{ours}.{part}", Place((f"{theirs}.{part}",))


def _shape(where: Place, given: Mapping[str, Tensor]) -> tuple[int, ...]:
    shapes = [tuple(given[name].shape) for name in where.names]
    stacked = (sum(shape[0] for shape in shapes), *shapes[0][1:]) if len(shapes) > 1 and all(shapes) else shapes[0]
    return stacked[::-1] if where.transposed else stacked


def _told_activation(checkpoint: Checkpoint, *, from_hub: bool) -> bool | None:
    """Whether the towers have QuickGELU, by what lies beside the tensors or by whose they are; None: nothing tells."""
    config = checkpoint.config
    if "model_cfg" in config:
        return bool(config["model_cfg"].get("quick_gelu", False))
    if from_hub:
        # transformers leaves a configuration's defaults out, and QuickGELU is one.
        acts = {config.get(f"{tower}_config", {}).get("hidden_act", "quick_gelu") for tower in ("vision", "text")}
        if not acts <= {"quick_gelu", "gelu"} or len(acts) > 1:
            raise DataError(f"its config.json asks for {' and '.join(sorted(acts))}; expected quick_gelu or gelu")
        return acts == {"quick_gelu"}
    of_openai = checkpoint.container == "TorchScript" or "input_resolution" in checkpoint.tensors
    return True if of_openai else None


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
