"""From the loader to the device: a batch as the model reads it.

    loader -> frames uint8, or pictures and a plan -> device -> render -> normalize -> Batch

On CUDA that happens on a stream of its own. A loop that does not wait for its step asks for the next batch while the device
still computes, so batches are made one ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from stillreel.animate.render.device import render_normalized
from stillreel.pretrain.data import BatchLoader, ClipBatch
from stillreel.pretrain.model.normalize import CLIPS_PIXELS, Pixels, affine, normalize
from stillreel.pretrain.objectives import Batch, Classes, ClassTexts, Identity
from stillreel.shards.stream.stream import State


class DeviceBatch(NamedTuple):
    """A rank's share of a global batch, on its device; where the stream is after it; and the keys of its samples."""

    batch: Batch
    after: State
    keys: list[str]


class DevicePrefetcher:
    """Iterate once, over what a loader hands out."""

    def __init__(
        self,
        loader: BatchLoader,
        device: torch.device,
        *,
        dtype: torch.dtype,
        texts: ClassTexts | None = None,
        pixels: Pixels = CLIPS_PIXELS,
    ) -> None:
        """`dtype` and `pixels` are what frames are normalized to; `texts` are of the classes that clips are told apart by, if
        they are."""
        self._loader = loader
        self._texts = texts
        self._pixels = pixels
        self._device = device
        self._dtype = dtype
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __iter__(self) -> Iterator[DeviceBatch]:
        for clips in self._loader:
            with torch.cuda.stream(self._side) if self._side else nullcontext():
                batch = self._batch(clips)
            self._hand_over(batch)
            yield DeviceBatch(batch, self._loader.state, clips.keys)

    def _batch(self, clips: ClipBatch) -> Batch:
        assert clips.token_ids is not None
        return Batch(
            self._frames(clips),
            None if clips.mask is None else self._moved(clips.mask),
            self._moved(clips.token_ids),
            None,
            Identity(*(self._moved(one) for one in clips.identity)),
            self._classes(clips.captions),
        )

    def _frames(self, clips: ClipBatch) -> Tensor:
        if clips.stills is not None:
            scale, shift = affine(*self._pixels, self._device)
            return render_normalized(clips.stills, self._device, scale, shift, self._dtype)
        assert clips.frames is not None
        return normalize(self._moved(clips.frames), *self._pixels, dtype=self._dtype)

    def _classes(self, captions: Sequence[str]) -> Classes | None:
        if self._texts is None:
            return None
        labels, token_ids, total = self._texts.deal(captions)
        return Classes(self._moved(self._pinned(labels)), self._moved(self._pinned(token_ids)), total)

    def _pinned(self, tensor: Tensor) -> Tensor:
        """In memory from which a device copies without being waited for. The loader pins what it hands out."""
        return tensor.pin_memory() if self._side else tensor

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)

    def _hand_over(self, batch: Batch) -> None:
        """The step's stream waits for this batch, and the memory of the batch waits for the step."""
        if self._side is None:
            return
        now = torch.cuda.current_stream(self._device)
        now.wait_stream(self._side)
        classes = batch.classes[:2] if batch.classes else ()
        for tensor in (batch.frames, batch.frame_mask, batch.token_ids, *batch.identity, *classes):
            if tensor is not None:
                tensor.record_stream(now)
