"""From a file to the packets of its pictures and their timeline, opened so that nothing but the file itself is read.

The packets are kept, not sought: they are the file's own bytes, a decoder can then start at any that stands alone, and
containers whose index is missing or wrong are read like the others.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from stillreel.pretrain.video.boxes import claimed_samples
from stillreel.pretrain.video.errors import Flaw, VideoError
from stillreel.pretrain.video.timeline import Timeline
from stillreel.shards.format.containers import CONTAINERS

_PROTOCOLS = "file"
_FORMATS = ",".join(CONTAINERS)

# Packets of a larger stream are read again for each clip instead of kept.
_KEPT_BYTES = 256 << 20

# Decoders that start afresh at a packet marked as a key: what is shown after it needs nothing before it.
_RESTARTABLE = {"h264", "hevc", "vp8", "vp9", "libdav1d", "av1", "mpeg4", "mpeg2video", "mpeg1video"}

# Containers that tell when a packet is decoded, not when it is shown: where frames are reordered, FFmpeg guesses.
_WITHOUT_TIMES = {"avi", "asf"}

# Titles in another encoding than UTF-8 are no reason to refuse a video. PyAV 19 reads them without being asked.
_TOLERANT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}

_IDR = 5  # NAL unit type of H.264

# Between two frames: more than this many seconds, and that many times the usual, is no frame that is shown for long but another
# clock (recordings that were joined, clocks that were set, 33 bits that ran over).
_JUMP_S, _JUMP_TIMES = 1800, 100


class Packet(NamedTuple):
    """What must be known of a packet before it is decoded. `data` is None when the stream is too large to be kept."""

    pts: int | None
    duration: int
    starts_afresh: bool
    is_shown: bool
    data: Any


class OpenVideo:
    """The one video stream of a file: `packets` in decoding order, and the frames' `timeline` and `order`.

    `order`, int64 (n,), holds for each frame of the timeline the position of its packet; None when the packets do not say
    which frame is whose, so that only decoding all of them can tell; `timeline` is then None too.
    """

    def __init__(self, path: Path, max_pixels: int) -> None:
        self.path = path
        self.flaws: list[Flaw] = []
        self._options = {
            "protocol_whitelist": _PROTOCOLS,
            "format_whitelist": _FORMATS,
            # Guessing a stream's properties must not decode its pictures: that is slow, and our own decoder finds them out.
            "skip_frame": "all",
            "max_pixels": str(max_pixels),
        }
        _check_file(path)
        with self._opened() as container:
            stream = _pictures_of(container, str(path))
            if stream.codec_context is None:
                raise VideoError(str(path), "unsupported", "no decoder for its codec")
            self.codec: str = stream.codec_context.name
            self.time_base = stream.time_base
            self.rate = _rate_of(stream)
            self.sample_aspect = stream.sample_aspect_ratio
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > max_pixels:
                raise VideoError(str(path), "too_large", f"{width} x {height} pixels; max_pixels is {max_pixels}")
            self._origin = _origin_of(container)
            self.packets = list(self._read_packets(container, stream))
            self._times_are_guesses = container.format.name in _WITHOUT_TIMES and stream.codec_context.has_b_frames
            # Its decoder is used for all that follows; closing the container leaves it whole.
            self._decoder = stream.codec_context
            declared = stream.frames
        if not self.packets:
            raise VideoError(str(path), "no_frames", "its stream of pictures is empty")
        if declared > len(self.packets) and not self.flaws:
            self.flaws.append(Flaw("truncated", f"{len(self.packets)} of {declared} frames are there"))
        self.order = self._presentation_order()
        self.timeline = self._timeline() if self.order is not None else None

    def decoder(self) -> Any:
        """The stream's codec context, for one thread. There is one: flush its buffers before starting anew."""
        context = self._decoder
        if not context.is_open:
            context.thread_count = 1
            # H.264 that does not say how far it reorders is otherwise guessed, and a wrong guess loses frames.
            context.options = {"max_pixels": self._options["max_pixels"], "strict": "1"}
        return context

    def datas(self) -> Iterator[Any]:
        """The packets to be decoded, in order."""
        if all(packet.data is not None for packet in self.packets):
            yield from (packet.data for packet in self.packets)
            return
        with self._opened() as container:
            yield from self._demuxed(container, _pictures_of(container, str(self.path)))

    def _opened(self) -> Any:
        file = str(self.path)
        try:
            return av.open(f"file:{self.path.absolute()}", "r", options=self._options, **_TOLERANT)
        except av.error.PermissionError as error:
            raise VideoError(file, "unreadable", _said(error)) from None
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(
                file, "not_a_video", f"no container of a kind that is read here ({_said(error)})"
            ) from None

    def _demuxed(self, container: Any, stream: Any) -> Iterator[Any]:
        try:
            yield from (packet for packet in container.demux(stream) if packet.size)
        except av.error.FFmpegError as error:
            if not self.flaws:
                self.flaws.append(Flaw("truncated", f"reading stopped: {_said(error)}"))

    def _read_packets(self, container: Any, stream: Any) -> Iterator[Packet]:
        kept, size = 0, self.path.stat().st_size
        restartable, codec = self.codec in _RESTARTABLE, self.codec
        units = _NalUnits(stream.codec_context.extradata) if codec == "h264" else None
        for packet in self._demuxed(container, stream):
            kept += packet.size
            if kept > 2 * size:  # the same bytes again and again: a small file that would never end
                self.flaws.append(Flaw("corrupt", f"its packets hold more than twice the {size} bytes of the file"))
                return
            afresh = restartable and packet.is_keyframe
            if afresh and units is not None:
                afresh = units.has(bytes(packet), _IDR)
            # Hidden frames of VP8 have packets of their own; those of VP9 and AV1 travel with a shown one.
            shown = not packet.is_discard and not (codec == "vp8" and not bytes(packet)[0] >> 4 & 1)
            yield Packet(packet.pts, packet.duration or 0, afresh, shown, packet if kept <= _KEPT_BYTES else None)

    def _presentation_order(self) -> NDArray[np.int64] | None:
        shown = [number for number, packet in enumerate(self.packets) if packet.is_shown]
        pts = [self.packets[number].pts for number in shown]
        if not shown or None in pts or len(set(pts)) < len(pts) or self._times_are_guesses:
            return None
        times = np.array(pts, np.int64)
        order = np.argsort(times)
        clocks = np.cumsum(np.append(False, self._jumps(times[order])))  # of the frames in that order
        begun = np.full(len(clocks), len(order))
        np.minimum.at(begun, clocks, order)  # a clock that was set back is later nevertheless
        return np.array(shown)[order[np.argsort(begun[clocks], kind="stable")]]

    def _jumps(self, pts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Between which frames, of these times, the clock jumps: bool (n - 1,)."""
        steps = np.abs(np.diff(pts)) * float(self.time_base)
        usual = np.quantile(steps, 0.5, method="lower") if len(steps) > 1 else 0
        return np.asarray(steps > max(_JUMP_S, _JUMP_TIMES * usual))

    def _timeline(self) -> Timeline:
        assert self.order is not None
        last = self.packets[int(self.order[-1])]
        pts = np.array([self.packets[number].pts for number in self.order.tolist()], np.int64)
        return self.timeline_of(pts, last.duration)

    def timeline_of(self, pts: NDArray[np.int64], last_duration: int) -> Timeline:
        """The timeline of frames at these times, ascending, of the stream's clock."""
        times = np.asarray(pts * float(self.time_base), np.float64)
        rate, last = self.rate, last_duration * float(self.time_base)
        times -= times[0] if self._origin is None else self._origin
        jumps = self._jumps(pts)
        if jumps.any():
            times, rate = self._closed(times, jumps)
        if abs(times[0]) > _JUMP_S:
            times -= times[0]
        if not rate:
            span = times[-1] - times[0]
            rate = (len(times) - 1) / span if span > 0 else 25.0
        end = times[-1] + (last if 0 < last <= _JUMP_S else 1 / rate)
        return Timeline(times, rate, float(end))

    def _closed(self, times: NDArray[np.float64], jumps: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
        """Times whose jumps are steps like the others, and the rate of these: what the file declares counts the jumps in."""
        steps = np.diff(times)
        first = int(np.argmax(jumps))
        more = f", and {jumps.sum() - 1} times more" if jumps.sum() > 1 else ""
        said = f"they jump by {steps[first] / 3600:+.1f} h after frame {first + 1} of {len(times)}{more}; taken as one step"
        self.flaws.append(Flaw("times", said))
        usual = float(np.median(steps[~jumps])) if not jumps.all() else 0.0
        usual = usual if usual > 0 else 1 / 25
        rate = self.rate if 0.9 < self.rate * usual < 1.1 else round(1 / usual, 3) or 1 / usual
        return np.append(0.0, np.cumsum(np.where(jumps, usual, steps))) + times[0], rate


class _NalUnits:
    """The units of H.264 packets, whose form the stream's header tells: behind lengths (mp4, mkv) or start codes (the others)."""

    def __init__(self, header: bytes | None) -> None:
        self._length_size = (header[4] & 3) + 1 if header and len(header) > 4 and header[0] == 1 else 0

    def has(self, data: bytes, kind: int) -> bool:
        """Whether a packet holds a unit of this type."""
        if not self._length_size:
            return any(unit and unit[0] & 31 == kind for unit in data.split(b"\0\0\1"))
        at = 0
        while at + self._length_size < len(data):
            length = int.from_bytes(data[at : at + self._length_size])
            at += self._length_size
            if data[at] & 31 == kind:
                return True
            at += length
        return False


def _check_file(path: Path) -> None:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise VideoError(str(path), "missing", "no such file") from None
    except OSError as error:
        raise VideoError(str(path), "unreadable", str(error)) from None
    if not stat.S_ISREG(found.st_mode):  # a pipe or a device may never end
        raise VideoError(str(path), "unreadable", "not a regular file")
    if not found.st_size:
        raise VideoError(str(path), "empty", "0 bytes")
    claimed = claimed_samples(path)
    if claimed > found.st_size:
        raise VideoError(str(path), "corrupt", f"it claims {claimed} samples, and has {found.st_size} bytes")


def _pictures_of(container: Any, file: str) -> Any:
    """The stream that players show; a cover is none."""
    moving = [
        stream for stream in container.streams.video if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not moving:
        kinds = sorted({stream.type for stream in container.streams})
        raise VideoError(file, "no_video", f"holds {', '.join(kinds) or 'no streams'}")
    best = container.streams.best("video")
    return best if best in moving else moving[0]


def _rate_of(stream: Any) -> float:
    for rate in (stream.guessed_rate, stream.average_rate):
        if rate and 0 < rate < 1000:
            return float(rate)
    return 0.0


def _origin_of(container: Any) -> float | None:
    """Where a player's clock begins, in seconds of the stream's; None: with the first frame."""
    if container.format.name == "avi" or container.start_time is None:
        return None  # AVI tells only when frames are decoded; how long before they are shown is each FFmpeg's own guess
    return float(container.start_time / av.time_base)


def _said(error: Exception) -> str:
    with contextlib.suppress(AttributeError):
        return str(error.strerror)  # type: ignore[attr-defined]
    return str(error)
