"""The phases of a GPU day, each in a process of its own: see `gpu_pretrain`, which starts them."""

from __future__ import annotations

import gc
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.gpu_options import SIZES, Options, Phase, Size
from benchmarks.gpu_shards import first_stills
from benchmarks.gpu_steps import (
    STEPS,
    WORDS,
    Contender,
    build_open_clip,
    build_ours,
    fitting_batch,
    mfu,
    race,
    ready_batch,
    seconds_of,
    wait,
)
from stillreel.animate.render.device import batch_stills, prepare_still, render_normalized, render_stills
from stillreel.animate.scenes import SIZES as SCENE_SIZES
from stillreel.configs.stream import DataSettings
from stillreel.configs.system.hardware import usable_cores
from stillreel.pretrain.data import ClipBatch, ClipLoader, Share
from stillreel.pretrain.engine.loop import TrainState
from stillreel.pretrain.engine.prefetcher import DeviceBatch, DevicePrefetcher
from stillreel.pretrain.model.normalize import CLIPS_PIXELS, affine
from stillreel.pretrain.run import StepValues
from stillreel.shards.stream.stream import Blend, open_blend

_JUDGED = 24  # pictures by which the renderers are compared
_SMOKE_CLIPS = 8
_CLIPS = "clips.txt"  # of a step in the race, for the phases after it; beside the shards
_TRACE_BYTES = 16 << 20  # of a file that is carried back


def run(name: str, phase: Phase, options: Options) -> None:
    """A phase by its name."""
    {"smoke": smoke, "race": run_race, "stream": stream, "renderer": renderer, "profile": profile}[name](phase, options)


def smoke(phase: Phase, options: Options) -> None:
    """Does it run at all? Two steps each, small, before anything is waited for."""
    phase.attempt("versions", lambda: phase.tell(describe_machine(options)))
    small = [SIZES["tiny"], options.size._replace(batch=min(_SMOKE_CLIPS, options.size.batch))]
    for size in small[: 1 if options.size.name == "tiny" else 2]:
        fed = ready_batch(size, options)
        names = ["eager", "open_clip", *["compiled"] * (options.compile and size.name == "tiny")]
        for name in names:
            phase.attempt(f"{size.name} {name}", partial(take_two, name, size, fed, phase, options))
            free(options)


def take_two(name: str, size: Size, fed: DeviceBatch, phase: Phase, options: Options) -> None:
    """Two steps, and their loss. ArithmeticError where it is not finite."""
    begin, contender = time.monotonic(), Contender(partial(build, name, size, options, fed), options)
    last = contender.warm_up(phase, 2)
    loss = last.loss if isinstance(last, StepValues) else last
    assert isinstance(loss, torch.Tensor)
    if not loss.isfinite():
        raise ArithmeticError(f"the loss of the second step is {loss.item()}")
    seconds = time.monotonic() - begin
    phase.tell(
        f"  {'smoke':<10} {size.name} {name}: two steps of {size.batch} clips {seconds:.1f} s, loss {loss.item():.3f}"
    )


def describe_machine(options: Options) -> str:
    """In one line, with OpenCV's version: the CPU renderer's arithmetic is OpenCV 4's."""
    device, memory = "CPU", ""
    if options.on_cuda:
        told = torch.cuda.get_device_properties(0)
        device, memory = told.name, f" of {told.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
    room = shutil.disk_usage("/dev/shm").free / 1e9 if Path("/dev/shm").exists() else 0
    return (
        f"  versions   {device}{memory}; torch {torch.__version__}, OpenCV {cv2.__version__}, numpy {np.__version__}; "
        f"{usable_cores()} cores, /dev/shm {room:.0f} GB"
    )


def run_race(phase: Phase, options: Options) -> None:
    """With as many clips as fit for all contenders."""
    size, fits = fitted(options), False
    while not fits:
        phase.tell(
            f"  {size.name}: {size.batch} clips a step, {size.frames} frames at {size.pixels}, {WORDS} tokens, bf16"
        )
        fed = ready_batch(size, options)
        names = ["eager", *["compiled"] * options.compile, "open_clip"]
        contenders = {name: Contender(partial(build, name, size, options, fed), options) for name in names}
        fits = race(contenders, size, options, phase) or size.batch == 1
        (options.shards / _CLIPS).write_text(str(size.batch))
        del contenders, fed
        size = size._replace(batch=max(1, size.batch // 2))
        free(options)


def stream(phase: Phase, options: Options) -> None:
    """Steps from shards, compiled if there is time for it."""
    size = fitted(options)
    trained, step_s = ready_trained(phase, size, options)
    if trained is None:
        return
    settings = DataSettings(frames=size.frames, size=size.pixels, context_length=WORDS, render="device", lanes=4)
    loader, workers = open_loader(open_blend(str(options.shards)), settings, size, options, phase)
    phase.attempt(
        "rendering", lambda: report_rendering(next(iter(loader)), size, options, step_s, phase), phase.left() / 2
    )
    phase.attempt("stream", lambda: report_stream(trained, loader, size, options, workers, phase))
    phase.attempt("loader", lambda: report_loader(loader, size, options, workers, phase))


def ready_trained(phase: Phase, size: Size, options: Options) -> tuple[TrainState | None, float]:
    """Ours, warm, and the seconds of its step: compiled, or eager where that fails or takes more than a third of the time."""
    fed, found = ready_batch(size, options), []
    for name in ["compiled"] * options.compile + ["eager"]:

        def warm(name: str = name) -> None:
            trained = build_ours(size, options, compile="on" if name == "compiled" else "off")
            found.append((trained, seconds_of(lambda: trained.take_step(fed.batch, 0, STEPS), options, 3)))

        if phase.attempt(name, warm, phase.left() / 3 if name == "compiled" else None):
            phase.tell(f"  {name:<10} {size.batch} clips: {1000 * found[0][1]:,.0f} ms a step that is fed nothing")
            return found[0]
        free(options)
    return None, 0.0


def renderer(phase: Phase, options: Options) -> None:
    phase.attempt("renderer", lambda: report_renderer(options, open_blend(str(options.shards)), phase))


def profile(phase: Phase, options: Options) -> None:
    """Two steps of each of ours, once they are warm."""
    size = fitted(options)
    fed = ready_batch(size, options)
    for name in ["eager", *["compiled"] * options.compile]:
        phase.attempt(f"profile {name}", partial(report_profile, name, size, fed, options, phase))
        free(options)


def report_profile(name: str, size: Size, fed: DeviceBatch, options: Options, phase: Phase) -> None:
    """A table of kernels, and a trace for a browser unless it is too large."""
    step = build(name, size, options, fed)
    seconds_of(step, options, 1)
    kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * options.on_cuda
    with torch.profiler.profile(activities=kinds) as profiler:
        step()
        step()
        wait(options)
    by = "self_cuda_time_total" if options.on_cuda else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=by, row_limit=60, max_name_column_width=90)
    (options.out / f"profile-{name}.txt").write_text(table)
    trace = options.out / f"trace-{name}.json.gz"
    profiler.export_chrome_trace(str(trace))
    length = trace.stat().st_size
    if length > _TRACE_BYTES:
        trace.unlink()
    kept = "was too large and is not kept" if length > _TRACE_BYTES else f"is {trace}"
    phase.tell(f"  {'profile':<10} {name}: two steps of {size.batch} clips; the trace of {length / 1e6:.1f} MB {kept}")


def build(name: str, size: Size, options: Options, fed: DeviceBatch) -> Callable[[], object]:
    """A contender's step, by its name."""
    if name == "open_clip":
        return build_open_clip(size, options, fed)
    return partial(
        build_ours(size, options, compile="on" if name == "compiled" else "off").take_step, fed.batch, 0, STEPS
    )


def fitted(options: Options) -> Size:
    """The size, with as many clips as fitted in the race, or else were asked for, or the card holds."""
    if (told := options.shards / _CLIPS).exists():
        return options.size._replace(batch=int(told.read_text()))
    memory = torch.cuda.get_device_properties(0).total_memory if options.on_cuda else None
    return options.size._replace(batch=options.batch or fitting_batch(options.size, memory))


def free(options: Options) -> None:
    gc.collect()
    if options.on_cuda:
        torch.cuda.empty_cache()


def report_renderer(options: Options, blend: Blend, phase: Phase) -> None:
    """Compare the renderers on the first pictures of the shards."""
    from stillreel.animate.render.cpu import Renderer

    size, cpu, differences = options.size, Renderer(), []
    told = first_stills(blend, min(_JUDGED, options.pictures))
    prepared = [prepare_still(recipe, load, size.frames, size.pixels) for recipe, load in told]
    clips = render_stills(batch_stills(prepared), options.device).cpu().numpy().astype(int)
    for clip, (recipe, load) in zip(clips, told, strict=True):
        differences.append(np.abs(clip - cpu.film(recipe, load, size.frames, size.pixels)))
    every = np.concatenate([one.ravel() for one in differences])
    psnr = 10 * np.log10(255**2 / max(1e-9, float(np.mean(every.astype(float) ** 2))))
    near, worst = (every <= 1).mean(), min((one <= 1).mean() for one in differences)
    agrees = psnr >= 48 and near >= 0.99 and worst >= 0.97 and every.max() <= 8
    phase.tell(
        f"  renderer   {'agrees with' if agrees else 'DIFFERS FROM'} the CPU's on {len(clips)} clips: PSNR {psnr:.1f} dB, "
        f"{near:.3%} within 1 (worst clip {worst:.3%}), largest difference {every.max()}"
    )
    if not agrees:
        phase.failed.append("renderer")


def report_rendering(clips: ClipBatch, size: Size, options: Options, step_s: float, phase: Phase) -> None:
    """A batch of the shards, alone on the device: what it costs beside being sent, which goes on under a step."""
    assert clips.stills is not None
    stills, device = clips.stills, torch.device(options.device)
    scale, shift = affine(*CLIPS_PIXELS, device)
    whole = seconds_of(lambda: render_normalized(stills, device, scale, shift, torch.bfloat16), options)
    sending = seconds_of(lambda: stills.to(device), options)
    phase.tell(
        f"  rendering  {1000 * (whole - sending):.1f} ms a batch of {len(clips.keys)}, normalized, "
        f"{(whole - sending) / step_s:.1%} of a step of {size.batch}; sending its {stills.pixels.nbytes / 1e6:.0f} MB "
        f"{1000 * sending:.1f} ms"
    )


def report_stream(
    trained: TrainState, loader: ClipLoader, size: Size, options: Options, workers: int, phase: Phase
) -> None:
    """The loop's steps from shards."""
    feed = iter(DevicePrefetcher(loader, torch.device(options.device), dtype=torch.bfloat16))
    for _ in range(2 * workers):  # batches that may have been made before anyone was timed
        trained.take_step(next(feed).batch, 0, STEPS)
    if options.on_cuda:
        report_syncs(trained, feed, phase)
    wait(options)
    pace, waited, gaps, count, begin = Pace(options), 0.0, [], 0, time.perf_counter()
    most = min(options.stream_seconds, phase.left() / 2)
    while time.perf_counter() - begin < most:
        asked, ended = time.perf_counter(), mark(options)
        fed = next(feed)
        waited += time.perf_counter() - asked
        gaps.append((ended, mark(options)))
        trained.take_step(fed.batch, 0, STEPS)
        pace.keep()
        count += 1
    wait(options)
    seconds = time.perf_counter() - begin
    rate = size.batch * count / seconds
    # From the end of a step to when the next one's batch is there, on the device's own clock.
    idle = sum(ended.elapsed_time(begun) for ended, begun in gaps if ended and begun) / 1000
    phase.tell(
        f"  stream     {rate:,.1f} clips/s, {mfu(rate, size, options)}, data wait {waited / seconds:.1%}, "
        f"device idle {f'{idle / seconds:.1%}' if options.on_cuda else '-'}, {count} steps"
    )


def mark(options: Options) -> torch.cuda.Event | None:
    """Behind what the device was given to do until now."""
    if not options.on_cuda:
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def report_loader(loader: ClipLoader, size: Size, options: Options, workers: int, phase: Phase) -> None:
    """What the workers give by themselves."""
    batches = iter(loader)
    for _ in range(2 * workers):
        next(batches)
    begin, count, most = time.perf_counter(), 0, min(options.stream_seconds / 4, phase.left() / 2)
    while time.perf_counter() - begin < most:
        next(batches)
        count += 1
    phase.tell(f"  loader     {size.batch * count / (time.perf_counter() - begin):,.1f} clips/s, {workers} workers")


def report_syncs(trained: TrainState, feed: Iterator[DeviceBatch], phase: Phase) -> None:
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
        phase.tell(f"  syncs      {lines.total()} in {part}{': ' if where else ''}{where}")


class Pace:
    """Keeps the host a step ahead of the device and no more, as the loop's watch over the gradient does."""

    def __init__(self, options: Options) -> None:
        self._is_cuda = options.on_cuda
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


def open_loader(
    blend: Blend, settings: DataSettings, size: Size, options: Options, phase: Phase
) -> tuple[ClipLoader, int]:
    """The rank's loader, with as many workers as cores and shared memory allow."""
    side = max(picture for shape in SCENE_SIZES for picture in shape)
    batch = 3 * side * side * size.batch  # bytes, at most, of drawn pictures
    workers = min(options.workers, usable_cores())
    room = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else 0
    if 3 * workers * batch > room:
        workers = max(1, room // (3 * batch))
        phase.tell(f"  loader     /dev/shm has {room / 1e9:.1f} GB: {workers} workers; docker run --shm-size=64g")
    share = Share(size.batch)
    return ClipLoader(blend, settings, share, workers=workers, pin_memory=options.on_cuda, prefetch=1), workers
