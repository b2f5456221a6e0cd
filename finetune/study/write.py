"""The world on the disk, in the forms that the tool reads: what a study's runs train on and are tested on.

WORLD/images/, clips/              pictures and captions.tsv: of the image model, and of what pretraining films
WORLD/images-shards/, clips-shards/    their clip shards, as `stillreel animate` builds them (store=recipe)
WORLD/frames/                      frames of all videos of the benchmark, as prepare=true stores them
WORLD/captions-*.tsv               its splits, one a table; of training one a number of pairs
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import simplejpeg

from stillreel.animate.clips.encode import encode_frames
from stillreel.animate.commands import animate
from stillreel.configs import RequestError
from stillreel.configs.build import AnimateSettings, BuildSettings
from stillreel.configs.settings import canonical_json
from stillreel.configs.study import StudySettings, WorldSettings
from stillreel.configs.system.pool import process_pool
from stillreel.configs.system.storage import Folder
from stillreel.configs.video import VideoSettings
from stillreel.finetune.data.store import KIND, kept_settings
from stillreel.finetune.study.draw import draw_still, draw_video
from stillreel.finetune.study.world import KINDS, Part, Video, plan_still, plan_videos
from stillreel.shards.build.engine import Build, run_build
from stillreel.shards.build.executors import ShardTask
from stillreel.shards.build.libraries import library_versions
from stillreel.shards.build.survey import Task
from stillreel.shards.format.plan import Listed, Plan, PlanHeader, write_plan
from stillreel.shards.format.receipt import Receipt
from stillreel.shards.format.record import WRITTEN, Record
from stillreel.shards.format.writer import ShardWriter

FRAMES, IMAGES, CLIPS = "frames", "images-shards", "clips-shards"
SHUFFLED, LEAKED = "shuffled", "leaked"  # training splits of the sanity checks
WHOLE = "whole.yaml"  # how the image model sees its pictures

_WHOLE = """# All of a picture, as it is: what a caption says of its sides stays true.
kind: shots
shots: [1.0]
moves: {static: 1.0}
scale: [1.0, 1.0]
flip: 0
seen: 0.5
"""

_SHARD_SIZE, _QUALITY, _BATCH = 200, 95, 50
_LIBRARIES = ("numpy", "opencv-python-headless", "pyarrow", "simplejpeg", "stillreel")
_log = logging.getLogger(__name__)


def write_world(folder: Path, study: StudySettings) -> None:
    """Draw the world of a study into a folder, or what is missing of it; not what real data stand for."""
    # What is drawn here crashes no decoder, and a process more takes seconds to start.
    how = {"ray": "off" if study.workers > 1 else "inline", "workers": study.workers, "progress": study.progress}
    settings = study.world
    needed = (
        ("images", range(settings.images), not study.real.images and study.image.steps > 0),
        ("clips", range(settings.images, settings.images + settings.clips), not study.real.clips),
    )
    folder.mkdir(parents=True, exist_ok=True)
    Folder(str(folder)).publish(WHOLE, _WHOLE.encode())
    for name, numbers, is_drawn in needed:
        if is_drawn:
            _draw_stills(folder / name, settings, numbers, study.workers, name == "images")
            values = {**how, "name": f"study_{name}", "seed": settings.seed, "size": settings.size}
            animate.run(str(folder / name), str(folder / f"{name}-shards"), AnimateSettings.resolve(values))
    if not study.real.benchmark:
        _write_tables(folder, settings, study.pairs)
        videos = list(videos_of_world(settings, max(study.pairs)))
        plans = partial(_open_or_write_plans, videos=videos, settings=settings)
        build = Build(plans, make_shard, partial(_job_of, videos, settings), unit="videos")
        run_build(Folder(str(folder / FRAMES)), build, BuildSettings.resolve({**how, "max_rejects": 0}))


def videos_of_split(settings: WorldSettings, split: str, count: int = 0) -> list[Video]:
    """Of `train`, `validation`, `test` so many videos as the settings say (of `train` so many as are asked for); or those of
    `leaked`, which are the first of the test split under other names."""
    if split == LEAKED:
        test = islice(videos_of_split(settings, "test"), settings.leaked)
        return [video._replace(id=f"{LEAKED}-{video.id}") for video in test]
    part: Part = "train" if split in ("train", SHUFFLED) else "test" if split == "test" else "validation"
    counts = {"test": settings.tested, "validation": settings.validated}
    return list(plan_videos(settings.seed, part, count or counts[split] * len(KINDS)))


def videos_of_world(settings: WorldSettings, train: int) -> Iterator[Video]:
    """All that are drawn."""
    yield from videos_of_split(settings, "test")
    yield from videos_of_split(settings, "validation")
    yield from videos_of_split(settings, LEAKED)
    yield from videos_of_split(settings, "train", train)


def table_of_split(split: str, pairs: int = 0) -> str:
    """The name of a split's table."""
    return f"captions-{split}{f'-{pairs}' if pairs else ''}.tsv"


def _write_tables(folder: Path, settings: WorldSettings, pairs: Sequence[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    splits = [("test", 0), ("validation", 0), (LEAKED, 0), (SHUFFLED, max(pairs)), *(("train", one) for one in pairs)]
    for split, count in splits:
        videos = videos_of_split(settings, split, count)
        captions = [video.caption for video in videos]
        if split == SHUFFLED:
            random.Random(settings.seed).shuffle(captions)
        rows = (
            f"{video.id}\t{caption}\t{video.kind}\t{video.group}\t{video.pair}"
            for video, caption in zip(videos, captions, strict=True)
        )
        text = "\n".join(("video\tcaption\tkind\tgroup\tpair", *rows, ""))
        Folder(str(folder)).publish(table_of_split(split, count), text.encode())


def _draw_stills(folder: Path, settings: WorldSettings, numbers: range, workers: int, whole: bool) -> None:
    """Pictures, and last their table, which says that they are all there."""
    drawn = {number: plan_still(settings.seed, number, whole=whole) for number in numbers}
    table = "".join(["file\tcaption\n", *(f"{number:06d}.jpg\t{told}\n" for number, (_, told) in drawn.items())])
    if (folder / "captions.tsv").is_file() and (folder / "captions.tsv").read_text() == table:
        return
    folder.mkdir(parents=True, exist_ok=True)
    _log.info(f"draw {len(numbers):,} pictures into {folder}")
    batches = [numbers[at : at + _BATCH] for at in range(0, len(numbers), _BATCH)]
    draw = partial(_draw_batch, folder, settings, whole)
    if workers > 1:
        with process_pool(workers) as pool:
            list(pool.map(draw, batches))
    else:
        for batch in batches:
            draw(batch)
    Folder(str(folder)).publish("captions.tsv", table.encode())


def _draw_batch(folder: Path, settings: WorldSettings, whole: bool, numbers: range) -> None:
    for number in numbers:
        plan, _ = plan_still(settings.seed, number, whole=whole)
        picture = draw_still(plan, settings.seed, settings.size, whole=whole)
        jpeg = simplejpeg.encode_jpeg(picture, quality=_QUALITY, colorspace="RGB", colorsubsampling="420")
        (folder / f"{number:06d}.jpg").write_bytes(jpeg)


class DrawJob(NamedTuple):
    """What making a shard needs beside the plan: its videos, in the plan's order, and how they are drawn."""

    videos: Sequence[Video]
    seed: int
    frames: int
    size: int


def _job_of(videos: Sequence[Video], settings: WorldSettings, task: Task) -> DrawJob:
    first = task.shard * _SHARD_SIZE
    return DrawJob(videos[first : first + _SHARD_SIZE], settings.seed, settings.frames, settings.size)


def make_shard(task: ShardTask) -> Receipt:
    """Draw one shard of frames and publish it; `task.job` is its DrawJob."""
    start = perf_counter()
    plan, job = task.open_plan(), task.job
    shown = list(range(job.frames))
    with ShardWriter(plan, task.shard, task.max_rejected) as writer:
        for planned, video in zip(plan.read_shard(task.shard), job.videos, strict=True):
            jpegs = encode_frames(draw_video(video.plan, job.seed, job.frames, job.size), _QUALITY)
            told = {"video": video.id, "file": video.id, "numbers": shown, "times": shown, "end": job.frames,
                    "flaws": [], "test": [shown], "train": [shown]}  # fmt: skip
            members = {f"{number:03d}.jpg": jpeg for number, jpeg in enumerate(jpegs)}
            members["json"] = json.dumps(told, sort_keys=True).encode()
            writer.write(Record.of(planned, WRITTEN)._replace(width=job.size, height=job.size), members)
        return writer.publish(task.attempt, {"total": perf_counter() - start})


def _open_or_write_plans(
    folder: Folder, plans: list[Plan], videos: Sequence[Video], settings: WorldSettings
) -> list[Plan]:
    """The plan in OUT, or a new one. RequestError where OUT holds another world."""
    asked = kept_settings(VideoSettings(frames=settings.frames, size=settings.size))
    wanted = {
        "kind": KIND,
        **asked,
        "segments": 1,
        "instants": [None],
        "draws": 1,
        "seed": settings.seed,
        "quality": _QUALITY,
        "shard_size": _SHARD_SIZE,
    }
    listed = [Listed("drawn", video.id, 0, -1, (video.caption,)) for video in videos]
    if not plans:
        header = PlanHeader(0, "study", wanted, {}, library_versions(_LIBRARIES), {"videos": len(listed)}, 0, 0)
        return [write_plan(folder, header, listed, {})]
    there = [(one.source_key, one.captions) for rows in plans[0].read_all() for one in rows]
    if canonical_json(plans[0].header.settings) != canonical_json(wanted) or there != [
        (one.source_key, one.captions) for one in listed
    ]:
        raise RequestError(f"{folder.url} holds another world's videos; give another out=")
    return plans
