"""Which frames of a video a clip takes: the published ways, as pure functions from a timeline to frame numbers.

Each returns numbers int64 (K,), K <= T, ascending. K < T happens where the published code pads with blank frames and masks
them; K = 0 where it ends up with none. Where the published code draws, `dice` draws (None: as at test).
"""

from __future__ import annotations

import math
import statistics

import numpy as np
from numpy.typing import NDArray

from stillreel.configs.system.dice import Dice
from stillreel.configs.video import VideoSettings
from stillreel.pretrain.video.timeline import Span, Timeline

Numbers = NDArray[np.int64]

_RAW_RATE = 5  # frames a second that CLIP2Video's sample_frame.py extracts


def sample(
    settings: VideoSettings,
    timeline: Timeline,
    span: Span | None = None,
    dice: Dice | None = None,
    instant: float | None = None,
) -> Numbers:
    """The frames that `settings` take of a video, or of a span of it; `instant` is of `segments`."""
    if settings.sampler == "fps":
        return every_second(timeline, settings.frames, span, settings.per_second, settings.slice)
    if settings.sampler == "clip2video":
        return thinned(timeline, settings.frames, span, settings.every, dice)
    inside = timeline.within(span)
    return inside[segments(len(inside), settings.frames, dice, instant)]


def every_second(
    timeline: Timeline, frames: int, span: Span | None = None, per_second: int = 1, slice: str = "uniform"
) -> Numbers:
    """CLIP4Clip (Luo et al. 2021; dataloaders/rawvideo_util.py and `slice_framepos` 0, 1, 2 of the loaders).

    Of each second the first `per_second` of frames that are rate // per_second apart, from the frame that starts the second;
    then at most T: the first (head), the last (tail) or T spread evenly (uniform). As published, the rate is cut to an integer,
    so that at 29.97 the seconds are 29 frames long; a span is whole seconds, its end included. Frames past the end do not
    exist. Where frames do not come evenly, a frame is the one shown at its number divided by the rate.
    """
    rate = max(int(timeline.rate), 1)
    count = max(round((timeline.times[-1] - timeline.times[0]) * timeline.rate) + 1, 1)  # if they came evenly
    first, last = 0, math.ceil(count / rate)
    if span is not None:
        first, last = int(span.start), min(int(span.end), last)
    step = max(rate // per_second, 1)
    within_second = range(0, rate, step)[:per_second]
    wanted = np.array([second * rate + at for second in range(first, last + 1) for at in within_second], np.int64)
    wanted = wanted[wanted < count]
    numbers = timeline.shown_at(timeline.times[0] + wanted / timeline.rate)
    if len(numbers) <= frames:
        return numbers
    if slice == "uniform":
        return numbers[_spread(len(numbers), frames)]
    return numbers[:frames] if slice == "head" else numbers[-frames:]


def segments(count: int, frames: int, dice: Dice | None = None, instant: float | None = None) -> Numbers:
    """STAN (Liu et al. 2023; UniformSample of mmaction, after PySlowFast's ssv2.py; the idea is TSN's, Wang et al. 2016).

    One of each of T equal parts of `count` frames: near its middle, or with dice any, both ends included, or the one at
    `instant`, a share of the part in [0, 1). Fewer frames than T are repeated, so the result has T numbers unless count is 0.
    """
    if not count:
        return np.empty(0, np.int64)
    part = (count - 1) / frames
    edges = np.round(part * np.arange(frames + 1)).astype(np.int64)
    if dice is None and instant is None:
        return np.asarray(edges[:-1] + int(part / 2))
    units = np.array([instant] * frames if dice is None else dice.units("segments", frames))
    return np.asarray(edges[:-1] + (units * (np.diff(edges) + 1)).astype(np.int64))


def thinned(
    timeline: Timeline, frames: int, span: Span | None = None, every: int = 2, dice: Dice | None = None
) -> Numbers:
    """CLIP2Video (Fang et al. 2021; sample_frame.py and dataloaders/rawframe_util.py).

    Five frames a second as `ffmpeg -r 5` extracts them, n in all; n // every of these, spread evenly; and if these are more
    than T, T of them, spread evenly. With dice, the inner ones of these T then move by up to half their distance, when that
    is more than 2. (As published, a clip with n < every has no frame; here it has its first: it is short, not damaged.)
    """
    raw = extracted(timeline, span, _RAW_RATE)
    kept = raw[_spread(len(raw), max(len(raw) // every, min(len(raw), 1)))]
    if len(kept) <= frames:
        return kept
    chosen = _spread(len(kept), frames)
    reach = int(chosen[1] - chosen[0]) // 2 if frames > 1 else 0
    if dice is not None and reach > 2:
        units = np.array(dice.units("clip2video", frames - 2))
        chosen[1:-1] += (units * 2 * reach).astype(np.int64) - reach
    return kept[chosen]


def extracted(timeline: Timeline, span: Span | None, rate: int) -> Numbers:
    """The frames that `ffmpeg -r RATE` writes as pictures (constant frame rate: the rule of its video_sync_process).

    Slots of the output are 1 / rate long. A frame is dropped when it ends more than 1.1 slots before the next free one, and
    repeated when it reaches more than 1.1 slots past it; at the end the last is repeated as often as the three before it were
    in the median. Hence the first slots: frames 0 and 1, then those that end a slot early. (Of AVI with reordered frames, and
    where times are rounded to milliseconds, FFmpeg's own clock may differ from the timeline by a frame.)
    """
    inside = timeline.within(span)
    if not len(inside):
        return inside
    origin = span.start if span is not None else 0.0
    starts = (timeline.times[inside] - origin) * rate
    lengths = np.rint(np.diff(np.append(timeline.times, timeline.end))[inside] * rate)
    lengths[lengths == 0] = min(rate / timeline.rate, 1)  # in whole slots, unless it is less than half of one
    numbers: list[int] = []
    held: list[int] = [0, 0, 0]  # how many of the last slots were the frame before
    previous = int(inside[0])
    for number, start, length in zip(inside.tolist(), starts.tolist(), lengths.tolist(), strict=True):
        lag = start - len(numbers)
        reach = lag + length
        if lag < 0 < reach:  # it began before its slot: only what is left of it counts
            reach, lag = max(reach, 0.0), 0.0
        count, before = 1, 0
        if reach < -1.1:
            count = 0
        elif reach > 1.1:
            count = round(reach)
            before = round(lag - 0.6) if lag > 1.1 else 0
        numbers += [previous] * before + [number] * (count - before)
        held = [before, *held[:2]]
        previous = number
    return np.array(numbers + [previous] * int(statistics.median(held)), np.int64)


def _spread(count: int, kept: int) -> Numbers:
    """`kept` of `count` positions, both ends included, rounded down: numpy's linspace, as all three codes call it."""
    return np.linspace(0, count - 1, kept, dtype=np.int64)
