"""From a sample of a shard to frames: what a loader calls, whatever the store."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from stillreel.animate.camera.recipe import RENDERER_VERSION, Recipe
from stillreel.animate.pictures.picture import stored_pixels
from stillreel.animate.render.cpu import Renderer
from stillreel.configs.build import ClipSettings
from stillreel.configs.system.claims import damage_of, parse_json

Pixels = NDArray[np.uint8]

_log = logging.getLogger(__name__)
_MOST_PIXELS: int = ClipSettings.model_fields["max_pixels"].default


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
        with damage_of(f"sample {key} is no clip of stillreel's"):
            described = sample["json"]
            if isinstance(described, bytes):
                described = parse_json(described)
            recipe = Recipe.from_json(described["recipe"])
            frames = self._film(sample, recipe)
            return Clip(key, frames, described["captions"][recipe.caption])

    def _film(self, sample: Mapping[str, Any], recipe: Recipe) -> Pixels:
        if "jpg" not in sample:
            return stored_frames(sample, self._frames, self._size)
        load = picture_of(sample["jpg"], recipe)
        return self._renderer.film(for_this_renderer(recipe), load, self._frames, self._size)


def picture_of(jpeg: bytes, recipe: Recipe) -> Callable[..., Pixels]:
    """The stored picture of a recipe, to be decoded: `stored_pixels` without its first argument.

    ValueError when its header claims another size than the recipe, or one that no build stores.
    """
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    if (width, height) != recipe.picture or width * height > _MOST_PIXELS:
        expected = f"{recipe.picture[0]} x {recipe.picture[1]}"
        raise ValueError(f"its picture claims {width} x {height} pixels; its recipe films {expected}")
    return partial(stored_pixels, jpeg)


def salient_point_of(described: Mapping[str, Any], picture: tuple[int, int]) -> tuple[int, int] | None:
    """The point that a sample's JSON says its picture is about; None of a build without aim=. ValueError if it is outside."""
    if "salient_point" not in described:
        return None
    match described["salient_point"]:
        case [int(x), int(y)] if 0 <= x < picture[0] and 0 <= y < picture[1]:
            return x, y
    raise ValueError(f"salient_point {described['salient_point']!r}; expected a pixel of {picture[0]} x {picture[1]}")


def stored_frames(sample: Mapping[str, Any], frames: int, size: int, out: Pixels | None = None) -> Pixels:
    """Frames uint8 (T, size, size, 3) of a sample of store=frames or store=video, into `out` if given.

    ValueError when it holds another number or size of them; sizes are taken from headers, before anything is decoded.
    """
    clip: Pixels = np.empty((frames, size, size, 3), np.uint8) if out is None else out
    if "mp4" in sample:
        _decode_video(sample["mp4"], clip)
        return clip
    endings = sorted(ending for ending in sample if ending.endswith(".jpg"))
    _check_shape(len(endings), size, size, clip)
    for ending, frame in zip(endings, clip, strict=True):
        height, width, _, _ = simplejpeg.decode_jpeg_header(sample[ending])
        _check_shape(frames, width, height, clip)
        simplejpeg.decode_jpeg(sample[ending], "RGB", buffer=frame)
    return clip


def for_this_renderer(recipe: Recipe) -> Recipe:
    """The recipe as this renderer films it; one that was drawn for another is said once a process."""
    if recipe.renderer == RENDERER_VERSION:
        return recipe
    _warn_of(recipe.renderer)
    return replace(recipe, renderer=RENDERER_VERSION)


@cache
def _warn_of(renderer: int) -> None:
    _log.warning(
        f"these shards were made for renderer version {renderer}, this stillreel has {RENDERER_VERSION}: frames rendered now "
        "differ a little from those of the build"
    )


def _decode_video(data: bytes, clip: Pixels) -> None:
    import av

    with av.open(io.BytesIO(data), "r") as container:
        (video,) = container.streams.video
        _check_shape(len(clip), video.width, video.height, clip)
        count = 0
        for count, frame in enumerate(container.decode(video), 1):
            if count <= len(clip):
                clip[count - 1] = frame.to_ndarray(format="rgb24")
        _check_shape(count, video.width, video.height, clip)


def _check_shape(frames: int, width: int, height: int, clip: Pixels) -> None:
    if (frames, height, width) != clip.shape[:3]:
        asked = f"{clip.shape[0]} of {clip.shape[2]} x {clip.shape[1]}"
        raise ValueError(f"holds {frames} frames of {width} x {height}; asked for {asked}")
