"""Small videos, made by PyAV, in which each frame tells its number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

TICKS = 1000  # a second


def frame_of(number: int, width: int = 96, height: int = 64) -> Pixels:
    """A frame whose bars say its number in binary, most significant first, on moving texture."""
    ramp = (np.arange(width) * 2 + number * 5) % 200
    pixels = np.repeat(np.repeat(ramp[None, :, None], height, 0), 3, 2).astype(np.uint8)
    for bit in range(8):
        left = bit * width // 8
        pixels[: height // 2, left : left + width // 8] = 235 if number >> (7 - bit) & 1 else 20
    return pixels


def number_of(pixels: Pixels) -> int:
    """The number that a frame, of any size, tells."""
    height, width = pixels.shape[:2]
    bits = [pixels[height // 4, int((bit + 0.5) * width / 8)].mean() > 128 for bit in range(8)]
    return sum(bool(on) << (7 - bit) for bit, on in enumerate(bits))


def write_video(
    path: Path,
    frames: int | Sequence[Pixels] = 60,
    *,
    fps: int = 30,
    ticks: Sequence[int] | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    sample_aspect: Fraction | None = None,
    rotation: int | None = None,
    size: tuple[int, int] = (96, 64),
    container_options: dict[str, str] | None = None,
    title: str = "",
) -> Path:
    """A video of these frames (or of that many numbered ones); `ticks`, milliseconds, are their times."""
    pictures = [frame_of(number, *size) for number in range(frames)] if isinstance(frames, int) else frames
    with av.open(str(path), "w", options=container_options or {}) as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=fps, options=options or {"crf": "12"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        if sample_aspect:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, TICKS)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[number], Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
