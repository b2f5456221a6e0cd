"""From frame numbers to decoded frames, with no more decoded than these frames need.

A frame needs what lies between it and the packet before it at which its codec starts afresh, and of that only what other
frames refer to. So: jump over the stretches in between, and let the decoder leave out frames that nothing refers to. Neither
changes a sample of the frames that are wanted; both are tested on that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import av.error
import numpy as np

from stillreel.pretrain.video.container import OpenVideo
from stillreel.pretrain.video.errors import Flaw, VideoError
from stillreel.pretrain.video.timeline import Timeline

# Decoders whose skip_frame=NONREF leaves out just the frames that no other refers to. (Of HEVC's, lower layers may.)
_SKIPPING = {"h264", "mpeg4", "mpeg2video", "mpeg1video"}


class FrameDecoder:
    """Decodes frames of one open video. `flaws` grows with what was met on the way."""

    def __init__(self, video: OpenVideo, max_seconds: float) -> None:
        self._video = video
        self._decoder = video.decoder()
        self._until = time.thread_time() + max_seconds
        self._max_seconds = max_seconds
        self._errors: list[str] = []
        self.timeline = video.timeline or self._timeline_by_decoding()

    @property
    def flaws(self) -> list[Flaw]:
        damaged = [Flaw("corrupt", f"{self._errors[0]}, {len(self._errors)} times")] if self._errors else []
        return self._video.flaws + damaged

    def frames(self, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """(number, frame) of each of the different `numbers`, ascending; those that do not come out are left out."""
        wanted = sorted(set(numbers))
        if self._video.order is None:
            yield from self._counted(wanted)
            return
        packets, order = self._video.packets, self._video.order
        number_of = {packets[int(order[number])].pts: number for number in wanted}
        for frame in self._decoded([int(order[number]) for number in wanted]):
            number = number_of.pop(frame.pts, None)
            if number is not None:
                yield number, self._checked(frame)

    def _decoded(self, positions: Sequence[int]) -> Iterator[Any]:
        """Frames of the packets at these positions, among others, in the order of presentation within each stretch."""
        needed = np.zeros(len(self._video.packets), np.int8)  # 1: for others' sake, 2: wanted itself
        for position in positions:
            needed[self._entry(position) : position + 1] = 1
        needed[list(positions)] = 2
        yield from self._run(needed)

    def _entry(self, position: int) -> int:
        """Where decoding must start for the frame of a packet to come out as if all before had been decoded."""
        packets = self._video.packets
        pts = packets[position].pts
        for entry in range(position, -1, -1):
            # A frame that is shown before the key frame it follows may refer to what lies before that.
            if packets[entry].starts_afresh and (packets[entry].pts or 0) <= (pts or 0):
                return entry
        return 0

    def _run(self, needed: np.ndarray) -> Iterator[Any]:
        decoder = self._restarted()
        skipping = self._video.codec in _SKIPPING
        last = int(np.flatnonzero(needed)[-1])
        running = True
        for position, data in enumerate(self._video.datas()):
            if position > last:
                break
            if not needed[position]:
                running = False
                continue
            if not running:
                yield from self._send(None)
                decoder.flush_buffers()
                running = True
            if skipping:
                decoder.skip_frame = "NONREF" if needed[position] == 1 else "DEFAULT"
            yield from self._send(data)
        yield from self._send(None)

    def _restarted(self) -> Any:
        if self._decoder.is_open:
            self._decoder.flush_buffers()
        return self._decoder

    def _send(self, data: Any) -> list[Any]:
        if time.thread_time() > self._until:
            raise VideoError(
                str(self._video.path), "too_slow", f"decoding took over {self._max_seconds:g} s (max_seconds)"
            )
        try:
            frames: list[Any] = self._decoder.decode(data)
        except av.error.FFmpegError as error:
            self._errors.append(error.strerror or str(error))
            return []
        return frames

    def _checked(self, frame: Any) -> Any:
        if frame.is_corrupt:
            self._errors.append("a frame is damaged")
        return frame

    def _counted(self, wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Of a video whose packets do not tell their frames: decode all, and count."""
        left = set(wanted)
        for number, frame in enumerate(self._run(np.full(len(self._video.packets), 2, np.int8))):
            if number in left:
                yield number, self._checked(frame)

    def _timeline_by_decoding(self) -> Timeline:
        pts = [frame.pts for frame in self._run(np.full(len(self._video.packets), 2, np.int8))]
        self._errors.clear()  # they come again with the frames
        if not pts:
            raise VideoError(str(self._video.path), "no_frames", "no packet could be decoded")
        if None in pts or np.any(np.diff(np.array(pts)) < 0):
            step = 1 / (self._video.rate or 25.0) / float(self._video.time_base)
            pts = [round(number * step) for number in range(len(pts))]
        return self._video.timeline_of(np.array(pts, np.int64), 0)
