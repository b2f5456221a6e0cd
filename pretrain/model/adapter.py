"""Any model of open_clip as towers: SigLIP, EVA-02, CLIPA, CoCa, MobileCLIP, ConvNeXt, ResNet, text towers of transformers.

A frame's vector and a caption's are open_clip's own `encode_image` and `encode_text`. What is of OpenAI's kind on either
side is walked as in `towers`, with the same modules, and gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP, set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn

from stillreel.configs import RequestError

# What a configuration of OpenAI's architecture may say: all else is as open_clip has it by default.
_OPENAIS = {
    "vision_cfg": {"image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio", "ls_init_value"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "ls_init_value"},
}
_LONGEST, _MOST = 77, 512
_SENTENCE_END = 1  # of T5's and Gemma's vocabularies, which SigLIP's towers have


class AnyClip(CustomTextCLIP):  # type: ignore[misc]  # open_clip has no types
    """A model of open_clip whose towers are not both of OpenAI's architecture, on torch's default device.

    It stays in evaluation mode: batch norms keep the statistics of pretraining, so that a clip's features do not hang on its
    batch, and nothing draws by a generator that ranks do not share.
    """

    def __init__(self, model_cfg: Mapping[str, Any]) -> None:
        super().__init__(**model_cfg)
        self.model_cfg = dict(model_cfg)
        self.train(False)
        approximate = model_cfg["vision_cfg"].get("act_kwargs", {}).get("approximate")
        if approximate and model_cfg["vision_cfg"].get("timm_model_name"):  # where open_clip does not pass it on
            for module in self.visual.modules():
                if isinstance(module, nn.GELU):
                    module.approximate = approximate
        if self.logit_bias is not None:  # of a sigmoid loss: it changes no order and no softmax
            self.logit_bias.requires_grad_(False)

    def train(self, _mode: bool = True) -> AnyClip:
        super().train(False)
        return self

    def encode_words(self, token_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Captions (A, W) -> words (A, W, E) projected as the caption is, which of them are any (A, W), the caption (A, E)."""
        text = self.text
        text.output_tokens = True
        try:
            pooled, hidden = text(token_ids)
        finally:
            text.output_tokens = False
        if isinstance(text, HFTextEncoder):
            mask = token_ids != text.config.pad_token_id
            if (
                hidden.shape[1] < token_ids.shape[1]
            ):  # without the first, which open_clip leaves out where it is the caption
                hidden = torch.cat([hidden[:, :1], hidden], dim=1)
                mask[:, 0] = False
            return text.proj(hidden), mask, pooled
        projection = text.text_projection
        if projection is not None:
            hidden = projection(hidden) if isinstance(projection, nn.Linear) else hidden @ projection
        return hidden, _words_of(text, token_ids), pooled


Towers: TypeAlias = "CLIP | AnyClip"  # what a video model is built on


def plain_cfg(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The towers alone of an open_clip configuration: no captioner (CoCa's), and no weights that it would fetch."""
    cfg = {key: value for key, value in model_cfg.items() if key not in ("custom_text", "multimodal_cfg")}
    cfg["vision_cfg"], cfg["text_cfg"] = dict(cfg["vision_cfg"]), dict(cfg["text_cfg"])
    for tower in (cfg["vision_cfg"], cfg["text_cfg"]):
        tower.pop("output_tokens", None)
    if cfg["vision_cfg"].get("timm_model_name"):
        cfg["vision_cfg"]["timm_model_pretrained"] = False
    if cfg["text_cfg"].get("hf_model_name"):
        cfg["text_cfg"]["hf_model_pretrained"] = False
    return cfg


def is_openais(model_cfg: Mapping[str, Any]) -> bool:
    """Whether a configuration is of OpenAI's architecture: a ViT with a class token, a causal text tower read at its end."""
    if set(model_cfg) - {"embed_dim", "quick_gelu", *_OPENAIS}:
        return False
    of_vision, of_text = asdict(CLIPVisionCfg()), asdict(CLIPTextCfg())
    return isinstance(model_cfg["vision_cfg"].get("layers", 12), int) and all(
        key in _OPENAIS[tower] | {"patch_dropout"} or value == defaults.get(key)
        for tower, defaults in (("vision_cfg", of_vision), ("text_cfg", of_text))
        for key, value in model_cfg[tower].items()
    )


def has_class_token(visual: Any) -> bool:
    """Whether an image tower is OpenAI's ViT, whose blocks and class token are walked here."""
    return (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.final_ln_after_pool
        and isinstance(visual.ln_pre, nn.LayerNorm)
    )


def needs_class_token(visual: Any, what: str) -> None:
    """RequestError where `what` cannot be had of an image tower, since it reads the blocks of a ViT with a class token."""
    if not has_class_token(visual):
        raise RequestError(
            f"{what} reads the blocks of a ViT with a class token, and the image tower is {_named(visual)}: it gives one vector "
            "a frame; choose temporal=mean, seq, lstm or tdb, or towers such as ViT-B-16"
        )


def text_of(clip: Towers) -> Any:
    """The text tower: a CLIP itself, or the module that it has for it."""
    return getattr(clip, "text", clip)


def reads_to_the_end(text: Any) -> bool:
    """Whether a text tower is OpenAI's: causal, and read at its end-of-text token, the last id of its vocabulary."""
    pool = text.text_pool_type if isinstance(text, CLIP) else getattr(text, "pool_type", "")
    return (
        isinstance(text, CLIP | TextTransformer)
        and text.attn_mask is not None
        and getattr(text, "cls_emb", None) is None
        and pool == "argmax"
        and isinstance(text.text_projection, nn.Parameter)
    )


def joint_width(clip: Towers) -> int:
    """E, of the space that frames and captions share."""
    return int(clip.model_cfg["embed_dim"] if isinstance(clip, AnyClip) else clip.text_projection.shape[1])


def image_size(clip: Towers) -> tuple[int, int]:
    """(H, W) of what the image tower reads."""
    size = clip.visual.image_size
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def most_tokens(clip: Towers) -> int:
    """Rows of a table of positions over frames or words: as many as the text tower's, of a CLIP; of others at least CLIP's 77."""
    return int(clip.context_length) if isinstance(clip, CLIP) else max(_LONGEST, min(clip.context_length, _MOST))


def set_preprocess(clip: Towers, preprocess: Mapping[str, Any]) -> None:
    """Keep with a CLIP how its pixels are prepared, as open_clip does: mean, std, and what it would resize by."""
    cfg = merge_preprocess_dict(PreprocessCfg(), dict(preprocess))
    set_model_preprocess_cfg(clip, cfg | {"size": list(image_size(clip))})


def preprocess_of(clip: Towers) -> dict[str, Any]:
    """What `set_preprocess` kept; of a CLIP that nobody told, OpenAI's."""
    cfg = getattr(clip.visual, "preprocess_cfg", None) or {**asdict(PreprocessCfg()), "size": list(image_size(clip))}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in cfg.items()}


def _words_of(text: TextTransformer, token_ids: Tensor) -> Tensor:
    """Which of token ids (A, W) are words, by how the tower's captions end: bool (A, W), the end included."""
    end = {"argmax": text.vocab_size - 1, "eos": text.eos_id}.get(text.pool_type, _SENTENCE_END)
    ends = token_ids == end
    before_end = ends.cumsum(1) - ends.long() == 0
    words: Tensor = before_end & (token_ids != text.pad_id) if text.pool_type == "last" else before_end
    return words


def _named(visual: Any) -> str:
    trunk = getattr(visual, "trunk", None)
    return f"timm's {trunk.default_cfg.get('architecture', type(trunk).__name__)}" if trunk else type(visual).__name__
