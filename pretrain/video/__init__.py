"""From a video file to T frames: uint8 (T, H, W, 3), upright, at the instants that the published codes take.

    errors.py     what can be wrong with a file, a closed list, and the one boundary behind which all is one of these
    timeline.py   when a video's frames are shown
    samplers.py   timeline and span -> frame numbers; pure
    boxes.py      what an MP4 claims of itself, before anything believes it
    container.py  file -> packets of one stream and their timeline, opened so that nothing else can be
    decode.py     frame numbers -> decoded frames, with no more decoded than they need
    crop.py       the part of its frames that a clip shows in training
    pixels.py     a decoded frame -> size x size, upright, in SDR
    reader.py     all of these together: what the rest of this room calls
    picture.py    a picture as a clip
    sandbox.py    a stranger's file, decoded in a process that may die of it
    beside.py     videos in memory, one after another, decoded in such a process: what the stream calls

Knows no torch and no annotations. Decoding is PyAV's: benchmarks/video.py says why.
"""

from typing import TYPE_CHECKING, Any

from stillreel.pretrain.video.errors import TROUBLES, VideoError
from stillreel.pretrain.video.timeline import Span, Timeline

if TYPE_CHECKING:
    from stillreel.pretrain.video.reader import MIDDLE, VideoClip, VideoReader, View

__all__ = ["MIDDLE", "TROUBLES", "Span", "Timeline", "VideoClip", "VideoError", "VideoReader", "View"]


def __getattr__(name: str) -> Any:
    """What needs PyAV is imported when it is asked for: stills are streamed on machines that have none."""
    if name not in ("MIDDLE", "VideoClip", "VideoReader", "View"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from stillreel.pretrain.video import reader

    return getattr(reader, name)
