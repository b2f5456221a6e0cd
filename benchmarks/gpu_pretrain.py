"""A GPU day: how fast a step of pretraining is, beside open_clip's own, and what the stream and the renderer cost it.

    python -m benchmarks.gpu_pretrain [PICTURES] [device=cuda] [size=b32,b16] [batch.b32=320] [batch.b16=96] [rounds=3]
        [steps=8] [warmup=3] [workers=16] [seconds=540] [stream_seconds=40] [pictures=2048] [compile=on] [grammar=film]

PICTURES is a folder of JPEGs; without it, scenes are drawn by code. They become recipe shards in a temporary folder. 12 frames
at 224, captions of 32 tokens, bf16, random weights, model mean-b32 and mean-b16. Each line is printed as it is known:

    renderer    does the device renderer give the CPU renderer's frames? PSNR >= 48 dB, 99 % within 1, all within 8
    syncs       calls in a fed step for which the host waits for the device, by torch.cuda.set_sync_debug_mode, and their lines
    eager, compiled, open_clip      the loop's own step on frames that lie ready; interleaved rounds, the median round
    rendering   milliseconds of a batch's rendering and normalising alone on an idle device, and their share of a step
    stream      compiled, from recipe shards through ClipLoader and Feeder; data wait is the host's, as the log has it
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
import json
import math
import os
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from open_clip.loss import ClipLoss
from open_clip.model import CLIP
from torch.nn import functional as F

from animate.decode import picture_of
from animate.device import batch_stills, normalised, prepare_still, render_stills
from animate.draw import draw_recipe
from animate.recipe import Recipe
from animate.scenes import SIZES as SCENE_SIZES
from animate.scenes import caption_of, draw_scene, plan_scene
from configs.grammar import Grammar, load_grammar
from configs.model import ModelSettings, TowerSettings
from configs.stream import DataSettings
from configs.train import EngineSettings, ObjectiveSettings, OptimiserSettings
from pretrain.data import ClipBatch, ClipLoader, Share
from pretrain.feed import Fed, Feeder
from pretrain.hardware import dense_peak, usable_cores
from pretrain.loop import Trained
from pretrain.model import build_model
from pretrain.model.flops import clip_flops
from pretrain.model.pretrained import named_cfg
from pretrain.objectives import Batch, Identity, Task, identify
from pretrain.optimiser import build_optimiser
from pretrain.parallel import parallelise
from shards.index import encode_index, entry_of
from shards.manifest import Manifest
from shards.stream import Blend, State, open_blend
from shards.tar import TarWriter

Pixels = NDArray[np.uint8]

_SHARD = 128  # samples
_JUDGED = 24  # pictures by which the renderers are compared
_WORDS = 32
_STEPS = 1000  # of the run that the steps belong to: what decides their rates
_OPTIMISER = OptimiserSettings(warmup=10)


class Size(NamedTuple):
    """A model, what its clips are, and how many of them a step has."""

    name: str
    towers: str
    frames: int
    pixels: int
    batch: int

    def flops(self) -> int:
        """Of a clip's training."""
        model = ModelSettings(towers=TowerSettings(name=self.towers))
        return clip_flops(model, named_cfg(self.towers), self.frames, _WORDS).training


SIZES = {
    "b32": Size("ViT-B/32", "ViT-B-32-quickgelu", 12, 224, 320),  # eager steps of this many take about 100 GB
    "b16": Size("ViT-B/16", "ViT-B-16-quickgelu", 12, 224, 96),
    "tiny": Size("tiny", "tiny", 4, 64, 4),
}


class Options(NamedTuple):
    """What the command says."""

    folder: Path | None
    device: torch.device
    sizes: list[Size]
    rounds: int
    steps: int
    warmup: int
    workers: int
    seconds: int
    stream_seconds: int
    pictures: int
    compile: bool
    grammar: str


class Budget:
    """Sections begin while there is time; the rest is named and left out."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def allows(self, section: str, needed: float = 0.0) -> bool:
        left = self._end - time.monotonic()
        if left < needed or left <= 0:
            print(f"  {section}: left out, {max(left, 0):.0f} s are left", flush=True)
            return False
        return True


def main(words: list[str]) -> None:
    options = read_options(words)
    budget = Budget(options.seconds)
    name = torch.cuda.get_device_name(options.device) if options.device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {usable_cores()} cores", flush=True)
    with tempfile.TemporaryDirectory() as home:
        begin = time.monotonic()
        count = write_shards(options, Path(home))
        print(f"{count} pictures as recipe shards: {time.monotonic() - begin:.0f} s", flush=True)
        for size in options.sizes:
            if not budget.allows(size.name, 60):
                continue
            said = f"{size.batch} clips a step, {size.frames} frames at {size.pixels}, {_WORDS} tokens, bf16"
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
    settings = DataSettings(frames=size.frames, size=size.pixels, words=_WORDS, render="device", lanes=4)
    report_renderer(size, options, blend)
    ours: dict[str, Trained] = {}

    def build(name: str) -> Callable[[], object]:
        if name == "open_clip":
            return build_open_clip(size, options)
        ours[name] = build_ours(size, options, compile="on" if name == "compiled" else "off")
        return partial(ours[name].take_step, ready_batch(size, options), 0, _STEPS)

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
        from animate.render import Renderer
        from animate.straight import StraightRenderer  # noqa: F401 -- which needs numba
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


class Contender:
    """A step that is built and timed beside others."""

    def __init__(self, build: Callable[[], Callable[[], object]], options: Options) -> None:
        self._build = build
        self._options = options
        self._own = 0  # bytes that it keeps between steps
        self.peak = 0
        self.rounds: list[float] = []  # seconds a step

    def warm_up(self) -> None:
        """Build it, compile it, have its optimiser's state."""
        before = self._allocated()
        self._step = self._build()
        for _ in range(self._options.warmup):
            self._step()
        wait(self._options)
        self._own = self._allocated() - before

    def run(self) -> None:
        """A round."""
        on_cuda = self._options.device.type == "cuda"
        if on_cuda:
            torch.cuda.empty_cache()  # the others' blocks
            torch.cuda.reset_peak_memory_stats()
            self._step()
            wait(self._options)
        before, begin = self._allocated(), time.perf_counter()
        for _ in range(self._options.steps):
            self._step()
        wait(self._options)
        self.rounds.append((time.perf_counter() - begin) / self._options.steps)
        if on_cuda:
            self.peak = max(self.peak, torch.cuda.max_memory_allocated() - before + self._own)

    def _allocated(self) -> int:
        return torch.cuda.memory_allocated() if self._options.device.type == "cuda" else 0


def race(contenders: dict[str, Contender], size: Size, options: Options, budget: Budget) -> dict[str, float]:
    """Clips/s of each contender that fits, by the median of interleaved rounds."""
    for name, contender in list(contenders.items()):
        begin = time.monotonic()
        try:
            contender.warm_up()
        except torch.OutOfMemoryError as error:
            print(f"  {name:<10} does not fit: {str(error).splitlines()[0]}", flush=True)
            del contenders[name]
            continue
        print(f"  {name:<10} first {options.warmup} steps: {time.monotonic() - begin:.1f} s", flush=True)
    for number in range(options.rounds):
        if number and not budget.allows(f"round {number + 1}", options.stream_seconds + 30):
            break
        for contender in contenders.values():
            contender.run()
    rates = {}
    for name, contender in contenders.items():
        rate = rates[name] = size.batch / statistics.median(contender.rounds)
        spread = f"{size.batch / max(contender.rounds):,.1f} to {size.batch / min(contender.rounds):,.1f}"
        memory = f", peak {contender.peak / 1e9:.1f} GB" if contender.peak else ""
        print(f"  {name:<10} {rate:,.1f} clips/s ({spread}), {mfu(rate, size, options)}{memory}", flush=True)
    return rates


def report_rendering(clips: ClipBatch, size: Size, options: Options, step_s: float) -> None:
    """A batch of the shards, alone on the device."""
    assert clips.stills is not None
    stills = clips.stills.to(options.device)
    frames = render_stills(stills, size.pixels)
    rendering = seconds_of(lambda: render_stills(stills, size.pixels), options)
    normalising = seconds_of(lambda: normalised(frames), options)
    print(
        f"  rendering  {1000 * rendering:.1f} ms a batch, {rendering / step_s:.1%} of a step; "
        f"normalising {1000 * normalising:.1f} ms, {normalising / step_s:.1%}",
        flush=True,
    )


def report_stream(trained: Trained, loader: ClipLoader, size: Size, options: Options, workers: int) -> None:
    """The loop's steps from shards; then what the workers give by themselves."""
    feed = iter(Feeder(loader, options.device, seed=0, dtype=torch.bfloat16))
    ahead = 2 * workers  # batches that may have been made before anyone was timed
    for _ in range(ahead):
        trained.take_step(next(feed), 0, _STEPS)
    if options.device.type == "cuda":
        report_syncs(trained, feed)
    wait(options)
    pace, waited, count, begin = Pace(options), 0.0, 0, time.perf_counter()
    while time.perf_counter() - begin < options.stream_seconds:
        asked = time.perf_counter()
        fed = next(feed)
        waited += time.perf_counter() - asked
        trained.take_step(fed, 0, _STEPS)
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


def report_syncs(trained: Trained, feed: Iterator[Fed]) -> None:
    """How often the host waits for the device in a step and in what feeds it."""
    torch.cuda.synchronize()
    found: dict[str, Counter[str]] = {}
    torch.cuda.set_sync_debug_mode("warn")
    try:
        fed = next(feed)  # made under the mode's eyes
        for part, act in (("feeding", lambda: next(feed)), ("step", lambda: trained.take_step(fed, 0, _STEPS))):
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


def build_ours(size: Size, options: Options, *, compile: Literal["on", "off"]) -> Trained:
    """As `stillreel pretrain` does."""
    torch.manual_seed(0)
    model = build_model(ModelSettings(towers=TowerSettings(name=size.towers))).to(options.device)
    task = Task(model, ObjectiveSettings()).train()
    wrapped = parallelise(task, EngineSettings(precision="bf16", compile=compile))
    return Trained(task, wrapped, build_optimiser(task, _OPTIMISER), _OPTIMISER, chunk=0, average=None)


def build_open_clip(size: Size, options: Options) -> Callable[[], object]:
    """A step of open_clip_train 3.3 (`train_one_epoch`, `--precision amp_bf16`), but for the mean over a clip's frames."""
    torch.manual_seed(0)
    model = CLIP(**named_cfg(size.towers)).to(options.device).train()
    loss = ClipLoss(cache_labels=True)
    plain = [weight for name, weight in model.named_parameters() if weight.ndim < 2 or "bias" in name or "ln" in name]
    known = {id(weight) for weight in plain}
    rest = [weight for weight in model.parameters() if id(weight) not in known]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.2}]
    optimiser = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.98), eps=1e-6)
    fed = ready_batch(size, options)
    frames, texts = fed.batch.frames, F.pad(fed.batch.token_ids, (0, model.context_length - _WORDS))

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(options.device.type, torch.bfloat16):
            of_frames = model.encode_image(frames.flatten(0, 1), normalize=True)
            of_clips = F.normalize(of_frames.unflatten(0, frames.shape[:2]).mean(dim=1), dim=-1)
            total = loss(of_clips, model.encode_text(texts, normalize=True), model.logit_scale.exp())
        total.backward()
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))

    return step


def ready_batch(size: Size, options: Options) -> Fed:
    """Noise, on the device, normalised; captions of random words."""
    dice = np.random.default_rng(0)
    keys = [str(number) for number in range(size.batch)]
    ids = dice.integers(1, 49406, (size.batch, _WORDS))
    ids[:, 0], ids[:, 12], ids[:, 13:] = 49406, 49407, 0
    frames = torch.randn(
        size.batch, size.frames, 3, size.pixels, size.pixels, device=options.device, dtype=torch.bfloat16
    )
    identity = Identity(*(part.to(options.device) for part in identify(keys, keys, keys, seed=0, step=0)))
    return Fed(Batch(frames, None, torch.from_numpy(ids).to(options.device), None, identity), State(0, 1, 0), keys)


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


def write_shards(options: Options, folder: Path) -> int:
    """Recipe shards of pictures, drawn on all cores or read; returns how many pictures."""
    grammar = load_grammar(options.grammar)
    files = sorted(options.folder.glob("*.jp*g"))[: options.pictures] if options.folder else []
    count = len(files) if options.folder else options.pictures
    if not count:
        raise SystemExit(f"no JPEGs in {options.folder}")
    (folder / "shards").mkdir()
    shards = [range(first, min(first + _SHARD, count)) for first in range(0, count, _SHARD)]
    write = partial(write_shard, folder=folder / "shards", files=files, grammar=(options.grammar, grammar))
    with ProcessPoolExecutor(usable_cores()) as pool:
        lines = list(pool.map(write, shards))
    presets = {"grammar": grammar.model_dump(), "look": None}
    plan = {"sha256": "", "settings": {"grammar": options.grammar}, "presets": presets}
    (folder / "manifest.json").write_bytes(Manifest([plan], {}, lines).encode())
    return count


def write_shard(numbers: range, folder: Path, files: list[Path], grammar: tuple[str, Grammar]) -> dict[str, Any]:
    """One shard; returns its line in the manifest."""
    name, entries = f"gpu-{numbers[0] // _SHARD:06d}", []
    with open(folder / f"{name}.tar", "wb") as file:
        tar = TarWriter(file)
        for number in numbers:
            jpeg, caption = (files[number].read_bytes(), files[number].stem) if files else drawn(number)
            height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
            recipe = draw_recipe(*grammar, None, 0, str(number), (width, height), [caption]).recipe
            described = {"recipe": recipe.to_json(), "captions": [caption], "source_key": str(number)}
            members = {"jpg": jpeg, "json": json.dumps(described).encode(), "txt": caption.encode()}
            key = f"gpu_{number:09d}"
            entries.append(entry_of(key, tar.add([(f"{key}.{end}", data) for end, data in members.items()])))
        tar.finish()
    (folder / f"{name}.idx").write_bytes(encode_index(entries))
    return {"name": name, "written": len(numbers), "bytes": 0}


def drawn(number: int) -> tuple[bytes, str]:
    """A scene as a JPEG, and its caption."""
    scene = plan_scene(0, number)
    return simplejpeg.encode_jpeg(draw_scene(scene), quality=90, colorsubsampling="420"), caption_of(scene)


def first_stills(blend: Blend, count: int) -> list[tuple[Recipe, Callable[[int], Pixels]]]:
    """Recipes of the first shard, and what loads their pictures."""
    found = []
    with tarfile.open(next(Path(blend.corpora[0].url).glob("shards/*-000000.tar"))) as tar:
        for member in tar:
            if member.name.endswith(".jpg"):
                jpeg = tar.extractfile(member).read()  # type: ignore[union-attr]
            elif member.name.endswith(".json"):
                recipe = Recipe.from_json(json.loads(tar.extractfile(member).read())["recipe"])  # type: ignore[union-attr]
                found.append((recipe, picture_of(jpeg, recipe)))
    return found[:count]


def seconds_of(act: Callable[[], object], options: Options, times: int = 5) -> float:
    """Of one call, on average, once it was called before."""
    act()
    wait(options)
    begin = time.perf_counter()
    for _ in range(times):
        act()
    wait(options)
    return (time.perf_counter() - begin) / times


def mfu(rate: float, size: Size, options: Options) -> str:
    """Of clips/s, in words."""
    reached = rate * size.flops()
    peak = dense_peak(torch.cuda.get_device_name(options.device)) if options.device.type == "cuda" else None
    return f"{reached / 1e12:,.3g} TFLOP/s, MFU {f'{reached / peak:.1%}' if peak else '-'}"


def wait(options: Options) -> None:
    """For the device."""
    if options.device.type == "cuda":
        torch.cuda.synchronize(options.device)


if __name__ == "__main__":
    os.environ.setdefault(
        "PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"
    )  # contenders have blocks of other sizes
    main(sys.argv[1:])
