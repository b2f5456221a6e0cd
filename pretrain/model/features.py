"""What the towers and the temporal modules hand on: features with their masks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor


class Frames(NamedTuple):
    """What the image tower says of B clips of T frames."""

    features: Tensor  # (B, T, E), not normalized
    mask: Tensor  # (B, T) bool, False for padding
    blocks: tuple[
        Tensor, ...
    ]  # (B, T, 1 + L, D) after each of its last blocks: as many as the temporal module asks for
    visual: Any  # itself, for modules that share its weights
    places: Tensor | None  # (B, L) int64: which of the grid's places the L patches have; None: all, in their order
    draws: Tensor | None  # (B,) int64, what random draws are made of
    patches: Tensor | None = None  # (B, T, n * n, E) for the re-ranker, if it asks for them


class VideoFeatures(NamedTuple):
    """What heads compare of a clip."""

    frames: Tensor  # (B, T, E) after the temporal module, not normalized
    mask: Tensor  # (B, T) bool
    pooled: Tensor  # (B, E)
    aligned: Tensor | None  # (B, E) of length one, by the centers of TAB
    patches: Tensor | None = None  # (B, T, n * n, E), not normalized, for the re-ranker
    draws: Tensor | None = None  # (B,) int64, what random draws are made of


class TextFeatures(NamedTuple):
    """What heads compare of a caption."""

    tokens: Tensor  # (B, W, E) of all words, projected, not normalized
    mask: Tensor  # (B, W) bool, start and end of text included
    pooled: Tensor  # (B, E), the token at the end of text
    aligned: Tensor | None  # (B, E) as of a clip
    draws: Tensor | None = None  # (B,) as of a clip


Features = TypeVar("Features", TextFeatures, VideoFeatures)


def in_fp32(features: Features) -> Features:
    """Half precision cast up; fp64 stays."""
    halves = (torch.float16, torch.bfloat16)
    cast = (one.float() if one is not None and one.dtype in halves else one for one in features)
    return type(features)._make(cast)


def without_autocast(device: str) -> AbstractContextManager[None]:
    """Nothing to switch off on devices that have none, such as meta."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def pick_rows(features: Features, rows: Tensor | slice) -> Features:
    """These rows of every field."""
    if isinstance(rows, slice):
        return type(features)._make(None if field is None else field[rows] for field in features)
    # Where a row is picked twice, indexing would add its gradients on several threads, in any order; this adds in one.
    return type(features)._make(None if field is None else field.index_select(0, rows) for field in features)


def last_place(mask: Tensor) -> Tensor:
    """Index (A,) of the last True of each row of a mask (A, W): of captions, the end of text."""
    return mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)


def unit(vectors: Tensor) -> Tensor:
    """Vectors (..., E) scaled to length one."""
    lengths: Tensor = vectors.norm(dim=-1, keepdim=True)
    return vectors / lengths


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the second axis of values (B, T, ...), where mask (B, T) holds; zero where it holds nowhere."""
    weights = mask.to(values.dtype).reshape(*mask.shape, *[1] * (values.ndim - 2))
    return (values * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
