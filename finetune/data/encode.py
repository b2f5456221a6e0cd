"""From video files to what a model makes of them, in batches: what evaluation, indexing and whoever has files call.

    clips = [Clip("video7010", Path("video7010.mp4")), ...]
    for batch in encode_clips(model, clips, VideoSettings(), workers=4):
        batch.first, batch.video.pooled, batch.whole        rows first ... of `clips`

Workers decode, this process encodes, and holds one batch at a time. A video that gives no frame keeps its row: `whole` is
False there, and its features mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stillreel.animate.render.device import normalize
from stillreel.configs.video import VideoSettings
from stillreel.finetune.data.clips import Clip, ClipSource, empty_clips, fill_clip
from stillreel.finetune.data.store import FrameStore, open_source
from stillreel.finetune.video import VideoError
from stillreel.pretrain.data.workers import load_batches
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.features import VideoFeatures


class DecodedClips(NamedTuple):
    """Clips first ... of those that were asked for. `troubles` say what is wrong with files, of whole clips too."""

    first: int
    frames: Tensor  # uint8 (B, T, H, W, 3)
    mask: Tensor  # bool (B, T)
    whole: list[bool]
    troubles: list[str]


class EncodedClips(NamedTuple):
    """Clips first ... of those that were asked for, on the model's device, without gradients."""

    first: int
    video: VideoFeatures  # of B clips
    whole: list[bool]
    troubles: list[str]


class ClipReader(Dataset[DecodedClips]):
    """Batch k of some clips: those from k * batch on. Pure, so that any process may read any batch."""

    def __init__(
        self, clips: Sequence[Clip], settings: VideoSettings, batch: int, store: FrameStore | None = None
    ) -> None:
        assert batch > 0
        self._clips, self._settings, self._batch, self._store = clips, settings, batch, store
        self._source: ClipSource | None = None

    def __len__(self) -> int:
        return -(-len(self._clips) // self._batch)

    def __getitem__(self, number: int) -> DecodedClips:
        first = number * self._batch
        clips = self._clips[first : first + self._batch]
        frames, mask = empty_clips(len(clips), self._settings)
        self._source = self._source or open_source(self._settings, self._store)  # in the process that reads
        whole, troubles = [], []
        for row, clip in enumerate(clips):
            try:
                troubles += fill_clip(self._source, clip, frames.numpy()[row], mask.numpy()[row])
                whole.append(True)
            except VideoError as trouble:
                troubles.append(str(trouble))
                whole.append(False)
        return DecodedClips(first, frames, mask, whole, troubles)


def encode_clips(
    model: VideoTextModel,
    clips: Sequence[Clip],
    settings: VideoSettings,
    *,
    batch: int = 32,
    workers: int = 0,
    autocast: torch.dtype | None = None,
    share: tuple[int, int] = (0, 1),
    store: FrameStore | None = None,
) -> Iterator[EncodedClips]:
    """Features of clips in batches, in order; with `share` (rank, ranks) only batches rank, rank + ranks, ...

    `autocast` is the type of the towers' arithmetic; with a `store` its frames are read, not the files. The model should be in
    evaluation mode. DataError when a worker dies.
    """
    reader = ClipReader(clips, settings, batch, store)
    for read in load_batches(reader, order=range(share[0], len(reader), share[1]), workers=workers):
        video = encode_frames(model, read.frames, read.mask, autocast)
        yield EncodedClips(read.first, video, read.whole, read.troubles)


def encode_frames(
    model: VideoTextModel, frames: Tensor, mask: Tensor, autocast: torch.dtype | None = None
) -> VideoFeatures:
    """Features of frames uint8 (B, T, H, W, 3) with mask (B, T), on the model's device."""
    weights = next(model.parameters())
    seen = normalize(frames.to(weights.device, non_blocking=True), dtype=weights.dtype)
    shown = mask.to(weights.device, non_blocking=True)
    with torch.no_grad(), torch.autocast(weights.device.type, autocast, enabled=autocast is not None):
        features: VideoFeatures = model.encode_video(seen, shown)
    return features
