"""From video files to what a model makes of them, in batches: what evaluation, indexing and whoever has files call.

    clips = [Clip("video7010", Path("video7010.mp4")), ...]
    for batch in encode_clips(model, clips, VideoSettings(), workers=4):
        batch.first, batch.video.pooled, batch.whole        rows first ... of `clips`

Workers decode, this process encodes, and holds one batch at a time. A video that gives no frame keeps its row: `whole` is
False there, and its features mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from animate.device import normalised
from configs import DataError
from configs.video import VideoSettings
from finetune.clips import Clip, ClipSource, empty_clips, fill_clip
from finetune.store import FrameStore, open_source
from finetune.video import VideoTrouble
from pretrain.data.loader import PATIENCE_S
from pretrain.data.workers import heed_only_parent
from pretrain.model import VideoTextModel
from pretrain.model.features import VideoFeatures


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
            except VideoTrouble as trouble:
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
    start_method: str | None = None,
) -> Iterator[EncodedClips]:
    """Features of clips in batches, in order; with `share` (rank, ranks) only batches rank, rank + ranks, ...

    `autocast` is the type of the towers' arithmetic; with a `store` its frames are read, not the files. The model should be in
    evaluation mode. DataError when a worker dies.
    """
    reader = ClipReader(clips, settings, batch, store)
    loader = DataLoader(
        reader,
        batch_size=None,
        sampler=range(share[0], len(reader), share[1]),
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=heed_only_parent,
        multiprocessing_context=start_method if workers else None,
        timeout=PATIENCE_S if workers else 0,
        generator=torch.Generator(),  # a loader draws a number from it, and must not from the run's
    )
    decoded = iter(loader)
    while True:
        try:
            read = next(decoded, None)
        except RuntimeError as error:
            raise DataError(f"a loader worker failed or was killed: {error}") from None
        if read is None:
            return
        yield EncodedClips(read.first, encode_frames(model, read, autocast), read.whole, read.troubles)


def encode_frames(model: VideoTextModel, clips: DecodedClips, autocast: torch.dtype | None = None) -> VideoFeatures:
    """Features of decoded clips, on the model's device."""
    weights = next(model.parameters())
    frames = normalised(clips.frames.to(weights.device, non_blocking=True), dtype=weights.dtype)
    mask = clips.mask.to(weights.device, non_blocking=True)
    with torch.no_grad(), torch.autocast(weights.device.type, autocast, enabled=autocast is not None):
        features: VideoFeatures = model.encode_video(frames, mask)
    return features


def _as_it_is(batch: Any) -> Any:
    return batch
