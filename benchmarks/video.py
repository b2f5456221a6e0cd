"""Clips a second and core of the video reader beside what people use, in one interleaved run on one pinned core.

    python -m benchmarks.video VIDEOS [clips=40] [rounds=3]

VIDEOS is a folder of videos, nested or not; of each kind of folder in it the same number is taken. Each method opens the file,
finds the frames of a sampler (1 a second then 12, CLIP4Clip's; 12 equal segments, STAN's) and returns them at full size as RGB
uint8; `ours, to 224` is the whole reader, resizing included, and so is `OpenCV seeking, to 224` with CLIP4Clip's transform.
Every method gets the same frame numbers, and its frames are compared with FFmpeg's own, all decoded: the share of frames that
differ by more than 2 levels in the mean. (Colors are no part of that: OpenCV's follow the stream's tags, too, as of 4.14.)

Costs are CPU time of the process with all threads, medians over the rounds, summed over the clips. What is not installed is
left out and named: decord, torchcodec (which needs the system's FFmpeg).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.command import begin
from stillreel.configs.video import VideoSettings
from stillreel.pretrain.video.container import OpenVideo
from stillreel.pretrain.video.decode import FrameDecoder
from stillreel.pretrain.video.pixels import FrameShaper
from stillreel.pretrain.video.samplers import sample

Pixels = NDArray[np.uint8]
Method = Callable[[Path, list[int]], list[Pixels]]

_SIZE = 224
_FAR = 2.0  # levels
_SAMPLERS = {
    "1 a second, then 12 (CLIP4Clip)": VideoSettings(),
    "12 segments (STAN)": VideoSettings(sampler="segments"),
}
_RESIZED = ("ours, to 224", "OpenCV seeking, to 224")


def main(words: list[str]) -> None:
    folder, numbers, _ = begin(words, clips=40, rounds=3)
    count, rounds = numbers.values()
    methods, absent = find_methods()
    print(f"not installed, left out: {', '.join(absent) or 'none'}")
    clips = choose(folder, count)
    for name, settings in _SAMPLERS.items():
        wanted = {
            path: sample(settings, FrameDecoder(OpenVideo(path, 1 << 25), 60).timeline).tolist() for path in clips
        }
        frames = sum(map(len, wanted.values())) / len(clips)
        print(f"\n{name}: {len(clips)} clips, {frames:.1f} frames each in the mean", flush=True)
        report(time_all(methods, wanted, rounds), judge(methods, wanted), len(clips))


def choose(folder: Path, count: int) -> list[Path]:
    """The same number of videos of each folder, as far as it has them."""
    kinds: dict[Path, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".mp4", ".avi", ".mkv", ".webm"):
            kinds[path.parent].append(path)
    each = max(count // len(kinds), 1)
    return [path for paths in kinds.values() for path in paths[:: max(len(paths) // each, 1)][:each]]


def find_methods() -> tuple[dict[str, Method], list[str]]:
    """Methods by name, and those that are not installed."""
    methods: dict[str, Method] = {
        "ours": ours,
        "ours, to 224": ours_resized,
        "OpenCV seeking": opencv_seeking,
        "OpenCV seeking, to 224": opencv_seeking_resized,
        "OpenCV sequential grab": opencv_grabbing,
        "PyAV, all decoded": pyav_decoding_all,
    }
    absent = []
    try:
        import decord

        methods["decord"] = partial(with_decord, decord)
    except (ImportError, OSError):
        absent.append("decord")
    try:
        from torchcodec.decoders import VideoDecoder

        methods["torchcodec"] = partial(with_torchcodec, VideoDecoder)
    except (ImportError, OSError, RuntimeError):
        absent.append("torchcodec")
    return methods, absent


def ours(path: Path, numbers: list[int]) -> list[Pixels]:
    decoder = FrameDecoder(OpenVideo(path, 1 << 25), 60)
    reformatter = av.video.reformatter.VideoReformatter()
    found = {
        number: reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        for number, frame in decoder.frames(numbers)
    }
    return [found[number] for number in numbers]


def ours_resized(path: Path, numbers: list[int]) -> list[Pixels]:
    decoder = FrameDecoder(OpenVideo(path, 1 << 25), 60)
    shaper = FrameShaper(_SIZE, None)
    found = {number: shaper(frame) for number, frame in decoder.frames(numbers)}
    return [found[number] for number in numbers]


def opencv_seeking(path: Path, numbers: list[int]) -> list[Pixels]:
    """CLIP4Clip's way: a seek for each frame."""
    video = cv2.VideoCapture(str(path))
    frames = []
    for number in numbers:
        video.set(cv2.CAP_PROP_POS_FRAMES, number)
        there, frame = video.read()
        if not there:
            break
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return frames


def opencv_seeking_resized(path: Path, numbers: list[int]) -> list[Pixels]:
    return [transformed(frame) for frame in opencv_seeking(path, numbers)]


def transformed(frame: Pixels) -> Pixels:
    """torchvision's Resize(224, bicubic) and CenterCrop(224) on a PIL image."""
    height, width = frame.shape[:2]
    scale = _SIZE / min(height, width)
    size = (max(_SIZE, int(width * scale)), max(_SIZE, int(height * scale)))
    left, top = (round((side - _SIZE) / 2) for side in size)
    resized = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + _SIZE, top + _SIZE)))


def opencv_grabbing(path: Path, numbers: list[int]) -> list[Pixels]:
    """Every frame decoded up to the last one wanted; only those wanted become RGB."""
    video = cv2.VideoCapture(str(path))
    found: dict[int, Pixels] = {}
    wanted = set(numbers)
    for number in range(max(numbers) + 1):
        if not video.grab():
            break
        if number in wanted:
            found[number] = cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB)
    return [found[number] for number in numbers if number in found]


def pyav_decoding_all(path: Path, numbers: list[int]) -> list[Pixels]:
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        stream.codec_context.thread_count = 1
        wanted = set(numbers)
        found = {
            number: frame.to_ndarray(format="rgb24")
            for number, frame in enumerate(container.decode(stream))
            if number in wanted
        }
    return [found[number] for number in numbers]


def with_decord(decord: object, path: Path, numbers: list[int]) -> list[Pixels]:
    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)  # type: ignore[attr-defined]
    return list(reader.get_batch(numbers).asnumpy())


def with_torchcodec(decoder: Callable, path: Path, numbers: list[int]) -> list[Pixels]:  # type: ignore[type-arg]
    video = decoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    return list(video.get_frames_at(numbers).data.numpy())


def time_all(methods: dict[str, Method], wanted: dict[Path, list[int]], rounds: int) -> dict[str, float]:
    """CPU seconds of all clips by method: medians over interleaved rounds."""
    spent: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        totals: dict[str, float] = defaultdict(float)
        for path, numbers in wanted.items():
            for name, method in methods.items():
                before = time.process_time()
                _attempt(method, path, numbers)
                totals[name] += time.process_time() - before
        for name, total in totals.items():
            spent[name].append(total)
    return {name: statistics.median(totals) for name, totals in spent.items()}


def judge(methods: dict[str, Method], wanted: dict[Path, list[int]]) -> dict[str, tuple[float, int]]:
    """By method: the share of frames that are far from FFmpeg's, all decoded, and the clips that it did not give whole."""
    far: dict[str, int] = defaultdict(int)
    seen: dict[str, int] = defaultdict(int)
    failed: dict[str, int] = defaultdict(int)
    for path, numbers in wanted.items():
        reference = pyav_decoding_all(path, numbers)
        for name, method in methods.items():
            frames = _attempt(method, path, numbers)
            failed[name] += len(frames) < len(numbers)
            expected = list(map(transformed, reference)) if name in _RESIZED else reference
            for frame, right in zip(frames, expected, strict=False):
                seen[name] += 1
                same = frame.shape == right.shape
                far[name] += not same or float(np.abs(frame.astype(np.int16) - right).mean()) > _FAR
    return {name: (far[name] / max(seen[name], 1), failed[name]) for name in methods}


def _attempt(method: Method, path: Path, numbers: list[int]) -> list[Pixels]:
    try:
        return method(path, numbers)
    except Exception:  # each peer has errors of its own; what it did not give is counted
        return []


def report(costs: dict[str, float], verdicts: dict[str, tuple[float, int]], clips: int) -> None:
    seeking = costs["OpenCV seeking"]
    print(f"  {'':26}{'clips/s/core':>13}{'ms/clip':>9}{'x seeking':>11}{'far frames':>12}{'not whole':>11}")
    for name, cost in sorted(costs.items(), key=lambda item: item[1]):
        far, failed = verdicts[name]
        line = f"  {name:26}{clips / cost:13.1f}{1000 * cost / clips:9.1f}{seeking / cost:11.2f}{far:12.1%}{failed:11}"
        print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
