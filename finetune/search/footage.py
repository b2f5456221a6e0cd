"""Videos as batches of frames, with what is wrong with them and when their frames are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stillreel.configs.video import VideoSettings
from stillreel.finetune.search.sources import Source
from stillreel.finetune.search.store import Entry
from stillreel.pretrain.data.workers import load_batches
from stillreel.pretrain.video import VideoError


class Footage(NamedTuple):
    """B files, of which those with frames have their rows in `frames`, in the same order.

    `entries[i].row` is the place of file i in `frames`, -1 where it gave none.
    """

    entries: list[Entry]
    frames: Tensor  # uint8 (b, T, H, W, 3)
    mask: Tensor  # bool (b, T)
    times: Tensor  # fp32 (b, T), seconds; NaN where there is no frame


class FootageReader(Dataset[Footage]):
    """Batch k of some entries of a source. Pure, so that any process may read any batch."""

    def __init__(self, source: Source, files: Sequence[Entry], settings: VideoSettings, batch: int) -> None:
        cv2.setNumThreads(1)  # its threads do not survive a fork
        self._source, self._files, self._settings, self._batch = source, files, settings, batch

    def __len__(self) -> int:
        return -(-len(self._files) // self._batch)

    def __getitem__(self, number: int) -> Footage:
        settings = self._settings
        files = self._files[number * self._batch : (number + 1) * self._batch]
        frames = torch.zeros(len(files), settings.frames, settings.size, settings.size, 3, dtype=torch.uint8)
        mask, times = torch.zeros(frames.shape[:2], dtype=torch.bool), torch.full(frames.shape[:2], torch.nan)
        entries, row = [], 0
        for file in files:
            try:
                clip = self._source.read(file)
            except VideoError as trouble:
                entries.append(file._replace(reason=trouble.reason, detail=trouble.detail))
                continue
            frames[row], mask[row] = torch.from_numpy(clip.frames), torch.from_numpy(clip.mask)
            times[row, : len(clip.times)] = torch.from_numpy(clip.times.astype(np.float32))
            reason = clip.flaws[0].reason if clip.flaws else ""
            detail = "; ".join([one.detail for one in clip.flaws[:1]] + [str(one) for one in clip.flaws[1:]])
            entries.append(file._replace(row=row, duration=clip.end, reason=reason, detail=detail))
            row += 1
        return Footage(entries, frames[:row], mask[:row], times[:row])


def read_footage(
    source: Source, files: Sequence[Entry], settings: VideoSettings, *, batch: int, workers: int
) -> Iterator[Footage]:
    """Entries in batches, in order; DataError when a worker dies."""
    return load_batches(FootageReader(source, files, settings, batch), workers=workers)
