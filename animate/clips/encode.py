"""Frames to bytes: one JPEG a frame, or one mp4 a clip. The same frames give the same bytes."""

from __future__ import annotations

import io

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

# One thread, and no macroblock tree: with AVX-512 it makes other bytes of the same frames now and then.
_DETERMINISTIC = "threads=1:lookahead-threads=1:sliced-threads=0:mbtree=0"


def encode_frames(clip: Pixels, quality: int) -> list[bytes]:
    """A JPEG (4:2:0) of each frame of a clip uint8 (T, H, W, 3)."""
    return [simplejpeg.encode_jpeg(frame, quality=quality, colorspace="RGB", colorsubsampling="420") for frame in clip]


def crf_of_quality(quality: int) -> float:
    """x264's constant rate factor for a JPEG-like quality: 90 gives 23, x264's own default."""
    return 18 + (100 - quality) / 2


def encode_video(clip: Pixels, *, fps: int, quality: int = 90) -> bytes:
    """An mp4 (H.264, yuv420p) of a clip uint8 (T, H, W, 3), H and W even; `quality` as a JPEG's. Equal frames, equal bytes."""
    import av

    sink = io.BytesIO()
    # `bitexact` keeps the muxer's version out of the file.
    with av.open(sink, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        options = {
            "crf": f"{crf_of_quality(quality):g}",
            "preset": "veryfast",
            "flags": "+bitexact",
            "x264-params": _DETERMINISTIC,
        }
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for pixels in clip:
            planes = cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    return sink.getvalue()
