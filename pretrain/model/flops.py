"""What a model of the zoo costs: floating-point operations of one clip with its caption, from sizes alone.

Matrix products and convolutions at two operations a multiplication, as torch's FlopCounterMode counts them; norms,
activations and softmaxes, which move bytes rather than compute, are left out there and here. Tests hold every formula
against that counter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from stillreel.configs.model import ModelSettings
from stillreel.pretrain.data.tokens import fixed_length
from stillreel.pretrain.model.adapter import image_size, is_openais, reads_to_the_end
from stillreel.pretrain.model.dropout import places_kept
from stillreel.pretrain.model.towers import build_towers, encode_words


class Flops(NamedTuple):
    """Operations of one clip of T frames and one caption of W words, forward, by part of the model."""

    image: int  # the image tower over all frames, projection included
    temporal: int  # what joins frames, TAB included
    text: int
    head: int  # one caption with one clip
    patches: int  # of `image`: the patch embedding, whose input needs no gradient
    rerank: int  # one pair, by the re-ranker, its clip read for it alone; not in `forward`, since pairs are chosen

    @property
    def forward(self) -> int:
        return self.image + self.temporal + self.text + self.head

    @property
    def training(self) -> int:
        """Forward and backward: each product has two gradients, but for the one of the pixels."""
        return 3 * self.forward - self.patches


def clip_flops(
    settings: ModelSettings, model_cfg: Mapping[str, Any], frames: int, words: int, *, patch_dropout: float = 0.0
) -> Flops:
    """The cost of a model on towers of an open_clip configuration, for clips of `frames` and captions of `words` tokens.

    Patches that are left out in training are embedded, but go no further.
    """
    vision, text, joint = model_cfg["vision_cfg"], model_cfg["text_cfg"], model_cfg["embed_dim"]
    if not is_openais(model_cfg):
        image, said = _counted(json.dumps(model_cfg), words)
        patches = vision.get("patch_size") or 0  # of a ViT, whose blocks STAN may read
        places = (vision.get("image_size", 224) // patches) ** 2 if patches else 0
        align = 0 if settings.align == "none" else _align(settings, frames, words, joint)
        moved = _temporal(settings, frames, places, vision.get("width", 768), joint, vision.get("mlp_ratio", 4.0))
        head, rerank = _head(settings, frames, words, joint), _rerank(settings, frames, words, joint)
        return Flops(frames * image, moved + align, said, head, 0, rerank)
    width, patch, layers = vision.get("width", 768), vision["patch_size"], vision.get("layers", 12)
    side = vision.get("image_size", 224)
    height, breadth = (side, side) if isinstance(side, int) else side
    places = (height // patch) * (breadth // patch)
    ratio = vision.get("mlp_ratio", 4.0)
    embedding = _product(frames * places, 3 * patch * patch, width) * (3 if settings.patches == "3d" else 1)
    places = places_kept(places, patch_dropout)
    image = embedding + frames * (layers * _block(1 + places, width, ratio) + _product(1, width, joint))
    text_width = text.get("width", 512)
    image += _product(frames * settings.rerank.grid**2, width, joint)
    words_in = text.get("layers", 12) * _block(words, text_width, text.get("mlp_ratio", 4.0))
    align = 0 if settings.align == "none" else _align(settings, frames, words, joint)
    return Flops(
        image=image,
        temporal=_temporal(settings, frames, places, width, joint, ratio) + align,
        text=words_in + _product(words, text_width, joint),
        head=_head(settings, frames, words, joint),
        patches=embedding,
        rerank=_rerank(settings, frames, words, joint),
    )


@cache
def _counted(model_cfg: str, words: int) -> tuple[int, int]:
    """Operations of a frame and of a caption by towers that no formula here knows, as torch counts them without computing."""
    cfg = json.loads(model_cfg)
    with torch.device("meta"), torch.no_grad():
        clip = build_towers(cfg)
        ids = torch.ones((1, fixed_length(cfg) or words), dtype=torch.int64)
        with FlopCounterMode(display=False) as image:
            clip.encode_image(torch.empty(1, 3, *image_size(clip)))
        with FlopCounterMode(display=False) as text:
            encode_words(clip.text, ids) if reads_to_the_end(clip.text) else clip.encode_text(ids)
    return image.get_total_flops(), text.get_total_flops()


def _product(rows: int, inner: int, columns: int) -> int:
    """(rows, inner) @ (inner, columns)."""
    return 2 * rows * inner * columns


def _attention(tokens: int, width: int) -> int:
    """Projections to query, key, value and back, and the two products between tokens; heads change nothing."""
    return _product(tokens, width, 4 * width) + 2 * _product(tokens, width, tokens)


def _perceptron(tokens: int, width: int, ratio: float = 4.0) -> int:
    return 2 * _product(tokens, width, int(width * ratio))


def _block(tokens: int, width: int, ratio: float = 4.0) -> int:
    return _attention(tokens, width) + _perceptron(tokens, width, ratio)


def _temporal(settings: ModelSettings, frames: int, places: int, width: int, joint: int, ratio: float) -> int:
    match settings.temporal:
        case "mean":
            return 0
        case "lstm":
            return 2 * _product(frames, joint, 4 * joint)
        case "seq":
            return settings.layers * _block(frames, joint)
        case "tdb":
            return settings.layers * _block(2 * frames - 1, joint) + _differences(settings, frames, joint)
        case "stan":
            layer = _stan_layer(settings, frames, places, width, ratio)
            return settings.stan.depth * layer + _product(frames, width, joint)


def _differences(settings: ModelSettings, frames: int, joint: int) -> int:
    match settings.difference:
        case "attention":
            return _block(frames - 1, joint)
        case "mlp":
            return _product(frames - 1, joint, joint)
        case "plain":
            return 0


def _stan_layer(settings: ModelSettings, frames: int, places: int, width: int, ratio: float) -> int:
    """Every patch along time, then every frame's patches with the clip's class token, of which there is one."""
    patches = frames * places
    in_time = {"attention": places * _attention(frames, width), "conv": _product(patches, 27 * width, width)}
    space = frames * _attention(1 + places, width) + _perceptron(1 + patches, width, ratio)
    return in_time[settings.stan.time] + _product(patches, width, width) + space


def _align(settings: ModelSettings, frames: int, words: int, joint: int) -> int:
    """TAB: each token's shares of the centers and the sums by them; slow frames through a block of their own first."""
    slow = (frames + 1) // 2
    tokens = frames + words - 1
    cost = 0
    if settings.align != "frames":
        tokens += slow
        cost = _block(slow, joint)
    if settings.align == "slow_tdb":
        cost = _block(2 * slow - 1, joint) + _differences(settings, slow, joint)
    return cost + 2 * _product(tokens, joint, settings.tab.centers)


def _head(settings: ModelSettings, frames: int, words: int, joint: int) -> int:
    if settings.head == "tight":
        pooled = _product(1, joint, joint) + _product(1, joint, 1)
        return settings.layers * _block(1 + frames, joint) + pooled
    if settings.head == "dot":
        return _product(1, joint, 1) * (1 if settings.align == "none" else 2)
    every = _product(words, joint, frames)
    match settings.mug:
        case "frame_token_simple":
            return every
        case "frame_token":
            return 2 * every + _product(1, words + frames, joint)
        case "frame_text":
            return _product(1, joint, frames)
        case "wti":
            return every + _product(words + frames, joint, 1) + 2 * (words + frames)


def _rerank(settings: ModelSettings, frames: int, words: int, joint: int) -> int:
    """The clip through the blocks, then the words with it; in the last block only one token of each asks."""
    layers, clip = settings.rerank.layers, frames * (1 + settings.rerank.grid**2)
    if not layers:
        return 0
    read = (layers - 1) * _block(clip, joint) + _last_block(clip, clip, joint)
    beside = 2 * _product(words, joint, clip)  # what a block of words has more than one of words alone
    judge = (layers - 1) * (_block(words, joint) + beside) + _last_block(words, clip + words, joint)
    return read + judge + _product(1, joint, 1)


def _last_block(given: int, heard: int, width: int) -> int:
    return (
        _product(given, width, 3 * width)
        + 2 * _product(1, width, heard)
        + _product(1, width, width)
        + _perceptron(1, width)
    )
