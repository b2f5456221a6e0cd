"""A part of an index in the making: some files and what a model makes of them, in one file. It is what a crash costs at most, and
what a host of a cluster is given: decoded and encoded there, batch by batch, in as many threads as its task has CPUs. Where the
cluster has GPUs, processes that hold the model on them encode what tasks decode, at most two batches of each at a time.

The batches are those of one process, so that parts have the same bytes wherever they are made.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from stillreel.configs import DataError, RequestError
from stillreel.configs.search import IndexSettings
from stillreel.configs.system.storage import Folder
from stillreel.configs.video import VideoSettings
from stillreel.finetune.search.features import model_digest, open_model, to_halves
from stillreel.finetune.search.footage import Footage, FootageReader
from stillreel.finetune.search.sources import Source, open_source
from stillreel.finetune.search.store import Entry
from stillreel.pretrain.evaluation.two_stage.stages import vectors_of_clips
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.checkpoint import WEIGHTS
from stillreel.pretrain.model.features import in_fp32
from stillreel.pretrain.model.normalize import encode_frames
from stillreel.shards.build.executors import ShardTask, open_executor
from stillreel.shards.build.holders import Asked, Holders
from stillreel.shards.build.hosts import Proof, Witness, proof_in, why_ill
from stillreel.shards.build.journal import one_line
from stillreel.shards.build.libraries import library_versions
from stillreel.shards.build.work import ATTEMPTS, work_off
from stillreel.shards.format.manifest import MANIFEST
from stillreel.shards.stream.corpus import CATALOG

_LIBRARIES = ("av", "numpy", "stillreel", "torch")
_AT_ONCE = 2  # batches of a task that are with those who encode
_NOT_NOW = ("missing", "unreadable")  # of a file that was there when the folder was surveyed

_log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]


class PartJob(NamedTuple):
    """What making a part needs: where the videos lie and which they are, the model by its folder and digest, how it runs."""

    root: str
    files: Sequence[Entry]
    video: VideoSettings
    batch: int
    model: tuple[str, str]
    device: str
    threads: int
    encoders: str  # the key of processes that encode; empty: the task does
    proof: Proof


def part_name(number: int) -> str:
    return f"part-{number:06}.safetensors"


def features_of(model: VideoTextModel, footage: Footage) -> Arrays:
    """Arrays of the files of a batch that have frames."""
    if not len(footage.frames):
        return {}
    video = in_fp32(encode_frames(model, footage.frames, footage.mask))
    found = {
        "vectors": to_halves(vectors_of_clips(video), "vectors"),
        "frames": to_halves(video.frames.masked_fill(~video.mask[:, :, None], 0), "features"),
        "times": footage.times.numpy(),
    }
    if video.patches is not None:
        found["patches"] = to_halves(video.patches.masked_fill(~video.mask[:, :, None, None], 0), "patch features")
    return found


def save_part(work: Folder, number: int, batches: Sequence[tuple[list[Entry], Arrays]]) -> None:
    """Publish the part of this number."""
    entries, first = [], 0
    for some, _ in batches:
        entries += [one._replace(row=one.row + first) if one.row >= 0 else one for one in some]
        first += sum(one.row >= 0 for one in some)
    full = [arrays for _, arrays in batches if arrays]
    joined = {kind: np.concatenate([arrays[kind] for arrays in full]) for kind in (full[0] if full else ())}
    with work.draft(part_name(number)) as draft:
        save_file(joined, draft.path, {"entries": json.dumps(entries)})
        draft.publish()


def make_parts(
    work: Folder, first: int, source: Source, files: Sequence[Entry], model: tuple[str, str], settings: IndexSettings
) -> None:
    """Make the parts of these files on Ray, numbered from `first`. DataError where some could not be made."""
    if not files:
        return
    size = -(-settings.part // settings.batch) * settings.batch
    parts = [files[start : start + size] for start in range(0, len(files), size)]
    video, task = settings.video_settings(), settings.task
    names = {first + at: f"videos {at * size + 1:,} to {at * size + len(part):,}" for at, part in enumerate(parts)}
    failed: list[str] = []
    begun, done, workers = time.monotonic(), 0, min(settings.workers, len(parts))
    with (
        proof_in(work, library_versions(_LIBRARIES), _witnesses(source.root, files, model[0])) as proof,
        open_executor(make_part, settings.ray, workers, proof, task, _files_of_part) as executor,
    ):
        needs = settings.encoder_needs(has_gpus=executor.has_gpus)
        device = "cuda" if "num_gpus" in needs else "cpu"
        if settings.device == "cuda" and device != "cuda":
            raise RequestError(f"device=cuda: no host of ray={settings.ray} has a GPU, as far as Ray is told")
        encoders = _begin_encoders(needs, model, device, proof) if needs else None
        key, beat = (encoders.key, encoders.look) if encoders else ("", lambda: None)
        threads = max(int(task.cpus), 1)
        jobs = (PartJob(source.root, part, video, settings.batch, model, device, threads, key, proof) for part in parts)
        tasks = (ShardTask(work.url, 0, "", first + at, 1, 0, job) for at, job in enumerate(jobs))
        for end in work_off(executor, tasks, lambda task: names[task.shard], beat):
            if end.error is not None:
                failed.append(f"{names[end.task.shard]} ({one_line(end.error)})")
                continue
            done += end.receipt
            _log.info(f"{done:,} of {len(files):,} indexed, {done / (time.monotonic() - begun):.1f} a second")
    if failed:
        raise DataError(
            f"{len(failed)} of {len(parts)} parts could not be made in {ATTEMPTS} attempts: {'; '.join(failed)}. The others "
            "are kept; run the same command again to try these again"
        )


def _files_of_part(task: ShardTask) -> int | None:
    """How many files a part is of, if it is there."""
    return len(task.job.files) if Folder(task.out).exists(part_name(task.shard)) else None


def make_part(task: ShardTask) -> int:
    """Make a part and publish it; how many files it is of. `task.job` is its PartJob. DataError where a file that was there is
    not, as long as there are attempts left: another host may see it."""
    job: PartJob = task.job
    reader = FootageReader(_source(job.root, job.video), job.files, job.video, job.batch)
    decoded = (_checked(reader[number], job.proof, is_last=task.attempt >= ATTEMPTS) for number in range(len(reader)))
    save_part(Folder(task.out), task.shard, list(_encoded(job, decoded, task.shard)))
    return len(job.files)


def _encoded(job: PartJob, decoded: Iterator[Footage], part: int) -> Iterator[tuple[list[Entry], Arrays]]:
    """Elsewhere, while the next batch is decoded here, and no further ahead; or here, where nobody else does it."""
    if not job.encoders:
        encode = _open_encoder(*job.model, job.device, job.threads)
        yield from ((footage.entries, encode(footage)) for footage in decoded)
        return
    waiting: deque[tuple[list[Entry], Asked]] = deque()
    for turn, footage in enumerate(decoded, part):
        waiting.append((footage.entries, Asked(job.encoders, turn, footage)))
        if len(waiting) == _AT_ONCE:
            entries, asked = waiting.popleft()
            yield entries, asked.answer()
    yield from ((entries, asked.answer()) for entries, asked in waiting)


def _checked(footage: Footage, proof: Proof, *, is_last: bool) -> Footage:
    """A batch of which what gave no frames did so by itself, and not because this host is ill."""
    troubled = [entry for entry in footage.entries if entry.row < 0 and entry.size >= 0]
    if troubled and (why := why_ill(proof)):
        raise DataError(why)
    for entry in troubled:
        if entry.reason in _NOT_NOW and not is_last:
            raise DataError(f"{entry.path}: {entry.reason}: {entry.detail}")
    return footage


@lru_cache(1)
def _source(root: str, video: VideoSettings) -> Source:
    return open_source(root, video)


def _begin_encoders(needs: dict[str, Any], model: tuple[str, str], device: str, proof: Proof) -> Holders:
    threads = max(int(needs["num_cpus"]), 1)
    encoders = Holders("the model", partial(_open_encoder, *model, device, threads), needs, proof.libraries)
    encoders.look()
    return encoders


@lru_cache(1)
def _open_encoder(folder: str, digest: str, device: str, threads: int) -> Callable[[Footage], Arrays]:
    torch.set_num_threads(threads)
    if model_digest(folder) != digest:
        raise DataError(f"{folder} holds another model here than where the index is made")
    return partial(features_of, open_model(folder, device))


def _witnesses(root: str, files: Sequence[Entry], model: str) -> Iterator[Iterator[Witness]]:
    """Of the videos, of a data set of clips, and of the model."""
    yield (Witness(root, file.path, file.size) for file in files if file.size >= 0)
    for folder, names in ((root, (MANIFEST, CATALOG)), (model, (WEIGHTS,))):
        yield (Witness(folder, name, Folder(folder).size(name) or 0) for name in names)
