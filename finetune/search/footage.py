"""Video files as batches of frames, with what is wrong with them and when their frames are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from configs import DataError
from configs.video import VideoSettings
from finetune.search.store import Entry
from finetune.video import VideoReader, VideoTrouble
from pretrain.data.loader import PATIENCE_S


class Footage(NamedTuple):
    """B files, of which those with frames have their rows in `frames`, in the same order.

    `entries[i].row` is the place of file i in `frames`, -1 where it gave none.
    """

    entries: list[Entry]
    frames: Tensor  # uint8 (b, T, H, W, 3)
    mask: Tensor  # bool (b, T)
    times: Tensor  # fp32 (b, T), seconds; NaN where there is no frame


class FootageReader(Dataset[Footage]):
    """Batch k of some files of a folder. Pure, so that any process may read any batch."""

    def __init__(self, root: Path, files: Sequence[Entry], settings: VideoSettings, batch: int) -> None:
        self._root, self._files, self._settings, self._batch = root, files, settings, batch

    def __len__(self) -> int:
        return -(-len(self._files) // self._batch)

    def __getitem__(self, number: int) -> Footage:
        settings, reader = self._settings, VideoReader(self._settings)
        files = self._files[number * self._batch : (number + 1) * self._batch]
        frames = torch.zeros(len(files), settings.frames, settings.size, settings.size, 3, dtype=torch.uint8)
        mask, times = torch.zeros(frames.shape[:2], dtype=torch.bool), torch.full(frames.shape[:2], torch.nan)
        entries, row = [], 0
        for file in files:
            try:
                clip = reader.read(self._root / file.path)
            except VideoTrouble as trouble:
                entries.append(file._replace(reason=trouble.reason, detail=trouble.detail))
                continue
            frames[row], mask[row] = torch.from_numpy(clip.frames), torch.from_numpy(clip.mask)
            times[row, : len(clip.times)] = torch.from_numpy(clip.times.astype(np.float32))
            flaw = clip.flaws[0] if clip.flaws else None
            entries.append(
                file._replace(
                    row=row,
                    duration=clip.end,
                    reason=flaw.reason if flaw else "",
                    detail="; ".join(map(str, clip.flaws[1:] and clip.flaws)) or (flaw.detail if flaw else ""),
                )
            )
            row += 1
        return Footage(entries, frames[:row], mask[:row], times[:row])


def read_footage(
    root: Path, files: Sequence[Entry], settings: VideoSettings, *, batch: int, workers: int
) -> Iterator[Footage]:
    """Files in batches, in order; DataError when a worker dies."""
    loader = DataLoader(
        FootageReader(root, files, settings, batch),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        timeout=PATIENCE_S if workers else 0,
    )
    batches = iter(loader)
    while True:
        try:
            found = next(batches, None)
        except RuntimeError as error:
            raise DataError(f"a process that decodes failed or was killed: {error}") from None
        if found is None:
            return
        yield found


def _as_it_is(batch: Any) -> Any:
    return batch
