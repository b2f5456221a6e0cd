"""Clips a second and core of the stream on tars of videos beside video2dataset's own loader and others, in one interleaved run.

    python -m benchmarks.video_loader VIDEOS [clips=48] [rounds=5]

The mp4 files of VIDEOS, of each kind of folder in it the same number, become a tar as video2dataset writes them. Each loader
gives batches of 8 clips, T = 12 frames of equal parts of the video, 224 x 224, the middle of the frame; one process on one
pinned core, one decoding thread:
    ours               ClipLoader, sampler=segments; its decoding process is counted
    video2dataset      get_video_dataset with its decoder (decord), its resizer and its cropper
    torchcodec, PyAV   webdataset's pipeline with these decoders, and CLIP's transform (Pillow's bicubic) on each frame

Costs are CPU time, medians over the rounds. Loaders are made before they are timed, and what is not installed is left out and
named. Of video2dataset the loader alone is imported: its front door wants what it downloads with.
"""

from __future__ import annotations

import importlib.util
import io
import json
import statistics
import sys
import tarfile
import tempfile
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import webdataset as wds
from numpy.typing import NDArray

from benchmarks.command import begin
from benchmarks.video import choose, transformed
from stillreel.configs.stream import CatalogSettings, DataSettings
from stillreel.pretrain.data import ClipLoader, Share
from stillreel.shards.commands import catalog
from stillreel.shards.stream.stream import open_blend

Pixels = NDArray[np.uint8]
Loader = Callable[[], int]  # reads all clips once; how many they were

BATCH, FRAMES, SIZE = 8, 12, 224  # as in benchmarks/video.py


def main(words: list[str]) -> None:
    folder, numbers, _ = begin(words, clips=48, rounds=5)
    count, rounds = numbers.values()
    with tempfile.TemporaryDirectory() as home:
        tar, clips = write_tar([path for path in choose(folder, 4 * count) if path.suffix == ".mp4"], count, Path(home))
        loaders, absent = find_loaders(tar, clips)
        print(
            f"{clips} clips, {tar.stat().st_size / clips / 1e6:.2f} MB each; not installed: {', '.join(absent) or 'none'}"
        )
        report(race(loaders, clips, rounds), clips)


def write_tar(videos: list[Path], count: int, home: Path) -> tuple[Path, int]:
    """A tar of at most `count` videos, whole batches, as video2dataset writes them; and how many they are."""
    videos = videos[:: max(len(videos) // count, 1)][:count]
    videos = videos[: len(videos) // BATCH * BATCH]
    tar = home / "tars" / "00000.tar"
    tar.parent.mkdir()
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as file:
        for number, video in enumerate(videos):
            told = json.dumps({"caption": "a video", "key": f"{number:09d}"}).encode()
            for ending, data in (("mp4", video.read_bytes()), ("txt", b"a video"), ("json", told)):
                member = tarfile.TarInfo(f"{number:09d}.{ending}")
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    assert catalog.run(str(tar.parent), str(home / "catalog"), CatalogSettings(progress="off")) == 0
    return tar, len(videos)


def find_loaders(tar: Path, clips: int) -> tuple[dict[str, Loader], list[str]]:
    """Loaders by name, and those that are not installed."""
    loaders: dict[str, Loader] = {"ours": ours(tar.parents[1] / "catalog", clips)}
    absent = []
    try:
        loaders["video2dataset"] = partial(video2dataset, _loader_of_video2dataset(tar.parent), tar)
    except (ImportError, OSError) as error:
        absent.append(f"video2dataset ({error})")
    try:
        from torchcodec.decoders import VideoDecoder

        loaders["webdataset, torchcodec"] = partial(webdataset, tar, partial(with_torchcodec, VideoDecoder))
    except (ImportError, OSError, RuntimeError):
        absent.append("torchcodec")
    loaders["webdataset, PyAV"] = partial(webdataset, tar, with_pyav)
    return loaders, absent


def ours(data: Path, clips: int) -> Loader:
    settings = DataSettings.resolve(
        {"frames": FRAMES, "size": SIZE, "context_length": 0, "video": {"sampler": "segments"}}
    )
    batches = iter(ClipLoader(open_blend(str(data)), settings, Share(BATCH)))

    def run() -> int:
        return sum(len(next(batches).keys) for _ in range(clips // BATCH))

    return run


def _loader_of_video2dataset(home: Path) -> Callable[..., Any]:
    import torch.distributed as dist

    found = importlib.util.find_spec("video2dataset")
    if found is None or found.submodule_search_locations is None:
        raise ImportError("no such package")
    package = types.ModuleType("video2dataset")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["video2dataset"] = package
    dist.init_process_group("gloo", init_method=f"file://{home}/ranks", rank=0, world_size=1)  # it asks for its rank
    loader: Callable[..., Any] = importlib.import_module("video2dataset.dataloader.dataloader").get_video_dataset
    return loader


def video2dataset(get_video_dataset: Callable[..., Any], tar: Path) -> int:
    data = get_video_dataset(
        str(tar),
        BATCH,
        decoder_kwargs={"n_frames": FRAMES, "uniformly_sample": True, "num_threads": 1},
        resize_size=SIZE,
        crop_size=SIZE,
    )
    return sum(len(batch["mp4"]) for batch in data)


def webdataset(tar: Path, decode: Callable[[bytes], list[Pixels]]) -> int:
    """What one writes: a pipeline whose decoder opens the bytes of a video."""
    data = wds.WebDataset(str(tar), shardshuffle=False, empty_check=False)
    clips = (np.stack([transformed(frame) for frame in decode(sample["mp4"])]) for sample in data)
    return sum(len(batch) for batch in _batched(clips))


def _batched(clips: Iterator[Pixels]) -> Iterator[Pixels]:
    waiting: list[Pixels] = []
    for clip in clips:
        waiting.append(clip)
        if len(waiting) == BATCH:
            yield np.stack(waiting)
            waiting = []


def _wanted(total: int) -> list[int]:
    return np.linspace(0, total - 1, FRAMES).astype(int).tolist()  # type: ignore[no-any-return]


def with_torchcodec(decoder: Callable[..., Any], data: bytes) -> list[Pixels]:
    video = decoder(data, dimension_order="NHWC", num_ffmpeg_threads=1)
    return list(video.get_frames_at(_wanted(video.metadata.num_frames)).data.numpy())


def with_pyav(data: bytes) -> list[Pixels]:
    """All frames decoded, those wanted kept."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        wanted = _wanted(
            stream.frames or int(float(container.duration or 0) / av.time_base * float(stream.average_rate or 25))
        )
        found = {
            at: frame.to_ndarray(format="rgb24") for at, frame in enumerate(container.decode(stream)) if at in wanted
        }
    return [found[number if number in found else max(found)] for number in wanted]


def race(loaders: dict[str, Loader], clips: int, rounds: int) -> dict[str, float]:
    """Median CPU seconds of all clips by loader, interleaved; the first round warms up."""
    spent: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for name, load in loaders.items():
            before = cpu_seconds()
            assert load() == clips, name
            if number:
                spent[name].append(cpu_seconds() - before)
    return {name: statistics.median(seconds) for name, seconds in spent.items()}


def cpu_seconds() -> float:
    """Of this process and of those that it started and that live, all threads."""
    children = [int(word) for file in Path("/proc/self/task").glob("*/children") for word in file.read_text().split()]
    return time.process_time() + sum(time.clock_gettime(~child << 3 | 2) for child in children)  # CPUCLOCK_SCHED


def report(costs: dict[str, float], clips: int) -> None:
    for name, cost in costs.items():
        ratio = f"ours x{cost / costs['ours']:.2f}" if name != "ours" else ""
        print(f"  {name:26}{clips / cost:8.1f} clips/s/core{1000 * cost / clips:8.1f} ms/clip  {ratio}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
