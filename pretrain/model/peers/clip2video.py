"""Checkpoints of CLIP2Video (Fang et al., 2021): CLIP4Clip's names, and those of TDB and TAB."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from stillreel.configs.model import PUBLISHED_EPS, ModelSettings, PeerOptions, TabSettings
from stillreel.pretrain.model.peers import clip4clip
from stillreel.pretrain.model.peers.keymap import Place
from stillreel.pretrain.model.towers import TowerConfig, count_blocks

NAME = "CLIP2Video"

_PREFIXES = {
    "clip.": "clip.",
    "temporal.positions": "frame_position_embeddings.weight",
    "temporal.types": "type_position_embeddings.weight",
    "temporal.blocks.": "transformerClip.resblocks.",
    "temporal.difference.": "frame2t_attention.resblocks.",
    "temporal.projection": "frame2t_projection",
    "temporal.norm.": "trans_layernorm.",
    "align.near": "weight_center",
    "align.centres": "emb_center",
    "align.slow.": "actionClip.resblocks.",
}

towers = clip4clip.towers


def settings(state: Mapping[str, Tensor], options: PeerOptions) -> ModelSettings:
    """TDB, its projection and TAB are told by their tensors; whether TAB's slow frames have differences is not."""
    blocks = count_blocks(state, "transformerClip.resblocks.")
    slow = any(name.startswith("actionClip.") for name in state)
    centers = [len(state[name]) for name in ("weight_center", "emb_center") if name in state and state[name].ndim]
    attention = any(name.startswith("frame2t_attention.") for name in state)
    differences = attention or "frame2t_projection" in state or "type_position_embeddings.weight" in state
    return ModelSettings(
        temporal="tdb" if differences else "seq" if blocks else "mean",
        difference="attention" if attention else "mlp" if "frame2t_projection" in state else "plain",
        align=("slow_tdb" if options.center_proj == "TAB_TDB" else "slow") if slow else "frames" if centers else "none",
        tab=TabSettings(centers=max(1, *centers), weight=options.center_weight) if centers else TabSettings(),
        layers=max(1, blocks),
        eps=PUBLISHED_EPS,  # the weights were trained with it, so it is theirs in every mode
        faithful=options.faithful,
    )


def place(ours: str) -> Place:
    """Where the file keeps one of our tensors."""
    return clip4clip.renamed(ours, _PREFIXES)


def unused(tower: TowerConfig, chosen: ModelSettings) -> dict[str, tuple[int, ...]]:
    """The norm of the differences is there even where there are none, or plain ones."""
    if chosen.temporal == "tdb" and chosen.difference != "plain":
        return {}
    return {f"trans_layernorm.{name}": (tower.embed_dim,) for name in ("weight", "bias")}


def assumed(chosen: ModelSettings) -> list[tuple[str, str]]:
    """What the file cannot tell, and was taken from the options."""
    if chosen.align == "none":
        return []
    weight = ("center_weight", str(chosen.tab.weight))
    if chosen.align == "frames":
        return [weight]
    return [weight, ("center_proj", "TAB_TDB" if chosen.align == "slow_tdb" else "TAB")]
