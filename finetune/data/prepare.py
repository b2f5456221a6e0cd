"""`stillreel finetune BENCHMARK prepare=true`: decode the videos once, store the frames that training and tests will take.

OUT is a data set in shards, built as all are (shards/build; `stillreel verify` proves it), by as many processes as `workers`
says or on Ray; a video that gives no frame is a rejected row with its reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from stillreel.animate.clips.encode import encode_frames
from stillreel.configs import RequestError
from stillreel.configs.build import BuildSettings
from stillreel.configs.finetune import FinetuneSettings
from stillreel.configs.settings import canonical_json
from stillreel.configs.system.storage import Folder
from stillreel.configs.video import VideoSettings
from stillreel.finetune.benchmarks import SPLITS, Opened
from stillreel.finetune.data.clips import Clip, dice_of
from stillreel.finetune.data.loader import clips_of, instants_of
from stillreel.finetune.data.store import KIND, kept_settings, positions_in
from stillreel.pretrain.video import VideoError
from stillreel.pretrain.video.container import OpenVideo
from stillreel.pretrain.video.decode import FrameDecoder
from stillreel.pretrain.video.errors import reading
from stillreel.pretrain.video.pixels import Fit, FrameShaper
from stillreel.pretrain.video.reader import shown_instead
from stillreel.pretrain.video.samplers import sample
from stillreel.shards.build.engine import Build, describe_totals, run_build
from stillreel.shards.build.executors import ShardTask
from stillreel.shards.build.hosts import Witness
from stillreel.shards.build.isolated import Isolated
from stillreel.shards.build.libraries import library_versions
from stillreel.shards.build.survey import Task
from stillreel.shards.format.plan import Listed, Plan, PlanHeader, write_plan
from stillreel.shards.format.receipt import Receipt
from stillreel.shards.format.record import REJECTED, WRITTEN, Record, Rejection
from stillreel.shards.format.writer import ShardWriter

_SHARD_SIZE = 100  # videos
_QUALITY = 95  # of JPEGs
_MOST_DRAWS = 10  # clips that are stored of a video for training, where the sampler draws
_NOT_NOW = ("missing", "unreadable")
_DRAWING = ("segments", "clip2video")
# Whatever decides the bytes of a sample.
_LIBRARIES = ("av", "numpy", "pillow", "pyarrow", "simplejpeg", "stillreel")


Decoded = tuple[int, int, dict[str, bytes]]


class FrameJob(NamedTuple):
    """What making a shard needs beside the plan: its clips (a whole video each, or its span), in the plan's order."""

    clips: Sequence[Clip]
    video: VideoSettings


def run(opened: Opened, settings: FinetuneSettings) -> int:
    """Store the frames of all videos that were found, or go on storing them. Returns 0 when all shards are there."""
    benchmark, located = opened.benchmark, opened.located
    named = [clip for name in SPLITS if name in benchmark.splits for clip in clips_of(located, name)]
    found = [
        clip._replace(file=clip.file.absolute()) for clip in named if clip.file
    ]  # for processes that are elsewhere
    clips = list(dict.fromkeys(found))  # of a video that is asked several questions one

    def job_of(task: Task) -> FrameJob:
        first = (task.shard - task.plan.header.first_shard) * _SHARD_SIZE
        return FrameJob(clips[first : first + _SHARD_SIZE], settings.video_settings())

    def witnesses(task: Task) -> Iterator[Witness]:
        """The videos of a shard, as they are now."""
        for file in (clip.file for clip in job_of(task).clips if clip.file):
            yield Witness(str(file.parent), file.name, Folder(str(file.parent)).size(file.name) or 0)

    folder = Folder(settings.out)
    plans = partial(open_or_write_plans, name=benchmark.name, clips=clips, settings=settings)
    # How many videos a benchmark may lack is judged where they are used.
    how = BuildSettings(ray=settings.ray, workers=settings.workers, progress=settings.progress, max_rejects=1)
    manifest = run_build(folder, Build(plans, make_shard, job_of, unit="videos", witnesses=witnesses), how)
    print(describe_totals(manifest, folder))
    print(
        f"train on them: the same command without prepare=true, with prepared={folder.url} and another out=", flush=True
    )
    return 0


def open_or_write_plans(
    folder: Folder, plans: list[Plan], name: str, clips: Sequence[Clip], settings: FinetuneSettings
) -> list[Plan]:
    """The plan in OUT, or a new one. RequestError where OUT holds other frames, or other videos."""
    listed = [_listed(clip) for clip in clips]
    wanted = stored_settings(settings)
    if not plans:
        source = {"videos": len(listed)}
        libraries = library_versions(_LIBRARIES)
        header = PlanHeader(0, name, wanted, {}, libraries, source, first_shard=0, first_position=0)
        return [write_plan(folder, header, listed, {})]
    if canonical_json(plans[0].header.settings) != canonical_json(wanted):
        raise RequestError(f"out={folder.url} holds frames that were stored with other settings; give another OUT")
    there = [(one.source_key, one.offset, one.length) for rows in plans[0].read_all() for one in rows]
    if there != [(one.source_key, one.offset, one.length) for one in listed]:
        raise RequestError(f"out={folder.url} was begun with other videos; give another OUT")
    return plans


def stored_settings(settings: FinetuneSettings) -> dict[str, Any]:
    """All that decides the bytes of a sample. Frames are drawn as training from the files draws them, epoch by epoch."""
    drawing = settings.video.sampler in _DRAWING
    return {
        "kind": KIND,
        **kept_settings(settings.video_settings()),
        "segments": settings.views.segments,
        "instants": instants_of(settings.views),
        "draws": min(ceil(settings.epochs), _MOST_DRAWS) if drawing else 1,
        "seed": settings.seed,
        "quality": _QUALITY,
        "shard_size": _SHARD_SIZE,
    }


def _listed(clip: Clip) -> Listed:
    """A video in the plan; offset and length are the milliseconds of its span, 0 and -1 for all of it."""
    start, length = (
        (0, -1)
        if clip.span is None
        else (round(1000 * clip.span.start), round(1000 * (clip.span.end - clip.span.start)))
    )
    assert clip.file is not None
    return Listed(clip.file.name, clip.name, start, length, ())


def make_shard(task: ShardTask) -> Receipt:
    """Make one shard of stored frames and publish it; `task.job` is its FrameJob."""
    start = perf_counter()
    plan = task.open_plan()
    clips, video = task.job
    with ShardWriter(plan, task.shard, task.max_rejected) as writer, ExitStack() as stack:
        decode: Callable[..., Decoded] = frames_of
        if task.isolated:
            decode = stack.enter_context(Isolated(_decoder, math.inf))
        for planned, clip in zip(plan.read_shard(task.shard), clips, strict=True):
            try:
                width, height, members = decode(clip, video, plan.header.settings)
                writer.write(Record.of(planned, WRITTEN)._replace(width=width, height=height), members)
            except (VideoError, Rejection) as trouble:
                if trouble.reason in _NOT_NOW:  # it was there when it was planned: that is no fault of the video's
                    raise
                writer.reject(Record.of(planned, REJECTED, trouble.reason, trouble.detail))
        return writer.publish(task.attempt, {"total": perf_counter() - start})


def _decoder() -> Callable[..., Decoded]:
    return frames_of


def frames_of(clip: Clip, video: VideoSettings, stored: Mapping[str, Any]) -> Decoded:
    """Width and height of a video's stored frames, and the members of its sample. VideoError where it gives no frame."""
    assert clip.file is not None
    with reading(clip.file):
        return _frames_of(clip, clip.file, video, stored)


def _frames_of(clip: Clip, path: Path, video: VideoSettings, stored: Mapping[str, Any]) -> Decoded:
    file = OpenVideo(path, video.max_pixels)
    decoder = FrameDecoder(file, video.max_seconds)
    test = [sample(video, decoder.timeline, clip.span, None, instant) for instant in stored["instants"]]
    train = [
        sample(video, decoder.timeline, clip.span, dice_of(stored["seed"], clip.name, turn))
        for turn in range(stored["draws"])
    ]
    wanted = np.unique(np.concatenate([*test, *train])).tolist()
    if not all(map(len, (*test, *train))):
        raise VideoError(str(path), "outside", f"no frame to take in {clip.span or 'it'}")
    aspect = file.sample_aspect if video.square_pixels else None
    shaper = FrameShaper(video.size, aspect, fit=Fit.asked(video))
    shaped = {number: shaper.whole(frame) for number, frame in decoder.frames(wanted)}
    if not shaped:
        why = "; ".join(map(str, decoder.flaws)) or "the decoder gave none"
        raise VideoError(str(path), "no_frames", why)
    numbers = sorted(shaped)
    told = {
        "video": clip.name,
        "file": path.name,
        "numbers": numbers,
        "times": decoder.timeline.times[numbers].tolist(),
        "end": float(decoder.timeline.end),
        "flaws": [list(flaw) for flaw in decoder.flaws],
    }
    for use, chosen in (("test", test), ("train", train)):
        told[use] = [positions_in(numbers, [shown_instead(one, shaped) for one in each.tolist()]) for each in chosen]
    jpegs = [encode_frames(shaped[number][None], _QUALITY)[0] for number in numbers]
    members = {f"{place:03d}.jpg": jpeg for place, jpeg in enumerate(jpegs)}
    height, width = shaped[numbers[0]].shape[:2]
    return width, height, {**members, "json": json.dumps(told, sort_keys=True).encode()}
