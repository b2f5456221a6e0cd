"""Checkpoints of STAN and Mug-STAN (Liu et al., 2023): Hugging Face's names, q, k and v apart, projections transposed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from stillreel.configs.model import ModelSettings, PeerOptions, StanSettings
from stillreel.pretrain.model.peers.keymap import Place, place_in_hub_block
from stillreel.pretrain.model.towers import TowerConfig, count_blocks, infer_sizes

NAME = "STAN"

_WHOLE = {
    "clip.visual.class_embedding": Place(("backbone.class_embedding",)),
    "clip.visual.positional_embedding": Place(("backbone.position_embedding.weight",)),
    "clip.visual.conv1.weight": Place(("backbone.patch_embedding.weight",)),
    "clip.visual.proj": Place(("backbone.visual_projection.weight",), transposed=True),
    "clip.token_embedding.weight": Place(("text_backbone.text_model.embeddings.token_embedding.weight",)),
    "clip.positional_embedding": Place(("text_backbone.text_model.embeddings.position_embedding.weight",)),
    "clip.text_projection": Place(("text_backbone.text_projection.weight",), transposed=True),
    "clip.logit_scale": Place(()),  # STAN's temperature is fixed, and not in the file
    "temporal.time_embedding": Place(("backbone.STAN_time_embed.weight",)),
}
_PREFIXES = {
    r"clip\.visual\.ln_pre\.": "backbone.pre_layrnorm.",  # their spelling, after Hugging Face
    r"clip\.visual\.ln_post\.": "backbone.post_layernorm.",
    r"clip\.visual\.transformer\.resblocks\.(\d+)\.": r"backbone.layers.\1.",
    r"clip\.ln_final\.": "text_backbone.text_model.final_layer_norm.",
    r"clip\.transformer\.resblocks\.(\d+)\.": r"text_backbone.text_model.encoder.layers.\1.",
    r"temporal\.layers\.(\d+)\.space\.": r"backbone.STAN_S_layers.\1.",
    r"temporal\.layers\.(\d+)\.time\.": r"backbone.STAN_T_layers.\1.",
    r"head\.word_weight\.": "text_weight_fc.",
    r"head\.frame_weight\.": "video_weight_fc.",
}
_LEAVES = {  # beside those of the hub's blocks
    "norm.": "layer_norm1.",
    "conv.": "layers.",
    "fc.": "temporal_fc.",
}


def towers(state: Mapping[str, Tensor]) -> TowerConfig:
    """Sizes, from the tensors' shapes by OpenAI's names."""
    shapes: dict[str, tuple[int, ...]] = {}
    for ours in (*_WHOLE, "clip.visual.ln_pre.weight", "clip.visual.ln_post.weight", "clip.ln_final.weight"):
        where = place(ours)
        if where.names and where.names[0] in state:
            shape = tuple(state[where.names[0]].shape)
            shapes[ours.removeprefix("clip.")] = shape[::-1] if where.transposed else shape
    for ours, theirs in (
        ("visual.transformer.resblocks", "backbone.layers."),
        ("transformer.resblocks", "text_backbone.text_model.encoder.layers."),
    ):
        shapes.update({f"{ours}.{index}.": () for index in range(count_blocks(state, theirs))})
    return infer_sizes(shapes, called=lambda ours: place(f"clip.{ours}").names[0])


def settings(state: Mapping[str, Tensor], options: PeerOptions) -> ModelSettings:
    """The branch is told by its tensors; the head and its temperature are not in the file."""
    depth = count_blocks(state, "backbone.STAN_S_layers.")
    conv = any(re.match(r"backbone\.STAN_T_layers\.\d+\.layers\.", name) for name in state)
    times = state.get("backbone.STAN_time_embed.weight")
    weighted = any(name.startswith("text_weight_fc.") for name in state)
    return ModelSettings(
        temporal="stan" if depth else "mean",
        stan=StanSettings(
            depth=max(1, depth),
            time="conv" if conv else "attention",
            frames=len(times) if times is not None and times.ndim else 64,
        ),
        head="mug" if weighted else options.head,
        mug="wti" if weighted else options.mug,
        pool="plain",
        temperature=options.temperature,
        faithful=options.faithful,
    )


def place(ours: str) -> Place:
    """Where the file keeps one of our tensors."""
    if ours in _WHOLE:
        return _WHOLE[ours]
    for pattern, prefix in _PREFIXES.items():
        if match := re.match(pattern, ours):
            return _leaf(match.expand(prefix), ours[match.end() :])
    raise AssertionError(ours)


def _leaf(prefix: str, leaf: str) -> Place:
    for ours, theirs in _LEAVES.items():
        if leaf.startswith(ours):
            return Place((prefix + theirs + leaf.removeprefix(ours),))
    return place_in_hub_block(prefix, leaf)


def unused(tower: TowerConfig, chosen: ModelSettings) -> dict[str, tuple[int, ...]]:
    return {}


def assumed(chosen: ModelSettings) -> list[tuple[str, str]]:
    """What the file cannot tell, and was taken from the options."""
    head = f"mug, {chosen.mug}" if chosen.head == "mug" else chosen.head
    return [("temperature", str(chosen.temperature)), ("head", head)]
