"""What a step of training costs by part of the model: operations, bytes moved, and the floor under its time by either.

A part is made of works. A work takes at least the time of its operations at a device's peak, and at least that of its bytes at
the bandwidth of its memory; whichever is longer is its floor, and the floors of a step's works, one after another, are the
step's. Operations are those of matrix products, forward and backward, and sum up to `clip_flops`. Bytes are what no fusion
avoids: each operand of a product once; of norms, activations and residual sums what one kernel each would read and write. So
what a kernel moves twice, a launch costs, or a small product leaves idle is above the floor: a step that nears it is a good one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from stillreel.configs.model import ModelSettings
from stillreel.configs.system.hardware import Accelerator
from stillreel.pretrain.model.adapter import is_openais
from stillreel.pretrain.model.flops import Flops, clip_flops
from stillreel.pretrain.model.model import VideoTextModel
from stillreel.pretrain.model.towers import build_towers

_HALF, _WHOLE = 2, 4  # bytes of a bf16 and of an fp32 number


class Step(NamedTuple):
    """The shape of a step on one device."""

    clips: int
    frames: int
    words: int


class Work(NamedTuple):
    """Something a device does at once."""

    flops: int
    bytes: int

    def floor(self, device: Accelerator) -> float:
        """Seconds."""
        return max(self.flops / device.peak, self.bytes / device.bandwidth)

    def times(self, count: int) -> Work:
        """So many alike."""
        return Work(count * self.flops, count * self.bytes)


class Part(NamedTuple):
    """A part of a step."""

    name: str
    works: tuple[Work, ...]

    @property
    def flops(self) -> int:
        return sum(one.flops for one in self.works)

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.works)

    def floor(self, device: Accelerator) -> float:
        """Seconds."""
        return sum(one.floor(device) for one in self.works)


def step_parts(settings: ModelSettings, model_cfg: Mapping[str, Any], step: Step) -> list[Part]:
    """The parts of a step of InfoNCE with AdamW, in bf16 with weights in fp32, on ready frames of uint8."""
    flops = clip_flops(settings, model_cfg, step.frames, step.words)
    if is_openais(model_cfg):
        towers = [*_image_parts(settings, model_cfg, step, flops), _temporal_part(settings, model_cfg, step, flops)]
        towers.append(_text_part(model_cfg, step, flops))
    else:  # of these only operations are known
        known = {"image tower": flops.image, "temporal module": flops.temporal, "text tower": flops.text}
        towers = [Part(name, (Work(3 * step.clips * one, 0),)) for name, one in known.items()]
    with torch.device("meta"):
        model = VideoTextModel(build_towers(model_cfg), settings)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return [*towers, _head_part(step, flops), _optimizer_part(trained), _frames_part(model_cfg, step)]


def frame_bytes(model_cfg: Mapping[str, Any], step: Step) -> int:
    """Of a step's frames in uint8: what is copied to the device where they are not rendered there."""
    side = model_cfg["vision_cfg"].get("image_size", 224)
    height, breadth = (side, side) if isinstance(side, int) else side
    return step.clips * step.frames * 3 * int(height) * int(breadth)


def _image_parts(settings: ModelSettings, model_cfg: Mapping[str, Any], step: Step, flops: Flops) -> list[Part]:
    vision, joint = model_cfg["vision_cfg"], model_cfg["embed_dim"]
    width, patch, layers = vision.get("width", 768), vision["patch_size"], vision.get("layers", 12)
    images, places = step.clips * step.frames, _places(model_cfg)
    embedding = _product(images * places, 3 * patch * patch, width, leaf=True)
    tower = _blocks(images, 1 + places, width, vision.get("mlp_ratio", 4.0)).items()
    known = [
        Part("patch embedding", (embedding.times(3 if settings.patches == "3d" else 1),)),
        *(Part(f"image tower: {name}", tuple(one.times(layers) for one in works)) for name, works in tower),
    ]
    projected = _product(images * (1 + settings.rerank.grid**2), width, joint)
    known.append(Part("image tower: projection", (projected,)))
    assert sum(one.flops for one in known) == step.clips * (3 * flops.image - flops.patches)
    return known


def _text_part(model_cfg: Mapping[str, Any], step: Step, flops: Flops) -> Part:
    text, joint = model_cfg["text_cfg"], model_cfg["embed_dim"]
    width, layers = text.get("width", 512), text.get("layers", 12)
    blocks = _blocks(step.clips, step.words, width, text.get("mlp_ratio", 4.0)).values()
    works = [one.times(layers) for of_kind in blocks for one in of_kind]
    part = Part("text tower", (*works, _product(step.clips * step.words, width, joint)))
    assert part.flops == 3 * step.clips * flops.text
    return part


def _temporal_part(settings: ModelSettings, model_cfg: Mapping[str, Any], step: Step, flops: Flops) -> Part:
    """The bytes of its blocks; of the rest of it the operations alone."""
    vision, joint = model_cfg["vision_cfg"], model_cfg["embed_dim"]
    width, ratio = vision.get("width", 768), vision.get("mlp_ratio", 4.0)
    works: list[Work] = []
    match settings.temporal:
        case "seq" | "tdb":
            tokens = step.frames if settings.temporal == "seq" else 2 * step.frames - 1
            kinds = _blocks(step.clips, tokens, joint, 4.0).values()
            works = [one.times(settings.layers) for of_kind in kinds for one in of_kind]
        case "stan":
            of_block = _blocks(step.clips * step.frames, 1 + _places(model_cfg), width, ratio)
            space = [one for name in ("projections", "attention") for one in of_block[name]]
            works = [one.times(settings.stan.depth) for one in space]
    rest = 3 * step.clips * flops.temporal - sum(one.flops for one in works)
    assert rest >= 0
    return Part("temporal module", (*works, Work(rest, 0)))


def _head_part(step: Step, flops: Flops) -> Part:
    """All pairs; the logits in fp32 are written once, read by both cross entropies there and back, and by two products."""
    pairs = step.clips**2
    return Part("head, logits, loss", (Work(3 * pairs * flops.head, 8 * _WHOLE * pairs),))


def _optimizer_part(trained: int) -> Part:
    """AdamW reads weights, gradients and two moments and writes three of them; the gradient's length is taken and cut to.

    Autocast makes halves of the weights, and the halves of the gradients are made whole.
    """
    adamw, clipping, casting = 7 * _WHOLE, 3 * _WHOLE, 2 * (_WHOLE + _HALF)
    return Part("optimizer, casts of weights", (Work(0, (adamw + clipping + casting) * trained),))


def _frames_part(model_cfg: Mapping[str, Any], step: Step) -> Part:
    """Arrived, read, and written normalized in bf16."""
    return Part("frames: copied, normalized", (Work(0, (1 + 1 + _HALF) * frame_bytes(model_cfg, step)),))


def _places(model_cfg: Mapping[str, Any]) -> int:
    vision = model_cfg["vision_cfg"]
    side, patch = vision.get("image_size", 224), vision["patch_size"]
    height, breadth = (side, side) if isinstance(side, int) else side
    return int((height // patch) * (breadth // patch))


def _blocks(sequences: int, tokens: int, width: int, ratio: float) -> dict[str, tuple[Work, ...]]:
    """A transformer block's kinds of work, forward and backward, over sequences of so many tokens."""
    rows, hidden = sequences * tokens, int(width * ratio)
    # The two products between tokens, and their four gradients; q, k, v and the outcome forward, and twice these back.
    between = Work(12 * rows * tokens * width, _HALF * 12 * rows * width)
    # Forward a sum and its norm read two rows and write two, twice; back the same, of gradients. The activation is read and
    # written, and back it reads two and writes one.
    beside = Work(0, _HALF * rows * (16 * width + 5 * hidden))
    return {
        "projections": (_product(rows, width, 3 * width), _product(rows, width, width)),
        "attention": (between,),
        "perceptron": (_product(rows, width, hidden), _product(rows, hidden, width)),
        "norms, sums, activations": (beside,),
    }


def _product(rows: int, inner: int, columns: int, *, leaf: bool = False) -> Work:
    """(rows, inner) @ (inner, columns) and its gradients, of the rows none where they are a leaf: three operands each."""
    operands = rows * inner + inner * columns + rows * columns
    return Work(2 * rows * inner * columns, _HALF * operands).times(2 if leaf else 3)
