"""The two towers: open_clip's own CLIP, taken as it is and walked here.

What a tower computes stays open_clip's: these functions call its modules, one after another, because a video model needs
what `encode_image` and `encode_text` keep to themselves: the tokens after each of the last blocks, the features of all
words, captions shorter than 77 tokens. Walked are towers of OpenAI's architecture (a ViT with a class token, a causal text
tower read at the end-of-text token); SigLIP, CLIPA and the like pool otherwise, and `adapter` has them as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import mode
from types import MappingProxyType
from typing import Any

import torch
from open_clip.model import CLIP
from open_clip.transformer import QuickGELU, Transformer, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from stillreel.configs import DataError, RequestError
from stillreel.pretrain.model.adapter import AnyClip, Towers, is_openais, plain_cfg, set_preprocess, text_of

Shape = Sequence[int]


@dataclass(frozen=True)
class TowerConfig:
    """Sizes of a CLIP of OpenAI's architecture. Attention heads are 64 wide, as in all of OpenAI's."""

    embed_dim: int
    image_size: int  # H = W, pixels
    patch_size: int
    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    context_length: int
    vocab_size: int
    quick_gelu: bool = True

    def model_cfg(self) -> dict[str, Any]:
        """The same as open_clip writes it, in its configuration files and in `open_clip_config.json`."""
        return {
            "embed_dim": self.embed_dim,
            "quick_gelu": self.quick_gelu,
            "vision_cfg": {
                "image_size": self.image_size,
                "patch_size": self.patch_size,
                "width": self.vision_width,
                "layers": self.vision_layers,
                "head_width": self.vision_width // heads_of(self.vision_width),
            },
            "text_cfg": {
                "context_length": self.context_length,
                "vocab_size": self.vocab_size,
                "width": self.text_width,
                "heads": heads_of(self.text_width),
                "layers": self.text_layers,
            },
        }


# What open_clip, timm and transformers raise for a configuration that they cannot make a model of.
_REFUSALS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip

# For tests and the demo: every module of the zoo at its default depth, on a CPU, with CLIP's own tokenizer.
TINY = TowerConfig(
    embed_dim=64,
    image_size=64,
    patch_size=16,
    vision_width=64,
    vision_layers=4,
    text_width=64,
    text_layers=4,
    context_length=77,
    vocab_size=49408,
)


def heads_of(width: int) -> int:
    """Attention heads of a width, as OpenAI and all three peers have them."""
    return max(1, width // 64)


def build_towers(model_cfg: Mapping[str, Any], preprocess: Mapping[str, Any] = MappingProxyType({})) -> Towers:
    """Untrained towers of an open_clip configuration, on torch's default device: its CLIP, or `AnyClip`.

    `preprocess` is open_clip's `preprocess_cfg`; what it does not say is OpenAI's. RequestError when there are none such, or
    timm or transformers, which make them, are missing.
    """
    try:
        cfg = plain_cfg(model_cfg)
        clip = CLIP(**cfg) if is_openais(cfg) else AnyClip(cfg)
        set_preprocess(clip, preprocess)
    except _REFUSALS as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        text = model_cfg.get("text_cfg")
        hub = text.get("hf_model_name") if isinstance(text, Mapping) else None
        what = (
            f"its text tower, {hub}, is of transformers and the hub"
            if hub
            else f"open_clip makes no CLIP of {dict(model_cfg)}"
        )
        raise RequestError(f"{what}: {why}") from None
    return clip


def model_cfg_of(clip: Towers) -> dict[str, Any]:
    """The open_clip configuration of towers, of a CLIP read off its modules: `build_towers` makes the same of it."""
    if isinstance(clip, AnyClip):
        return dict(clip.model_cfg)
    visual, text = clip.visual, clip.transformer
    image, patch = visual.image_size, visual.patch_size
    unscaled = isinstance(visual.transformer.resblocks[0].ls_1, nn.Identity)
    return {
        "embed_dim": clip.text_projection.shape[1],
        "quick_gelu": activation_of(clip) is QuickGELU,
        "vision_cfg": {
            "image_size": image[0] if image[0] == image[1] else image,
            "patch_size": patch[0] if patch[0] == patch[1] else patch,
            "head_width": visual.transformer.width // visual.transformer.resblocks[0].attn.num_heads,
            "ls_init_value": None if unscaled else 1e-5,
            **_transformer_cfg(visual.transformer),
        },
        "text_cfg": {
            "context_length": clip.context_length,
            "vocab_size": clip.vocab_size,
            "heads": text.resblocks[0].attn.num_heads,
            **_transformer_cfg(text),
        },
    }


def _transformer_cfg(transformer: Transformer) -> dict[str, Any]:
    width, hidden = transformer.width, transformer.resblocks[0].mlp.c_fc.out_features
    # open_clip truncates width * ratio: where the ratio is no round number, half a unit keeps it from falling short.
    ratio = hidden / width if hidden % width == 0 else (hidden + 0.5) / width
    return {"width": width, "layers": transformer.layers, "mlp_ratio": ratio}


def infer_tower(state: Mapping[str, Tensor]) -> TowerConfig:
    """Sizes of the CLIP whose tensors, by OpenAI's names, these are; other names are ignored. See `infer_sizes`."""
    return infer_sizes({name: tuple(tensor.shape) for name, tensor in state.items()})


def infer_sizes(
    shapes: Mapping[str, Shape], *, quick_gelu: bool = True, called: Callable[[str], str] = str
) -> TowerConfig:
    """Sizes of a CLIP from shapes by OpenAI's names; in errors, names are as the file has them (`called`).

    Each size is what most of the tensors that share it say, so that a single wrong one is found, later, by its own name.
    Raises DataError where a size cannot be told.
    """

    def size(what: str, *voters: tuple[str, int]) -> int:
        votes = [shapes[name][axis] for name, axis in voters if len(shapes.get(name, ())) > axis]
        if not votes:
            names = " or ".join(dict.fromkeys(called(name) for name, _ in voters))
            raise DataError(f"missing or without axes: {names}, which would tell the {what} of a CLIP with a ViT")
        return int(mode(votes))

    patch = size("patch size", ("visual.conv1.weight", 2), ("visual.conv1.weight", 3))
    rows = size("image size", ("visual.positional_embedding", 0))
    grid = round((rows - 1) ** 0.5)
    if grid * grid + 1 != rows:
        raise DataError(
            f"{called('visual.positional_embedding')} has {rows} rows; expected one for the class token and a square of patches"
        )
    return TowerConfig(
        embed_dim=size("joint width", ("visual.proj", 1), ("text_projection", 1)),
        image_size=patch * grid,
        patch_size=patch,
        vision_width=size(
            "image width",
            ("visual.conv1.weight", 0),
            ("visual.class_embedding", 0),
            ("visual.positional_embedding", 1),
            ("visual.ln_pre.weight", 0),
            ("visual.ln_post.weight", 0),
            ("visual.proj", 0),
        ),
        vision_layers=count_blocks(shapes, "visual.transformer.resblocks."),
        text_width=size(
            "text width",
            ("ln_final.weight", 0),
            ("positional_embedding", 1),
            ("token_embedding.weight", 1),
            ("text_projection", 0),
        ),
        text_layers=count_blocks(shapes, "transformer.resblocks."),
        context_length=size("context length", ("positional_embedding", 0)),
        vocab_size=size("vocabulary", ("token_embedding.weight", 0)),
        quick_gelu=quick_gelu,
    )


def count_blocks(names: Collection[str], prefix: str) -> int:
    """Blocks named `PREFIXn.`: the largest n and one more, so that one that is left out is missed by name.

    DataError for a number beyond that of all names, of which nobody could build the blocks.
    """
    numbered = re.compile(re.escape(prefix) + r"(\d{1,9})\.")
    count = 1 + max((int(match[1]) for name in names if (match := numbered.match(name))), default=-1)
    if count > len(names):
        raise DataError(f"it has a tensor of {prefix}{count - 1}, and only {len(names)} tensors altogether")
    return count


def causal_mask(length: int) -> Tensor:
    """Additive (L, L): a word sees itself and the words before it."""
    return torch.full((length, length), float("-inf")).triu_(1)


def project_pixels(visual: VisionTransformer, frames: Tensor) -> Tensor:
    """The image tower's patch embedding: frames (N, 3, H, W) -> patches (N, h * w, D).

    Patches do not overlap, so `conv1` is a matrix product of their pixels, which computes faster, and its gradient twice as fast.
    """
    kernel = visual.conv1
    rows, columns = kernel.kernel_size
    pixels = frames.unfold(2, rows, rows).unfold(3, columns, columns).permute(0, 2, 3, 1, 4, 5)
    return F.linear(pixels.flatten(3).flatten(1, 2), kernel.weight.flatten(1), kernel.bias)


def embed_patches(visual: VisionTransformer, patches: Tensor, places: Tensor | None = None) -> Tensor:
    """What the image tower's first block reads: patches (N, h * w, D) -> tokens (N, 1 + L, D), the class token first.

    `places` (N, L) are those of the h * w that are kept. The tower's own patch dropout, which draws otherwise, is not asked.
    """
    token = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    tokens = torch.cat([token, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
    if places is not None:
        rows = torch.cat([places.new_zeros(len(places), 1), 1 + places], dim=1)
        tokens = tokens.gather(1, rows[:, :, None].expand(-1, -1, tokens.shape[2]))
    normed: Tensor = visual.ln_pre(tokens)
    return normed


def run_blocks(visual: VisionTransformer, tokens: Tensor, keep: int) -> tuple[Tensor, list[Tensor]]:
    """Tokens (N, 1 + L, D) through all blocks; also their values after each of the last `keep` blocks."""
    if not keep:
        return visual.transformer(tokens), []
    tokens, kept = visual.transformer.forward_intermediates(tokens, indices=keep)
    return tokens, kept


def project_class_token(visual: VisionTransformer, token: Tensor) -> Tensor:
    """Class tokens (..., D) of the last block -> image features (..., E)."""
    projected: Tensor = visual.ln_post(token) @ visual.proj
    return projected


def project_patches(visual: VisionTransformer, patches: Tensor, side: int) -> Tensor:
    """Patch tokens (N, L, D) of the last block -> (N, side * side, E): projected as the class token is, means over a grid."""
    grid = visual.ln_post(patches).mT.unflatten(2, visual.grid_size)
    # A mean of projections is the projection of the mean, which is less to compute.
    means: Tensor = F.adaptive_avg_pool2d(grid, side).flatten(2).mT
    projected: Tensor = means @ visual.proj
    return projected


class PackedAttention(nn.MultiheadAttention):
    """open_clip's attention of tokens (N, L, D) to themselves, told what its mask is: kernels that know need none.

    In training q, k and v are read where their one product lies, and their gradients are written as one: torch's own copies
    them apart, twice there and four times back. Evaluation stays torch's, which has a kernel of its own for it.
    """

    causal = False  # tokens see those before them only

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        assert key_padding_mask is None and not need_weights
        assert (attn_mask is not None) == self.causal
        if not self.training:
            mixed: tuple[Tensor, Tensor | None] = super().forward(
                query, key, value, need_weights=False, attn_mask=attn_mask, is_causal=self.causal
            )
            return mixed
        assert query is key is value and not self.dropout
        packed = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (one.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for one in packed.chunk(3, dim=-1))
        heard = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(heard.transpose(1, 2).flatten(2)), None


class CausalAttention(PackedAttention):
    """The same over words, which see those before them."""

    causal = True


def pack_attention(tower: Any, kind: type[PackedAttention]) -> None:
    """Make a tower's attention of this kind, in place. Weights and names stay, and in evaluation on a CPU bits."""
    for module in tower.transformer.modules():
        if type(module) is nn.MultiheadAttention:
            module.__class__ = kind


def encode_words(text: Any, token_ids: Tensor) -> Tensor:
    """Hidden states (B, W, D) of all W <= context_length tokens, normed but not projected, by a CLIP or its text tower.

    A shorter caption uses the first W positions and the mask's first W rows: to the bit a tower of that context length. The
    mask is causal, so a caption padded to the full length gives the same; open_clip's own resizing would interpolate.
    """
    words = token_ids.shape[1]
    hidden = text.token_embedding(token_ids) + text.positional_embedding[:words]
    normed: Tensor = text.ln_final(text.transformer(hidden, attn_mask=text.attn_mask[:words, :words]))
    return normed


def activation_of(clip: Towers) -> type[nn.Module]:
    """The class of the text tower's activation, QuickGELU or GELU; of towers that say nothing of it, GELU."""
    text = text_of(clip)
    blocks = getattr(getattr(text, "transformer", None), "resblocks", None)
    return type(blocks[0].mlp.gelu) if blocks else nn.GELU
