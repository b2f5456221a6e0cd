"""From a sample of a shard to frames: what a loader calls, whatever the store."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from animate.picture import stored_pixels
from animate.recipe import RENDERER_VERSION, Recipe
from animate.render import Renderer
from configs import DataError

Pixels = NDArray[np.uint8]


class Clip(NamedTuple):
    """A clip in memory: `frames` uint8 (T, H, W, 3), RGB; `caption` is the one that the recipe chose."""

    key: str
    frames: Pixels
    caption: str


class SampleDecoder:
    """Turns a sample, a mapping of endings to bytes with `__key__`, into a Clip. Give it to `shards.as_webdataset`.

    Samples of store=recipe are rendered now, at the `frames` and `size` asked for; those of store=frames and
    store=video hold what they hold, and another count or size is a DataError, as is a sample that lacks a member.
    """

    def __init__(self, frames: int = 12, size: int = 224) -> None:
        self._frames = frames
        self._size = size
        self._renderer = Renderer()

    def __call__(self, sample: Mapping[str, Any]) -> Clip:
        key = sample["__key__"]
        try:
            described = sample["json"]
            if isinstance(described, bytes):
                described = json.loads(described)
            recipe = Recipe.from_json(described["recipe"])
            frames = self._film(sample, recipe)
            caption = described["captions"][recipe.caption]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise DataError(f"sample {key} is no clip of stillreel's: {error}") from None
        if frames.shape[:3] != (self._frames, self._size, self._size):
            found = f"{frames.shape[0]} frames of {frames.shape[2]} x {frames.shape[1]}"
            raise DataError(f"sample {key} holds {found}; asked for {self._frames} of {self._size} x {self._size}")
        return Clip(key, frames, caption)

    def _film(self, sample: Mapping[str, Any], recipe: Recipe) -> Pixels:
        if "jpg" in sample:
            return self._renderer.film(
                _for_this_renderer(recipe), partial(stored_pixels, sample["jpg"]), self._frames, self._size
            )
        if "mp4" in sample:
            return _decode_video(sample["mp4"])
        endings = sorted(ending for ending in sample if ending.endswith(".jpg"))
        return np.stack([simplejpeg.decode_jpeg(sample[ending], "RGB") for ending in endings])


def _for_this_renderer(recipe: Recipe) -> Recipe:
    """The recipe as this renderer films it; one that was drawn for another is said once a process."""
    if recipe.renderer == RENDERER_VERSION:
        return recipe
    warnings.warn(
        f"these shards were made for renderer version {recipe.renderer}, this stillreel has {RENDERER_VERSION}: frames "
        "rendered now differ a little from those of the build",
        stacklevel=2,
    )
    return replace(recipe, renderer=RENDERER_VERSION)


def _decode_video(data: bytes) -> Pixels:
    import av

    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
