"""`stillreel finetune BENCHMARK prepare=true`: decode the videos once, store the frames that training and tests will take.

OUT is a data set in shards like that of a build (plan, receipts, manifest; `stillreel verify` proves it), and like a build it
goes on where it was stopped. Shards are made by as many processes as `workers` says; a video that gives no frame is a
rejected row with its reason.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from math import ceil
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from stillreel.animate.clips.encode import encode_frames
from stillreel.configs import DataError, RequestError
from stillreel.configs.finetune import FinetuneSettings
from stillreel.configs.settings import canonical_json
from stillreel.configs.system.interrupt import stoppable
from stillreel.configs.system.lock import sole_writer
from stillreel.configs.system.pool import process_pool
from stillreel.configs.system.progress import Progress, amount, tally
from stillreel.configs.system.storage import Folder
from stillreel.configs.video import VideoSettings
from stillreel.finetune.benchmarks import SPLITS, Opened
from stillreel.finetune.data.clips import Clip, dice_of
from stillreel.finetune.data.loader import clips_of, instants_of
from stillreel.finetune.data.store import KIND, kept_settings, positions_in
from stillreel.finetune.video import VideoError
from stillreel.finetune.video.container import OpenVideo
from stillreel.finetune.video.decode import FrameDecoder
from stillreel.finetune.video.pixels import FrameShaper
from stillreel.finetune.video.reader import shown_instead
from stillreel.finetune.video.samplers import sample
from stillreel.shards.build.survey import survey
from stillreel.shards.format.manifest import MANIFEST, manifest_of
from stillreel.shards.format.plan import Listed, Plan, PlanHeader, PlannedSample, open_plan, read_plans, write_plan
from stillreel.shards.format.receipt import Receipt
from stillreel.shards.format.record import REJECTED, WRITTEN, Record
from stillreel.shards.format.writer import ShardWriter

_SHARD_SIZE = 100  # videos
_QUALITY = 95  # of JPEGs
_MOST_DRAWS = 10  # clips that are stored of a video for training, where the sampler draws
_DRAWING = ("segments", "clip2video")
_LIBRARIES = ("av", "numpy", "pillow", "pyarrow", "simplejpeg", "stillreel")


class FrameTask(NamedTuple):
    """A shard to be made: where, of which plan, of which clips (a whole video each, or its span), in the plan's order."""

    out: str
    plan_digest: str
    shard: int
    clips: tuple[Clip, ...]
    video: VideoSettings


def run(opened: Opened, settings: FinetuneSettings) -> int:
    """Store the frames of all videos that were found, or go on storing them. Returns 0 when all shards are there."""
    benchmark, located = opened.benchmark, opened.located
    clips = [clip for name in SPLITS if name in benchmark.splits for clip in clips_of(located, name) if clip.file]
    folder = Folder(settings.out)
    with sole_writer(folder), stoppable("finished shards are kept. Run the same command again to go on"):
        folder.remove_unfinished("shards")
        plan = settle_plan(folder, benchmark.name, clips, settings)
        left = survey(folder, [plan], full=False).open_tasks
        tasks = [_task(plan, task.shard, clips, settings) for task in left]
        with Progress(plan.samples, "videos", settings.progress) as progress:
            progress.skip(plan.samples - sum(len(task.clips) for task in tasks))
            for receipt in make_shards(tasks, settings.workers):
                progress.advance(receipt.planned)
        found = survey(folder, [plan], full=False)
        if found.open_tasks:
            raise DataError(f"{len(found.open_tasks)} shards were changed or removed meanwhile; run it again")
        manifest = manifest_of([plan], found.receipts)
        folder.publish(MANIFEST, manifest.encode())
    _say(manifest.totals, folder.url)
    return 0


def settle_plan(folder: Folder, name: str, clips: Sequence[Clip], settings: FinetuneSettings) -> Plan:
    """The plan in OUT, or a new one. RequestError where OUT holds other frames, or other videos."""
    listed = [_listed(clip) for clip in clips]
    wanted = stored_settings(settings)
    plans = read_plans(folder)
    if not plans:
        source = {"videos": len(listed)}
        header = PlanHeader(0, name, wanted, {}, _library_versions(), source, first_shard=0, first_position=0)
        return write_plan(folder, header, listed, {})
    plan = plans[0]
    if canonical_json(plan.header.settings) != canonical_json(wanted):
        raise RequestError(f"out={folder.url} holds frames that were stored with other settings; give another OUT")
    if plan.header.libraries != _library_versions():
        raise RequestError(
            f"out={folder.url} was begun with other library versions: {plan.header.libraries}, here {_library_versions()}. "
            "Install those, or give another OUT"
        )
    there = [(one.source_key, one.offset, one.length) for rows in plan.read_all() for one in rows]
    if there != [(one.source_key, one.offset, one.length) for one in listed]:
        raise RequestError(f"out={folder.url} was begun with other videos; give another OUT")
    return plan


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


def _task(plan: Plan, shard: int, clips: Sequence[Clip], settings: FinetuneSettings) -> FrameTask:
    first = (shard - plan.header.first_shard) * _SHARD_SIZE
    return FrameTask(
        plan.folder.url, plan.digest, shard, tuple(clips[first : first + _SHARD_SIZE]), settings.video_settings()
    )


def make_shards(tasks: Sequence[FrameTask], workers: int) -> Iterator[Receipt]:
    """Receipts as they come. DataError when a process dies: what is finished stays."""
    if not workers or len(tasks) < 2:
        yield from map(make_shard, tasks)
        return
    with process_pool(min(workers, len(tasks))) as pool:
        running: list[Future[Receipt]] = [pool.submit(make_shard, task) for task in tasks]
        try:
            for done in as_completed(running):
                yield done.result()
        except BrokenProcessPool:
            raise DataError("a process that decodes videos was killed; run the same command again to go on") from None
        finally:
            for one in running:
                one.cancel()


def make_shard(task: FrameTask) -> Receipt:
    """Make one shard and publish it."""
    start = perf_counter()
    folder = Folder(task.out)
    plan = open_plan(folder, 0, task.plan_digest)
    with ShardWriter(folder, plan, task.shard) as writer:
        for planned, clip in zip(plan.read_shard(task.shard), task.clips, strict=True):
            try:
                width, height, members = frames_of(clip, task.video, plan.header.settings)
                writer.write(_record(planned, WRITTEN)._replace(width=width, height=height), members)
            except VideoError as trouble:
                writer.reject(_record(planned, REJECTED)._replace(reason=trouble.reason, detail=trouble.detail))
        return writer.publish(_library_versions(), 1, {"total": round(perf_counter() - start, 3)})


def frames_of(clip: Clip, video: VideoSettings, stored: Mapping[str, Any]) -> tuple[int, int, dict[str, bytes]]:
    """Width and height of a video's stored frames, and the members of its sample. VideoError where it gives no frame."""
    assert clip.file is not None
    file = OpenVideo(clip.file, video.max_pixels)
    decoder = FrameDecoder(file, video.max_seconds)
    test = [sample(video, decoder.timeline, clip.span, None, instant) for instant in stored["instants"]]
    train = [
        sample(video, decoder.timeline, clip.span, dice_of(stored["seed"], clip.name, turn))
        for turn in range(stored["draws"])
    ]
    wanted = np.unique(np.concatenate([*test, *train])).tolist()
    if not all(map(len, (*test, *train))):
        raise VideoError(str(clip.file), "outside", f"no frame to take in {clip.span or 'it'}")
    shaper = FrameShaper(video.size, file.sample_aspect if video.square_pixels else None)
    shaped = {number: shaper.whole(frame) for number, frame in decoder.frames(wanted)}
    if not shaped:
        why = "; ".join(map(str, decoder.flaws)) or "the decoder gave none"
        raise VideoError(str(clip.file), "no_frames", why)
    numbers = sorted(shaped)
    told = {
        "video": clip.name,
        "file": clip.file.name,
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


def _record(planned: PlannedSample, status: str) -> Record:
    return Record(
        planned.key, status, None, None, planned.source, planned.source_key, None, None, (), (), None, None
    )  # fmt: skip


def _library_versions() -> dict[str, str]:
    """Versions of whatever decides the bytes of a sample."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def _say(totals: Mapping[str, Any], where: str) -> None:
    rejected = sum(totals["rejected"].values())
    reasons = f" ({tally(totals['rejected'])})" if rejected else ""
    print(
        f"planned {totals['planned']:,} = written {totals['written']:,} + rejected {rejected:,}{reasons}; "
        f"{totals['shards']:,} shards, {amount(totals['bytes'])}, in {where}\n"
        f"train on them: the same command without prepare=true, with prepared={where} and another out=",
        file=sys.stdout,
    )
