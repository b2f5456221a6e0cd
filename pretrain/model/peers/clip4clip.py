"""Checkpoints of CLIP4Clip (Luo et al., 2021): flat state dicts, CLIP under `clip.`, in OpenAI's names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from stillreel.configs.model import PUBLISHED_EPS, ModelSettings, PeerOptions, TightSettings
from stillreel.pretrain.model.peers.keymap import Place
from stillreel.pretrain.model.towers import TowerConfig, count_blocks, infer_sizes

NAME = "CLIP4Clip"

_PREFIXES = {
    "patches.conv.": "clip.visual.conv2.",
    "clip.": "clip.",
    "temporal.positions": "frame_position_embeddings.weight",
    "temporal.blocks.": "transformerClip.resblocks.",
    "temporal.lstm.": "lstm_visual.",
    "head.positions": "cross.embeddings.position_embeddings.weight",
    "head.blocks.": "cross.transformer.resblocks.",
    "head.norm.": "cross.pooler.ln_pool.",
    "head.dense.": "cross.pooler.dense.",
    "head.score.": "similarity_dense.",
}


def towers(state: Mapping[str, Tensor]) -> TowerConfig:
    """Sizes, from the tensors' shapes."""
    shapes = {name.removeprefix("clip."): tuple(one.shape) for name, one in state.items() if name.startswith("clip.")}
    return infer_sizes(shapes, called="clip.".__add__)


def settings(state: Mapping[str, Tensor], options: PeerOptions) -> ModelSettings:
    """The similarity header is told by the modules that the file has."""
    tight = any(name.startswith("cross.") for name in state)
    blocks = count_blocks(state, "cross.transformer.resblocks." if tight else "transformerClip.resblocks.")
    lstm = any(name.startswith("lstm_visual.") for name in state)
    return ModelSettings(
        temporal="lstm" if lstm else "seq" if blocks and not tight else "mean",
        head="tight" if tight else "dot",
        patches="3d" if "clip.visual.conv2.weight" in state else "2d",
        layers=max(1, blocks),
        tight=TightSettings(heads=options.cross_heads),
        eps=PUBLISHED_EPS,  # the weights were trained with it, so it is theirs in every mode
        faithful="no" if options.faithful == "no" else "own_mask",  # its masks were never mixed up
    )


def place(ours: str) -> Place:
    """Where the file keeps one of our tensors."""
    return renamed(ours, _PREFIXES)


def unused(tower: TowerConfig, chosen: ModelSettings) -> dict[str, tuple[int, ...]]:
    """Tensors that the published model has and never uses, with their shapes."""
    if chosen.temporal != "lstm":
        return {}
    return {"frame_position_embeddings.weight": (tower.context_length, tower.embed_dim)}


def assumed(chosen: ModelSettings) -> list[tuple[str, str]]:
    """What the file cannot tell, and was taken from the options."""
    return [("cross_heads", str(chosen.tight.heads or "width / 64"))] if chosen.head == "tight" else []


def renamed(ours: str, prefixes: Mapping[str, str]) -> Place:
    """Our name with its prefix replaced by the published one."""
    prefix = next(prefix for prefix in prefixes if ours.startswith(prefix))
    return Place((prefixes[prefix] + ours.removeprefix(prefix),))
