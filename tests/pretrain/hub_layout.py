"""transformers' CLIPModel and SiglipModel, stated anew from their documentation: features of a folder that they would read.

Only names, shapes and the configuration of the folder are used, and none of this project's code. So what is exported can be
checked where transformers is not installed; where it is, tests/pretrain/test_hub.py holds this against it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
CLIPS_EPS = 1e-5  # of transformers' CLIPConfig, where its file says nothing; SigLIP's files say theirs


class HubModel:
    """A folder's config.json and model.safetensors, in float64."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = {name: one.double() for name, one in load_file(folder / "model.safetensors").items()}
        self.siglip = self.config["model_type"] == "siglip"

    def image_features(self, pixels: Tensor) -> Tensor:
        """Pixels (N, 3, H, W), normalized -> (N, E)."""
        told = self.config["vision_config"]
        kernel = self.weights["vision_model.embeddings.patch_embedding.weight"]
        bias = self.weights.get("vision_model.embeddings.patch_embedding.bias")
        tokens = F.conv2d(pixels.double(), kernel, bias, stride=told["patch_size"]).flatten(2).mT
        if not self.siglip:
            first = self.weights["vision_model.embeddings.class_embedding"].expand(len(tokens), 1, -1)
            tokens = torch.cat([first, tokens], dim=1)
        tokens = tokens + self.weights["vision_model.embeddings.position_embedding.weight"]
        if not self.siglip:
            tokens = self._norm(tokens, "vision_model.pre_layrnorm", told)
        tokens = self._blocks(tokens, "vision_model", told, None)
        if not self.siglip:
            pooled = self._norm(tokens[:, 0], "vision_model.post_layernorm", told)
            return pooled @ self.weights["visual_projection.weight"].T
        return self._attended(self._norm(tokens, "vision_model.post_layernorm", told), told)

    def text_features(self, ids: Tensor) -> Tensor:
        """Token ids (N, W) -> (N, E): CLIP's are read at their first end, by a causal tower; SigLIP's at the last place."""
        told, words = self.config["text_config"], ids.shape[1]
        tokens = self.weights["text_model.embeddings.token_embedding.weight"][ids]
        tokens = tokens + self.weights["text_model.embeddings.position_embedding.weight"][:words]
        mask = None if self.siglip else torch.full((words, words), float("-inf"), dtype=torch.float64).triu(1)
        tokens = self._norm(self._blocks(tokens, "text_model", told, mask), "text_model.final_layer_norm", told)
        if self.siglip:
            return self._linear(tokens[:, -1], "text_model.head")
        ends = (ids == told["eos_token_id"]).int().argmax(dim=1)
        return tokens[torch.arange(len(ids)), ends] @ self.weights["text_projection.weight"].T

    def _blocks(self, tokens: Tensor, tower: str, told: Mapping[str, Any], mask: Tensor | None) -> Tensor:
        for number in range(told["num_hidden_layers"]):
            block, heads = f"{tower}.encoder.layers.{number}", told["num_attention_heads"]
            seen = self._norm(tokens, f"{block}.layer_norm1", told)
            query, key, value = (
                self._linear(seen, f"{block}.self_attn.{part}_proj").unflatten(2, (heads, -1)).transpose(1, 2)
                for part in "qkv"
            )
            mixed = attend(query, key, value, mask).transpose(1, 2).flatten(2)
            tokens = tokens + self._linear(mixed, f"{block}.self_attn.out_proj")
            tokens = tokens + self._mlp(self._norm(tokens, f"{block}.layer_norm2", told), f"{block}.mlp", told)
        return tokens

    def _attended(self, tokens: Tensor, told: Mapping[str, Any]) -> Tensor:
        """SigLIP's head: a learned query looks at all patches."""
        heads, at = told["num_attention_heads"], "vision_model.head"
        weights = self.weights[f"{at}.attention.in_proj_weight"].chunk(3)
        biases = self.weights[f"{at}.attention.in_proj_bias"].chunk(3)
        probe = self.weights[f"{at}.probe"].expand(len(tokens), 1, -1)
        query, key, value = (
            F.linear(given, weight, bias).unflatten(2, (heads, -1)).transpose(1, 2)
            for given, weight, bias in zip((probe, tokens, tokens), weights, biases, strict=True)
        )
        pooled = self._linear(attend(query, key, value, None).transpose(1, 2).flatten(2), f"{at}.attention.out_proj")
        return (pooled + self._mlp(self._norm(pooled, f"{at}.layernorm", told), f"{at}.mlp", told))[:, 0]

    def _mlp(self, tokens: Tensor, name: str, told: Mapping[str, Any]) -> Tensor:
        return self._linear(ACTIVATIONS[told["hidden_act"]](self._linear(tokens, f"{name}.fc1")), f"{name}.fc2")

    def _norm(self, tokens: Tensor, name: str, told: Mapping[str, Any]) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(tokens, tokens.shape[-1:], weight, bias, told.get("layer_norm_eps", CLIPS_EPS))

    def _linear(self, tokens: Tensor, name: str) -> Tensor:
        return F.linear(tokens, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot products, written out: (N, heads, W, D)."""
    scores = query @ key.mT / query.shape[-1] ** 0.5
    return (scores if mask is None else scores + mask).softmax(dim=-1) @ value
