"""The maker's job and the loader's, beside their floors, in one interleaved run on one pinned core.

    python -m benchmarks.maker PICTURES [large=FOLDER] [pictures=24] [rounds=7]

Picture sets are those of `benchmarks.renderer`; T = 12 at 224. Maker: a JPEG in, twelve JPEGs (q90, 4:2:0) in a tar out,
with all that `animate` does for a sample; against simplejpeg's decode, twelve cv2 warps and twelve simplejpeg encodes with
nothing between them, and against PIL with webdataset's TarWriter; these two make upright moves only. Loader: webdataset
reading our shards, of store=recipe rendered as they come, of store=frames decoded. CPU milliseconds a clip, medians; and
bytes a clip.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import webdataset as wds
from PIL import Image

from benchmarks.command import begin
from benchmarks.peers import matrix_of
from benchmarks.renderer import FRAMES, SIZE, Job, make_job, make_sets
from stillreel.animate import SampleDecoder
from stillreel.animate.clips.clip import ClipMaker, Stage
from stillreel.animate.commands import animate as build
from stillreel.configs.build import AnimateSettings, ClipSettings
from stillreel.shards import as_webdataset
from stillreel.shards.format.plan import PlannedSample
from stillreel.shards.format.writer import TarWriter

_FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def main(words: list[str]) -> None:
    folder, numbers, options = begin(words, pictures=24, rounds=7)
    count, rounds = numbers.values()
    for name, jpegs in make_sets(folder, options.get("large"), count).items():
        print(f"\n{name}, {len(jpegs)} pictures, mean {sum(map(len, jpegs)) / len(jpegs) / 1000:.0f} kB")
        report_maker(jpegs, rounds)
        report_loader(jpegs, rounds)


def report_maker(jpegs: list[bytes], rounds: int) -> None:
    jpegs = jpegs * 4  # each picture is filmed in four ways: moves differ in cost
    runs = {
        "upright": make_ours(jpegs, ("pan", "zoom")),
        "film": make_ours(jpegs, ("film",)),
        "floor": make_floor(jpegs),
        "PIL": make_pil(jpegs),
    }
    costs = race(runs, len(jpegs), rounds)
    floor, peer = costs["floor"], costs["PIL"]
    print(f"  decode, {FRAMES} upright warps, {FRAMES} encodes alone {floor:6.2f} ms/clip; PIL + TarWriter {peer:6.2f}")
    for name, what in (("upright", "upright moves"), ("film", "all of film")):
        ours = costs[name]
        print(
            f"  maker, {what:13} {ours:6.2f} ms/clip: {ours / floor:.2f} of the former, the latter x{peer / ours:.2f}"
        )


def report_loader(jpegs: list[bytes], rounds: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        source = Path(home) / "source"
        source.mkdir()
        for number, jpeg in enumerate(jpegs):
            (source / f"{number:04d}.jpg").write_bytes(jpeg)
        lines = [f"{number:04d}.jpg\ta photograph\n" for number in range(len(jpegs))]
        (source / "captions.tsv").write_text("".join(["file\tcaption\n", *lines]))
        sizes, runs = {}, {}
        for store in ("recipe", "frames"):
            settings = AnimateSettings.resolve({"store": store, "ray": "off", "max_side": 0, "progress": "off"})
            build.run(str(source), f"{home}/{store}", settings)
            (tar,) = Path(home, store, "shards").glob("*.tar")
            sizes[store] = tar.stat().st_size / len(jpegs)
            runs[store] = load(f"{home}/{store}")
        costs = race(runs, len(jpegs), rounds)
    for store in ("recipe", "frames"):
        print(f"  loader  {store:8}{1000 / costs[store]:6.0f} clips/s/core {sizes[store] / 1000:6.0f} kB/clip")
    print(
        f"          recipe / frames: {costs['frames'] / costs['recipe']:.2f} of the clips/s "
        f"at {sizes['recipe'] / sizes['frames']:.2f} of the bytes",
        flush=True,
    )


def race(runs: dict[str, Callable[[], None]], clips: int, rounds: int) -> dict[str, float]:
    """Median CPU milliseconds a clip of each run, interleaved; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            before = time.process_time()
            run()
            if number:
                times[name].append(1000 * (time.process_time() - before) / clips)
    return {name: statistics.median(values) for name, values in times.items()}


def make_ours(jpegs: list[bytes], grammars: tuple[str, ...]) -> Callable[[], None]:
    makers = [
        ClipMaker(Stage.of_settings(ClipSettings(store="frames", max_side=0, name="benchmark", grammar=grammar)))
        for grammar in grammars
    ]
    planned = [
        PlannedSample(f"benchmark_{n:09d}", "source", f"{n}", 0, n, 0, len(jpeg), ("a photograph",), None)
        for n, jpeg in enumerate(jpegs)
    ]

    def run() -> None:
        with tempfile.TemporaryFile() as file:
            tar = TarWriter(file)
            for maker, sample, jpeg in zip(cycle(makers), planned, jpegs, strict=False):
                members = maker.make(sample, jpeg).members
                assert len(members) == FRAMES + 2
                tar.add([(f"{sample.key}.{ending}", payload) for ending, payload in members.items()])
            tar.finish()

    return run


def upright_jobs(jpegs: list[bytes]) -> list[Job]:
    moves = ("pan", "zoom in", "tilt", "zoom out")
    return [make_job(jpeg, moves[number % len(moves)]) for number, jpeg in enumerate(jpegs)]


def make_floor(jpegs: list[bytes]) -> Callable[[], None]:
    jobs = upright_jobs(jpegs)
    matrices = [[matrix_of(box, SIZE) for box in job.boxes] for job in jobs]
    frame = np.empty((SIZE, SIZE, 3), np.uint8)
    buffer = np.empty(max(np.prod(simplejpeg.decode_jpeg_header(jpeg)[:2]) * 3 for jpeg in jpegs), np.uint8)

    def run() -> None:
        for job, mine in zip(jobs, matrices, strict=True):
            picture = simplejpeg.decode_jpeg(job.jpeg, "RGB", buffer=buffer)
            for matrix in mine:
                cv2.warpAffine(picture, matrix, (SIZE, SIZE), frame, _FLAGS, cv2.BORDER_REPLICATE)
                simplejpeg.encode_jpeg(frame, quality=90, colorspace="RGB", colorsubsampling="420")

    return run


def make_pil(jpegs: list[bytes]) -> Callable[[], None]:
    jobs = upright_jobs(jpegs)

    def run() -> None:
        with tempfile.TemporaryFile() as file, wds.TarWriter(file) as tar:
            for number, job in enumerate(jobs):
                picture = Image.open(io.BytesIO(job.jpeg)).convert("RGB")
                sample: dict[str, object] = {"__key__": f"{number:09d}", "txt": "a photograph", "json": {"n": number}}
                for t, (left, top, side) in enumerate(job.boxes):
                    sink = io.BytesIO()
                    crop = picture.crop((round(left), round(top), round(left + side), round(top + side)))
                    crop.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(sink, "JPEG", quality=90)
                    sample[f"{t:03d}.jpg"] = sink.getvalue()
                tar.write(sample)

    return run


def load(data: str) -> Callable[[], None]:
    def run() -> None:
        for clip in as_webdataset(data, SampleDecoder(FRAMES, SIZE)):
            assert clip.frames.shape == (FRAMES, SIZE, SIZE, 3)

    return run


if __name__ == "__main__":
    main(sys.argv[1:])
