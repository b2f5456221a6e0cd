"""The clips that a run's model is asked about: of its held-out set, or of the benchmark that it was finetuned on.

All captions of the set are read, but only a gallery of its clips, evenly spread: encoding all of them would take hours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stillreel.configs import DataError, RequestError
from stillreel.configs.finetune import FinetuneSettings
from stillreel.configs.pretrain import PretrainSettings
from stillreel.finetune.benchmarks import SplitName
from stillreel.finetune.data.asked import open_asked, store_asked
from stillreel.finetune.data.loader import clips_of
from stillreel.finetune.evaluation.benchmark import BenchmarkClips
from stillreel.pretrain.data.together import Failure
from stillreel.pretrain.evaluation.held_out import HeldOutDataset, choose_samples
from stillreel.shards.stream.stream import open_blend

_AT_ONCE = 64  # clips that are read at once


class Gallery(NamedTuple):
    """A set's captions, one a clip, and the clips that are there: their places among the captions, and what they show."""

    captions: list[str]
    places: list[int]
    frames: Tensor  # uint8 (G, T, H, W, 3)
    mask: Tensor | None  # bool (G, T): where there is a frame; None: everywhere
    about: str  # whose clips they are


def read_held_out(settings: PretrainSettings, count: int) -> Gallery:
    """Of the run's evaluation. RequestError where it had none, DataError where none of the `count` clips is whole."""
    if not settings.eval.data:
        raise RequestError("the run had no held-out set (eval.data)")
    blend = open_blend(settings.eval.data)
    # What a loader renders agrees with what a device does.
    data = settings.model_copy(update={"render": "loader"})
    spots = choose_samples(blend, data.seed, settings.eval.clips)
    wanted = set(spread(len(spots), count))
    batches = HeldOutDataset(blend, data, spots, _AT_ONCE)
    captions: list[str] = []
    places: list[int] = []
    frames: list[Tensor] = []
    masks: list[Tensor] = []
    for number in range(len(batches)):
        batch = batches[number]
        if isinstance(batch, Failure):
            raise batch.error()
        assert batch.frames is not None
        for slot in np.flatnonzero(batch.whole).tolist():
            if number * _AT_ONCE + slot in wanted:
                places.append(len(captions))
                frames.append(batch.frames[slot].clone())
                masks += [] if batch.mask is None else [batch.mask[slot]]
            captions.append(batch.captions[slot])
    if not frames:
        raise DataError(f"{settings.eval.data}: none of the clips to be shown is whole")
    return Gallery(captions, places, torch.stack(frames), torch.stack(masks) if masks else None, "Held-out clips")


def read_benchmark(name: str, split: SplitName, settings: FinetuneSettings, count: int) -> Gallery:
    """Of a split, each video with the first of its captions. RequestError where it is no retrieval, or is not there."""
    store = store_asked(settings)
    located = open_asked(name, settings, (split,), store).located
    if located.benchmark.protocol.task != "retrieval":
        raise RequestError(f"{located.benchmark.protocol.title} is no retrieval")
    videos, clips = located.benchmark.splits[split].videos, clips_of(located, split)
    wanted = spread(len(clips), count)
    reader = BenchmarkClips([clips[at] for at in wanted], settings.video_settings(), len(wanted), 0, store)
    read = reader[0]
    if not any(read.whole):
        raise DataError(f"none of the videos to be shown can be read: {'; '.join(read.troubles[:3])}")
    whole = torch.tensor(read.whole)
    return Gallery(
        captions=[video.captions[0] for video in videos],
        places=[at for at, good in zip(wanted, read.whole, strict=True) if good],
        frames=read.frames[whole],
        mask=None if read.mask is None else read.mask[whole],
        about=f"Videos of the {split} split, asked by the first caption of each",
    )


def spread(total: int, count: int) -> list[int]:
    """`count` numbers below `total`, evenly spread, or all of them."""
    return [round(place) for place in np.linspace(0, total - 1, min(count, total)).tolist()]
