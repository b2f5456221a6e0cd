"""Checkpoints of towers that are not of OpenAI's architecture: in open_clip's layout, Apple's, and HF's SiglipModel.

What towers they are is told by the configuration beside the file, or by a name of open_clip's list whose tensors have the
same names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from torch import Tensor, nn

from stillreel.configs import DataError, RequestError
from stillreel.pretrain.model.adapter import Towers, is_openais, plain_cfg
from stillreel.pretrain.model.keys import KeyLine
from stillreel.pretrain.model.peers.keymap import Place, collect, place_in_hub_block
from stillreel.pretrain.model.towers import build_towers, count_blocks

_CAPTIONER = "text_decoder."  # CoCa's: no tower
_OF_BLOCKS = ("attn.in_proj_", "attn.out_proj.", "ln_1.", "ln_2.", "mlp.c_fc.", "mlp.c_proj.")
_T5_WORDS = 32000
_TANH = {"gelu_pytorch_tanh": {"approximate": "tanh"}, "gelu": {}}
SIGLIP_PIXELS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


def other_cfg(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """open_clip's configuration of the towers in a file, where they are not of OpenAI's architecture; else None.

    RequestError where they are not, and nothing tells which they are.
    """
    told = config.get("model_cfg")
    if (
        isinstance(told, Mapping)
        and isinstance(told.get("vision_cfg"), Mapping)
        and isinstance(told.get("text_cfg"), Mapping)
    ):
        return None if is_openais(cfg := plain_cfg(told)) else cfg
    if str(config.get("model_type", "")).startswith("siglip"):
        return _siglip_cfg(config)
    if "visual.conv1.weight" in tensors and "visual.class_embedding" in tensors and "visual.proj" in tensors:
        pooled = any(name.startswith(("visual.attn_pool", "text.cls_emb")) for name in tensors)
        if not pooled and "visual.ln_pre.weight" in tensors:
            return None
    if any(name.startswith("vision_model.") for name in tensors):
        return None
    return _twin(tensors)


def read_other(tensors: Mapping[str, Tensor], model_cfg: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[KeyLine]]:
    """Tensors by the names of `AnyClip`, and what became of each that the file has."""
    captioner = [name for name in tensors if name.startswith(_CAPTIONER)]
    given = {name: tensor for name, tensor in tensors.items() if name not in captioner}
    lines = [KeyLine("unused", name, "", "of the captioner, which is no tower") for name in captioner]
    with torch.device("meta"):
        clip = build_towers(model_cfg)
    expected = {name: tensor.shape for name, tensor in clip.state_dict().items()}
    if any(name.startswith("image_encoder.") for name in given):
        converted = _from_apple(clip, given)
        lines += [KeyLine("renamed", name, "", "as open_clip converts Apple's names") for name in given]
        state, _ = collect(converted, expected, lambda name: Place((name,)), {})
        return state, lines
    places = dict(siglip_places(given)) if "vision_model.head.probe" in given else _own_places(given, expected)
    state, found = collect(given, expected, lambda name: places.get(name, Place((name,))), {})
    return state, [*found, *lines]


def siglip_places(names: Mapping[str, object]) -> Iterator[tuple[str, Place]]:
    """Every tensor of a SigLIP with as many blocks as `names`, by either's names, has; and where HF's SiglipModel keeps it."""
    text, vision, trunk = "text_model.", "vision_model.", "visual.trunk."
    for scalar in ("logit_scale", "logit_bias"):
        yield scalar, Place((scalar,), axes=1)
    yield "text.token_embedding.weight", Place((f"{text}embeddings.token_embedding.weight",))
    yield "text.positional_embedding", Place((f"{text}embeddings.position_embedding.weight",))
    yield f"{trunk}pos_embed", Place((f"{vision}embeddings.position_embedding.weight",), axes=-1)
    yield f"{trunk}attn_pool.latent", Place((f"{vision}head.probe",))
    for part in ("weight", "bias"):
        yield f"text.ln_final.{part}", Place((f"{text}final_layer_norm.{part}",))
        yield f"text.text_projection.{part}", Place((f"{text}head.{part}",))
        yield f"{trunk}patch_embed.proj.{part}", Place((f"{vision}embeddings.patch_embedding.{part}",))
        yield f"{trunk}norm.{part}", Place((f"{vision}post_layernorm.{part}",))
        pool = f"{vision}head.attention."
        yield f"{trunk}attn_pool.q.{part}", Place((f"{pool}in_proj_{part}",), thirds=(0, 1))
        yield f"{trunk}attn_pool.kv.{part}", Place((f"{pool}in_proj_{part}",), thirds=(1, 3))
        yield f"{trunk}attn_pool.proj.{part}", Place((f"{pool}out_proj.{part}",))
        yield f"{trunk}attn_pool.norm.{part}", Place((f"{vision}head.layernorm.{part}",))
        for layer in ("fc1", "fc2"):
            yield f"{trunk}attn_pool.mlp.{layer}.{part}", Place((f"{vision}head.mlp.{layer}.{part}",))
    yield from _siglip_blocks(names, trunk, vision, text)


def _siglip_blocks(names: Mapping[str, object], trunk: str, vision: str, text: str) -> Iterator[tuple[str, Place]]:
    ours, theirs = f"{trunk}blocks.", f"{vision}encoder.layers."
    leaves = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    for block in range(max(count_blocks(names, ours), count_blocks(names, theirs))):
        for part in ("weight", "bias"):
            yield f"{ours}{block}.attn.qkv.{part}", place_in_hub_block(f"{theirs}{block}.", f"attn.in_proj_{part}")
            for timms, name in leaves.items():
                yield f"{ours}{block}.{timms}.{part}", place_in_hub_block(f"{theirs}{block}.", f"{name}.{part}")
    ours, theirs = "text.transformer.resblocks.", f"{text}encoder.layers."
    for block in range(max(count_blocks(names, ours), count_blocks(names, theirs))):
        for leaf in (kind + part for kind in _OF_BLOCKS for part in ("weight", "bias")):
            yield f"{ours}{block}.{leaf}", place_in_hub_block(f"{theirs}{block}.", leaf)


def siglip_config(clip: Towers) -> dict[str, Any]:
    """The config.json that HF's `SiglipModel` needs beside tensors by `siglip_places`. RequestError for other towers."""
    cfg, trunk = clip.model_cfg, getattr(clip.visual, "trunk", None)
    is_siglip = (
        "_siglip_" in str(cfg["vision_cfg"].get("timm_model_name")) and cfg["text_cfg"].get("pool_type") == "last"
    )
    if not is_siglip or not isinstance(getattr(clip.text, "text_projection", None), nn.Linear):
        raise RequestError(
            "transformers has models of CLIP's and SigLIP's architecture, and these towers are of another; give "
            "towers=open_clip"
        )
    assert trunk is not None
    block, text = trunk.blocks[0], clip.text
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": trunk.embed_dim,
            "intermediate_size": block.mlp.fc1.out_features,
            "num_hidden_layers": len(trunk.blocks),
            "num_attention_heads": block.attn.num_heads,
            "image_size": clip.visual.image_size[0],
            "patch_size": trunk.patch_embed.patch_size[0],
            "hidden_act": _act_of(block.mlp.act),
            "layer_norm_eps": trunk.norm.eps,
        },
        "text_config": {
            "model_type": "siglip_text_model",
            "vocab_size": text.vocab_size,
            "hidden_size": text.width,
            "intermediate_size": text.transformer.resblocks[0].mlp.c_fc.out_features,
            "num_hidden_layers": text.transformer.layers,
            "num_attention_heads": text.heads,
            "max_position_embeddings": text.context_length,
            "projection_size": text.output_dim,
            "hidden_act": _act_of(text.transformer.resblocks[0].mlp.gelu),
            "layer_norm_eps": text.ln_final.eps,
        },
    }


def _act_of(module: nn.Module) -> str:
    exact = isinstance(module, nn.GELU) and module.approximate == "none"
    return "gelu" if exact else "gelu_pytorch_tanh"


def _siglip_cfg(config: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's configuration of a SigLIP of transformers', whose image tower timm makes by its name."""
    if config["model_type"] != "siglip":
        raise RequestError(f"transformers' {config['model_type']} reads images of any shape; give a SigLIP of one size")
    # transformers leaves defaults out; these are its own.
    vision = {"hidden_size": 768, "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh"} | config[
        "vision_config"
    ]
    text = {
        "hidden_size": 768, "vocab_size": 32000, "max_position_embeddings": 64, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu_pytorch_tanh",
    } | config["text_config"]  # fmt: skip
    asked = (vision["hidden_size"], vision["patch_size"], vision["image_size"])
    for name in open_clip.list_models():
        cfg = plain_cfg(open_clip.get_model_config(name))
        if "SigLIP" not in name or _siglip_sizes(cfg) != asked:
            continue
        cfg["vision_cfg"]["act_kwargs"] = dict(_TANH[vision["hidden_act"]])
        cfg["text_cfg"] |= {
            "proj_type": "linear", "proj_bias": True, "width": text["hidden_size"], "layers": text["num_hidden_layers"],
            "heads": text["num_attention_heads"], "mlp_ratio": (text["intermediate_size"] + 0.5) / text["hidden_size"],
            "vocab_size": text["vocab_size"], "context_length": text["max_position_embeddings"],
            "act_kwargs": dict(_TANH[text["hidden_act"]]),
        }  # fmt: skip
        if text["vocab_size"] > _T5_WORDS and "SigLIP2" not in name and "i18n" not in name:
            continue  # the same image tower with another tokenizer
        return cfg
    width, patch, side = asked
    raise DataError(f"no SigLIP of open_clip's is {width} wide with patches of {patch} of {side} x {side} pixels")


def _siglip_sizes(cfg: Mapping[str, Any]) -> tuple[int, int, int] | None:
    found = re.search(r"patch(\d+)_siglip_(\d+)", str(cfg["vision_cfg"].get("timm_model_name")))
    return (cfg["embed_dim"], int(found[1]), int(found[2])) if found else None


def _own_places(names: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> dict[str, Place]:
    """By open_clip's names: of its CLIP, whose text tower has no prefix, or of CustomTextCLIP; a scalar may be a vector."""
    places = {}
    for name, shape in expected.items():
        bare = name.removeprefix("text.")
        theirs = bare if name not in names and bare in names else name
        axes = 1 if not shape and theirs in names and names[theirs].ndim == 1 else 0
        places[name] = Place((theirs,), axes=axes)
    return places


def _from_apple(clip: Towers, given: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        return dict(convert_state_dict(clip, given))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"its names are Apple's, and open_clip cannot convert them ({error!r})") from None


def _twin(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration of open_clip's list whose towers have tensors of these names and shapes."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if not name.startswith(_CAPTIONER)}
    words = next((shape for name, shape in shapes.items() if name.endswith("token_embedding.weight")), None)
    is_timm = any(name.startswith("visual.trunk.") for name in shapes)
    for name in open_clip.list_models():
        cfg = plain_cfg(open_clip.get_model_config(name))
        text = cfg["text_cfg"]
        sizes = (text.get("vocab_size", 49408), text.get("width", 512))
        if text.get("hf_model_name") or sizes != words or is_timm != ("timm_model_name" in cfg["vision_cfg"]):
            continue
        if is_openais(cfg):
            continue
        with torch.device("meta"):
            clip = build_towers(cfg)
        expected = {key: tensor.shape for key, tensor in clip.state_dict().items()}
        places = _own_places(tensors, expected)
        if {where.names[0] for where in places.values()} == shapes.keys() and all(
            where.shape_of_each(expected[key]) == shapes[where.names[0]] for key, where in places.items()
        ):
            return cfg
    raise RequestError(
        "its tensors are not those of any towers that open_clip lists; give towers.name=, or a folder with its configuration"
    )
