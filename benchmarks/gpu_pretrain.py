"""A GPU day: how fast a step of pretraining is, beside open_clip's own, and what the stream and the renderer cost it.

    python -m benchmarks.gpu_pretrain [PICTURES] [device=cuda] [size=b32,b16] [batch.b32=320] [batch.b16=96] [rounds=3]
        [steps=8] [warmup=3] [workers=16] [seconds=540] [stream_seconds=40] [pictures=2048] [compile=on] [grammar=film]

PICTURES is a folder of JPEGs; without it, scenes are drawn by code. They become recipe shards in a temporary folder. 12 frames
at 224, captions of 32 tokens, bf16, random weights, model mean-b32 and mean-b16. Each line is printed as it is known:

    renderer    does the device renderer give the CPU renderer's frames? PSNR >= 48 dB, 99 % within 1, all within 8
    syncs       calls in a fed step for which the host waits for the device, by torch.cuda.set_sync_debug_mode, and their lines
    eager, compiled, open_clip      the loop's own step on frames that lie ready; interleaved rounds, the median round
    rendering   milliseconds of a batch's rendering and normalizing alone on an idle device, and their share of a step
    stream      compiled, from recipe shards through ClipLoader and DevicePrefetcher; data wait is the host's, as the log has it
    loader      what the workers alone give, once what they had made ahead is used up

Peak memory is of one contender: the others' weights are subtracted. MFU is of `clip_flops` against the dense bf16 peak, so
open_clip's is of our sizes, not of its 77 tokens.
open_clip's step is its model, loss and AdamW as `open_clip_train` builds them, under its bf16 autocast, on the same frames:
features are averaged over a clip, and a clip has one caption, or its text tower would have twelve times the work of ours.
`device=cpu size=tiny` runs the same code small; `compile=off` leaves out what takes a compiler. What does not fit into `seconds`
is left out by name.

A machine that has Python 3.12, torch 2.11, torchvision 0.26, numpy, Pillow and OpenCV 4 and no network needs these wheels,
fetched where there is one, then installed there with --no-index --no-deps --find-links wheels:

    pip download --no-deps --dest wheels --python-version 3.12 --platform manylinux_2_28_x86_64 --only-binary :all: \
        open_clip_torch==3.3.0 timm ftfy wcwidth regex safetensors huggingface-hub tqdm \
        numba llvmlite simplejpeg pyarrow \
        pydantic pydantic-core annotated-types typing-inspection typing-extensions pyyaml fsspec
    pip install --no-index --no-deps --find-links wheels wheels/*.whl

numba is for the CPU renderer, with which the device's is compared; its version must allow the numpy that is there.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu_shards import first_stills, write_shards
from benchmarks.gpu_steps import (
    SIZES,
    STEPS,
    WORDS,
    Budget,
    Contender,
    Options,
    Size,
    build_open_clip,
    build_ours,
    mfu,
    race,
    ready_batch,
    seconds_of,
    wait,
)
from stillreel.animate.render.device import batch_stills, prepare_still, render_stills
from stillreel.animate.scenes import SIZES as SCENE_SIZES
from stillreel.configs.stream import DataSettings
from stillreel.configs.system.hardware import usable_cores
from stillreel.pretrain.data import ClipBatch, ClipLoader, Share
from stillreel.pretrain.engine.loop import TrainState
from stillreel.pretrain.engine.prefetcher import DeviceBatch, DevicePrefetcher
from stillreel.pretrain.model.normalize import normalize
from stillreel.shards.stream.stream import Blend, open_blend

_JUDGED = 24  # pictures by which the renderers are compared


def main(words: list[str]) -> None:
    options = read_options(words)
    budget = Budget(options.seconds)
    name = torch.cuda.get_device_name(options.device) if options.device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {usable_cores()} cores", flush=True)
    with tempfile.TemporaryDirectory() as home:
        begin = time.monotonic()
        count = write_shards(Path(home), options.folder, options.pictures, options.grammar)
        print(f"{count} pictures as recipe shards: {time.monotonic() - begin:.0f} s", flush=True)
        for size in options.sizes:
            if not budget.allows(size.name, 60):
                continue
            said = f"{size.batch} clips a step, {size.frames} frames at {size.pixels}, {WORDS} tokens, bf16"
            print(f"\n{size.name}: {said}", flush=True)
            report(size, options, open_blend(home), budget)
            if options.device.type == "cuda":
                gc.collect()
                torch.cuda.empty_cache()


def read_options(words: list[str]) -> Options:
    given = dict(word.split("=", 1) for word in words if "=" in word)
    folders = [Path(word) for word in words if "=" not in word]
    usual = {
        "rounds": 3,
        "steps": 8,
        "warmup": 3,
        "workers": 16,
        "seconds": 540,
        "stream_seconds": 40,
        "pictures": 2048,
    }
    numbers = {name: int(given.pop(name, value)) for name, value in usual.items()}
    device = torch.device(given.pop("device", "cuda"))
    names = given.pop("size", "b32,b16").split(",")
    sizes = [SIZES[name]._replace(batch=int(given.pop(f"batch.{name}", SIZES[name].batch))) for name in names]
    compiled, grammar = given.pop("compile", "on") == "on", given.pop("grammar", "film")
    if given:
        raise SystemExit(f"unknown: {' '.join(given)}; see the first lines of {__file__}")
    return Options(folders[0] if folders else None, device, sizes, **numbers, compile=compiled, grammar=grammar)


def report(size: Size, options: Options, blend: Blend, budget: Budget) -> None:
    """All lines of one size."""
    settings = DataSettings(frames=size.frames, size=size.pixels, context_length=WORDS, render="device", lanes=4)
    report_renderer(size, options, blend)
    ours: dict[str, TrainState] = {}

    def build(name: str) -> Callable[[], object]:
        if name == "open_clip":
            return build_open_clip(size, options)
        ours[name] = build_ours(size, options, compile="on" if name == "compiled" else "off")
        return partial(ours[name].take_step, ready_batch(size, options).batch, 0, STEPS)

    names = ["eager", *["compiled"] * options.compile, "open_clip"]
    rates = race({name: Contender(partial(build, name), options) for name in names}, size, options, budget)
    if peer := rates.get("open_clip"):
        told = (f"{name} {rate / peer:.2f} x" for name, rate in rates.items() if name in ours)
        print(f"  beside open_clip: {', '.join(told)}", flush=True)
    best = next((name for name in ("compiled", "eager") if name in rates), None)
    if best is not None and budget.allows("stream", options.stream_seconds):
        loader, workers = open_loader(blend, settings, size, options)
        report_rendering(next(iter(loader)), size, options, size.batch / rates[best])
        report_stream(ours[best], loader, size, options, workers)


def report_renderer(size: Size, options: Options, blend: Blend) -> None:
    """Compare the renderers on the first pictures of the shards."""
    try:
        from stillreel.animate.render.cpu import Renderer
        from stillreel.animate.render.straight import StraightRenderer  # noqa: F401 -- which needs numba
    except ImportError as error:
        print(f"  renderer   not compared: {error}", flush=True)
        return
    renderer, differences = Renderer(), []
    told = first_stills(blend, min(_JUDGED, options.pictures))
    prepared = [prepare_still(recipe, load, size.frames, size.pixels) for recipe, load in told]
    clips = render_stills(batch_stills(prepared).to(options.device), size.pixels).cpu().numpy().astype(int)
    for clip, (recipe, load) in zip(clips, told, strict=True):
        differences.append(np.abs(clip - renderer.film(recipe, load, size.frames, size.pixels)))
    every = np.concatenate([one.ravel() for one in differences])
    psnr = 10 * np.log10(255**2 / max(1e-9, float(np.mean(every.astype(float) ** 2))))
    near, worst = (every <= 1).mean(), min((one <= 1).mean() for one in differences)
    agrees = psnr >= 48 and near >= 0.99 and worst >= 0.97 and every.max() <= 8
    print(
        f"  renderer   {'agrees with' if agrees else 'DIFFERS FROM'} the CPU's on {len(clips)} clips: PSNR {psnr:.1f} dB, "
        f"{near:.3%} within 1 (worst clip {worst:.3%}), largest difference {every.max()}",
        flush=True,
    )


def report_rendering(clips: ClipBatch, size: Size, options: Options, step_s: float) -> None:
    """A batch of the shards, alone on the device."""
    assert clips.stills is not None
    stills = clips.stills.to(options.device)
    frames = render_stills(stills, size.pixels)
    rendering = seconds_of(lambda: render_stills(stills, size.pixels), options)
    normalizing = seconds_of(lambda: normalize(frames), options)
    print(
        f"  rendering  {1000 * rendering:.1f} ms a batch, {rendering / step_s:.1%} of a step; "
        f"normalizing {1000 * normalizing:.1f} ms, {normalizing / step_s:.1%}",
        flush=True,
    )


def report_stream(trained: TrainState, loader: ClipLoader, size: Size, options: Options, workers: int) -> None:
    """The loop's steps from shards; then what the workers give by themselves."""
    feed = iter(DevicePrefetcher(loader, options.device, seed=0, dtype=torch.bfloat16))
    ahead = 2 * workers  # batches that may have been made before anyone was timed
    for _ in range(ahead):
        trained.take_step(next(feed).batch, 0, STEPS)
    if options.device.type == "cuda":
        report_syncs(trained, feed)
    wait(options)
    pace, waited, count, begin = Pace(options), 0.0, 0, time.perf_counter()
    while time.perf_counter() - begin < options.stream_seconds:
        asked = time.perf_counter()
        fed = next(feed)
        waited += time.perf_counter() - asked
        trained.take_step(fed.batch, 0, STEPS)
        pace.keep()
        count += 1
    wait(options)
    seconds = time.perf_counter() - begin
    rate = size.batch * count / seconds
    print(
        f"  stream     {rate:,.1f} clips/s, {mfu(rate, size, options)}, data wait {waited / seconds:.1%}, {count} steps",
        flush=True,
    )
    del feed  # and its workers
    batches = iter(loader)
    for _ in range(ahead):
        next(batches)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < options.stream_seconds / 4:
        next(batches)
        count += 1
    print(
        f"  loader     {size.batch * count / (time.perf_counter() - begin):,.1f} clips/s, {workers} workers", flush=True
    )


def report_syncs(trained: TrainState, feed: Iterator[DeviceBatch]) -> None:
    """How often the host waits for the device in a step and in what feeds it."""
    torch.cuda.synchronize()
    found: dict[str, Counter[str]] = {}
    torch.cuda.set_sync_debug_mode("warn")
    try:
        fed = next(feed)  # made under the mode's eyes
        for part, act in (("feeding", lambda: next(feed)), ("step", lambda: trained.take_step(fed.batch, 0, STEPS))):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                act()
            waits = [one for one in told if "synchroniz" in str(one.message)]
            found[part] = Counter(f"{Path(one.filename).name}:{one.lineno}" for one in waits)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for part, lines in found.items():
        where = ", ".join(f"{line} ({count})" for line, count in lines.most_common(8))
        print(f"  syncs      {lines.total()} in {part}{': ' if where else ''}{where}", flush=True)


class Pace:
    """Keeps the host a step ahead of the device and no more, as the loop's watch over the gradient does."""

    def __init__(self, options: Options) -> None:
        self._is_cuda = options.device.type == "cuda"
        self._before: torch.cuda.Event | None = None

    def keep(self) -> None:
        """To be called after each step."""
        if not self._is_cuda:
            return
        now = torch.cuda.Event()
        now.record()
        if self._before is not None:
            self._before.synchronize()
        self._before = now


def open_loader(blend: Blend, settings: DataSettings, size: Size, options: Options) -> tuple[ClipLoader, int]:
    """The rank's loader, with as many workers as cores and shared memory allow."""
    side = max(picture for shape in SCENE_SIZES for picture in shape)
    batch = 3 * side * side * size.batch  # bytes, at most, of drawn pictures
    workers = min(options.workers, usable_cores())
    room = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else 0
    if 3 * workers * batch > room:
        workers = max(1, room // (3 * batch))
        print(
            f"  loader     /dev/shm has {room / 1e9:.1f} GB: {workers} workers; docker run --shm-size=64g", flush=True
        )
    pinned = options.device.type == "cuda"
    return ClipLoader(blend, settings, Share(size.batch), workers=workers, pin_memory=pinned, prefetch=1), workers


if __name__ == "__main__":
    os.environ.setdefault(
        "PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"
    )  # contenders have blocks of other sizes
    main(sys.argv[1:])
