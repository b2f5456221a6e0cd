"""Between a model and an index: what is encoded, stored as halves, and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillreel.configs import DataError, RequestError
from stillreel.finetune.search.store import VideoIndex, digest_of_file
from stillreel.pretrain.model import VideoTextModel, load_model
from stillreel.pretrain.model.checkpoint import CONFIG, WEIGHTS
from stillreel.pretrain.model.features import VideoFeatures

Halves = NDArray[np.float16]


def open_model(path: str, device: str) -> VideoTextModel:
    """A model of ours on a device (auto: a CUDA one where there is one), for inference."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RequestError("device=cuda: torch finds no CUDA device here")
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    model: VideoTextModel = load_model(Path(path).expanduser()).requires_grad_(False).to(where)
    return model


def model_digest(path: str) -> str:
    """sha256 of a model's weights and configuration."""
    folder = Path(path).expanduser()
    return ":".join(digest_of_file(folder / name) for name in (WEIGHTS, CONFIG))


def to_halves(features: Tensor, what: str) -> Halves:
    """fp16 on the CPU. DataError where the model gave what is not finite."""
    halves: Halves = features.to("cpu", torch.float16).numpy()
    if not np.isfinite(halves).all():
        raise DataError(f"the model's {what} are not finite, or too large for fp16: such a model cannot be indexed")
    return halves


def stored_features(index: VideoIndex, rows: NDArray[np.int64], device: torch.device | str) -> VideoFeatures:
    """Features of these rows of an index, as the model gave them but rounded to fp16."""
    width = index.frames.shape[2]
    frames = torch.from_numpy(index.frames[rows]).float().to(device)
    vectors = torch.from_numpy(index.vectors[rows]).float().to(device)
    patches = None if index.patches is None else torch.from_numpy(index.patches[rows]).float().to(device)
    aligned = vectors[:, width:] if vectors.shape[1] > width else None
    mask = torch.from_numpy(~np.isnan(index.times[rows])).to(device)
    return VideoFeatures(frames, mask, vectors[:, :width], aligned, patches)
