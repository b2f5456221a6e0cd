"""Speed and quality of the renderer beside what people use, in one interleaved run on one pinned core.

    python -m benchmarks.renderer PICTURES [large=FOLDER] [pictures=12] [rounds=5] [judged=6] [page=FILE] [plot=FILE]

PICTURES is a folder of photographs (COCO: about 640 x 480); they become sets at 500 x 375, at 640 x 480 (q90) and with
256 on the short side (q95, as img2dataset makes them); `large` names a folder of photographs for 1024 x 768. T = 12 at
224; six upright moves, since the peers can do no others, and for ours and the plain warp all of `film` as well.

Costs are CPU milliseconds a clip, decoding included, medians over the rounds, of this process and of those it starts.
Peers beyond our own dependencies: torch, kornia, moviepy, imageio-ffmpeg, Debian's ffmpeg; the plot needs matplotlib.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from benchmarks.command import begin
from benchmarks.peers import Peer, Zoompan, boxes_of, find_peers
from benchmarks.quality import Box, Quality, judge, judge_zone_plate, zone_plate
from benchmarks.side_by_side import write_page
from stillreel.animate import Recipe, Renderer, draw_recipe
from stillreel.animate.camera.recipe import Shot, View
from stillreel.animate.pictures.picture import stored_pixels
from stillreel.configs.grammar import load_grammar

Pixels = NDArray[np.uint8]

SIZE, FRAMES = 224, 12
_SLOW = ("ffmpeg zoompan", "ffmpeg x8 zoompan", "static ffmpeg zoompan", "static ffmpeg x8 zoompan", "moviepy")
_SLOW_CLIPS = 3  # of these peers in a round
_PLOTTED = "500x375"
_MOVES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    # Within the middle square, in its sides: center x, center y, side at the start and at the end.
    "pan": ((-0.14, 0.02, 0.7), (0.14, 0.02, 0.7)),
    "tilt": ((0.03, 0.14, 0.7), (0.03, -0.14, 0.7)),
    "zoom in": ((0.0, 0.0, 1.0), (0.07, -0.05, 0.6)),
    "zoom out": ((-0.08, 0.06, 0.6), (0.0, 0.0, 1.0)),
    "slow pan": ((-0.02, 0.01, 0.8), (0.03, 0.01, 0.8)),
    "slow zoom": ((0.0, 0.0, 0.98), (0.01, 0.01, 0.88)),
}


class Job(NamedTuple):
    """A JPEG, the recipe that films it and the boxes that its frames show."""

    jpeg: bytes
    recipe: Recipe
    boxes: list[Box]
    move: str


def main(words: list[str]) -> None:
    folder, numbers, options = begin(words, pictures=12, rounds=5, judged=6)
    count, rounds, judged = numbers.values()
    peers, absent = find_peers()
    print(f"not installed, left out: {', '.join(absent) or 'none'}")
    for name, jpegs in make_sets(folder, options.get("large"), count).items():
        jobs = [make_job(jpeg, list(_MOVES)[number % len(_MOVES)]) for number, jpeg in enumerate(jpegs)]
        costs = time_all(jobs, peers, rounds)
        qualities = judge_all(jobs[:judged], peers)
        results = {method: (cost, qualities.get(method)) for method, cost in costs.items()}
        report(name, len(jobs), results)
        if "plot" in options and name == _PLOTTED:
            from benchmarks.plot import draw  # needs matplotlib, which nothing else does

            draw(results, f"photographs of {name}", Path(options["plot"]))
    report_zone_plate(peers)
    if "page" in options:
        write_page(Path(options["page"]), Zoompan("ffmpeg"))


def make_sets(folder: Path, large: str | None, count: int) -> dict[str, list[bytes]]:
    """Photographs by set, as JPEGs; only such as need no enlarging."""
    sets: dict[str, list[bytes]] = {}
    for name, source, size, quality in (
        ("500x375", folder, (500, 375), 90),
        ("640x480", folder, (640, 480), 90),
        ("short side 256", folder, (341, 256), 95),
        ("1024x768", Path(large) if large else None, (1024, 768), 90),
    ):
        if source is not None:
            sets[name] = [jpeg for path in sorted(source.glob("*.jp*g")) if (jpeg := _fitted(path, size, quality))][
                :count
            ]
    return {name: jpegs for name, jpegs in sets.items() if jpegs}


def _fitted(path: Path, size: tuple[int, int], quality: int) -> bytes | None:
    """The middle of a photograph at a size, or None when it is smaller; a few pixels short are forgiven."""
    picture = cv2.imread(str(path))
    if picture is None or picture.shape[1] < 0.97 * size[0] or picture.shape[0] < 0.97 * size[1]:
        return None
    height, width = picture.shape[:2]
    scale = min(width / size[0], height / size[1])
    w, h = int(size[0] * scale), int(size[1] * scale)
    middle = picture[(height - h) // 2 :, (width - w) // 2 :][:h, :w]
    fitted = cv2.cvtColor(cv2.resize(middle, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
    return bytes(simplejpeg.encode_jpeg(fitted, quality=quality, colorspace="RGB", colorsubsampling="420"))


def make_job(jpeg: bytes, move: str) -> Job:
    height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
    short = min(height, width)
    start, end = (View(0.5 + x * short / width, 0.5 + y * short / height, side) for x, y, side in _MOVES[move])
    recipe = Recipe("benchmark", (width, height), shots=(Shot(move, (0.0, 1.0), start, end),))
    return Job(jpeg, recipe, boxes_of(recipe, FRAMES), move)


class Ours:
    """The renderer as the build calls it: into memory that is kept."""

    def __init__(self) -> None:
        self._renderer = Renderer()
        self._clip = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)

    def __call__(self, jpeg: bytes, recipe: Recipe) -> Pixels:
        return self._renderer.film(recipe, partial(stored_pixels, jpeg), FRAMES, SIZE, self._clip)


def time_all(jobs: list[Job], peers: dict[str, Peer], rounds: int) -> dict[str, float]:
    """CPU milliseconds a clip of each method: medians over interleaved rounds."""
    ours = Ours()
    grammar = load_grammar("film")
    films = [
        draw_recipe("film", grammar, None, 0, f"{number}", job.recipe.picture, ("a",)).recipe
        for number, job in enumerate(jobs * 4)
    ]
    runs: dict[str, tuple[Callable[[], None], int]] = {
        "ours": (lambda: _each(jobs, lambda job: ours(job.jpeg, job.recipe)), len(jobs)),
        "ours, all of film": (
            lambda: _each(list(zip(jobs * 4, films, strict=True)), lambda pair: ours(pair[0].jpeg, pair[1])),
            4 * len(jobs),
        ),
    }
    for name, peer in peers.items():
        chosen = jobs[:_SLOW_CLIPS] if name in _SLOW else jobs
        runs[name] = (partial(_each, chosen, partial(_call, peer)), len(chosen))
    for name, peer in peers.items():
        if isinstance(peer, Zoompan):
            repeated = [job.jpeg for job in jobs] * (1 if "x8" in name else 8)
            runs[f"{name}, one process"] = (partial(_many, peer, repeated, jobs[0].boxes), len(repeated))
    times: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for name, (run, clips) in runs.items():
            if "x8" in name and number > 2:
                continue  # half a minute a round; they are not close
            before = _cpu_seconds()
            run()
            if number:  # the first round warms up
                times[name].append(1000 * (_cpu_seconds() - before) / clips)
    return {name: statistics.median(values) for name, values in times.items()}


def _each(jobs: list, call: Callable) -> None:  # type: ignore[type-arg]
    for job in jobs:
        call(job)


def _call(peer: Peer, job: Job) -> Pixels:
    return peer(job.jpeg, job.boxes, SIZE)


def _many(peer: Zoompan, jpegs: list[bytes], boxes: list[Box]) -> None:
    assert len(peer.many(jpegs, boxes, SIZE)) == FRAMES * len(jpegs)


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def judge_all(jobs: list[Job], peers: dict[str, Peer]) -> dict[str, Quality]:
    """Each method's quality: means over the clips, of `jump` over those that zoom."""
    ours = Ours()
    methods: dict[str, Callable[[Job], Pixels]] = {"ours": lambda job: ours(job.jpeg, job.recipe)}
    methods |= {name: partial(_call, peer) for name, peer in peers.items() if not name.startswith("static")}
    found: dict[str, list[Quality]] = defaultdict(list)
    for job in jobs:
        picture = stored_pixels(job.jpeg)
        for name, method in methods.items():
            found[name].append(judge(picture, job.boxes, method(job)))
    zooms = [number for number, job in enumerate(jobs) if "zoom" in job.move]
    return {
        name: Quality(
            psnr=statistics.mean(q.psnr for q in clips),
            worst=min(q.psnr for q in clips),
            jitter=statistics.mean(q.jitter for q in clips),
            sharpness=statistics.mean(q.sharpness for q in clips),
            jump=statistics.mean(clips[number].jump for number in zooms) if zooms else 0.0,
        )
        for name, clips in found.items()
    }


def report(name: str, clips: int, results: dict[str, tuple[float, Quality | None]]) -> None:
    ours = results["ours"][0]
    print(f"\n{name}, {clips} clips of {FRAMES} frames at {SIZE}", flush=True)
    print(f"  {'':36}{'ms/clip':>9}{'x ours':>8}{'PSNR':>7}{'worst':>7}{'jitter':>8}{'sharp':>7}{'jump':>7}")
    for method, (cost, quality) in sorted(results.items(), key=lambda item: item[1][0]):
        line = f"  {method:36}{cost:9.2f}{cost / ours:8.2f}"
        if quality:
            line += f"{quality.psnr:7.1f}{quality.worst:7.1f}{quality.jitter:8.3f}{quality.sharpness:7.2f}{quality.jump:7.3f}"
        print(line, flush=True)


def report_zone_plate(peers: dict[str, Peer]) -> None:
    """Rings, zoomed out of from 1.05 to 3.3 source pixels per output pixel, losslessly stored."""
    plate = zone_plate()
    jpeg = simplejpeg.encode_jpeg(plate, quality=100, colorspace="RGB", colorsubsampling="444")
    side = plate.shape[0]
    start, end = (View(0.5, 0.5, SIZE * scale / side) for scale in (1.05, 3.3))
    recipe = Recipe("benchmark", (side, side), shots=(Shot("zoom out", (0.0, 1.0), start, end),))
    boxes = boxes_of(recipe, FRAMES)
    print("\nzone plate: rings beyond what the output holds, dB; amplitude kept at 30 to 60 % of it")
    ours = Ours()
    methods: dict[str, Callable[[], Pixels]] = {"ours": lambda: ours(jpeg, recipe)}
    methods |= {
        name: partial(peers[name], jpeg, boxes, SIZE)
        for name in ("cv2 warpAffine", "2x2 supersampling", "PIL box bicubic")
    }
    for name, method in methods.items():
        alias, kept = judge_zone_plate(plate, boxes, method())
        print(f"  {name:36}{alias:7.1f} dB{kept:7.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
