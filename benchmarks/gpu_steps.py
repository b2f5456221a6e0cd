"""Steps of training that are timed beside each other on a GPU day: ours, eager and compiled, and open_clip's."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIP
from torch.nn import functional as F

from stillreel.configs.model import ModelSettings, TowerSettings
from stillreel.configs.system.hardware import dense_peak
from stillreel.configs.train import EngineSettings, ObjectiveSettings, OptimizerSettings
from stillreel.pretrain.engine.loop import TrainState
from stillreel.pretrain.engine.optimizer import build_optimizer
from stillreel.pretrain.engine.parallel import parallelize
from stillreel.pretrain.engine.prefetcher import DeviceBatch
from stillreel.pretrain.model import build_model
from stillreel.pretrain.model.flops import clip_flops
from stillreel.pretrain.model.pretrained import named_cfg
from stillreel.pretrain.objectives import Batch, Identity, Task, identify
from stillreel.shards.stream.stream import State

WORDS = 32
STEPS = 1000  # of the run that the steps belong to: what decides their rates
_OPTIMISER = OptimizerSettings(warmup_steps=10)


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
        return clip_flops(model, named_cfg(self.towers), self.frames, WORDS).training


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


class Contender:
    """A step that is built and timed beside others."""

    def __init__(self, build: Callable[[], Callable[[], object]], options: Options) -> None:
        self._build = build
        self._options = options
        self._own = 0  # bytes that it keeps between steps
        self.peak = 0
        self.rounds: list[float] = []  # seconds a step

    def warm_up(self) -> None:
        """Build it, compile it, have its optimizer's state."""
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


def build_ours(size: Size, options: Options, *, compile: Literal["on", "off"]) -> TrainState:
    """As `stillreel pretrain` does."""
    torch.manual_seed(0)
    model = build_model(ModelSettings(towers=TowerSettings(name=size.towers))).to(options.device)
    task = Task(model, ObjectiveSettings()).train()
    wrapped = parallelize(task, EngineSettings(precision="bf16", compile=compile))
    return TrainState(task, wrapped, build_optimizer(task, _OPTIMISER), _OPTIMISER, chunk=0, average=None)


def build_open_clip(size: Size, options: Options) -> Callable[[], object]:
    """A step of open_clip_train 3.3 (`train_one_epoch`, `--precision amp_bf16`), but for the mean over a clip's frames."""
    torch.manual_seed(0)
    model = CLIP(**named_cfg(size.towers)).to(options.device).train()
    loss = ClipLoss(cache_labels=True)
    plain = [weight for name, weight in model.named_parameters() if weight.ndim < 2 or "bias" in name or "ln" in name]
    known = {id(weight) for weight in plain}
    rest = [weight for weight in model.parameters() if id(weight) not in known]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.2}]
    optimizer = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.98), eps=1e-6)
    fed = ready_batch(size, options)
    frames, texts = fed.batch.frames, F.pad(fed.batch.token_ids, (0, model.context_length - WORDS))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(options.device.type, torch.bfloat16):
            of_frames = model.encode_image(frames.flatten(0, 1), normalize=True)
            of_clips = F.normalize(of_frames.unflatten(0, frames.shape[:2]).mean(dim=1), dim=-1)
            total = loss(of_clips, model.encode_text(texts, normalize=True), model.logit_scale.exp())
        total.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))

    return step


def ready_batch(size: Size, options: Options) -> DeviceBatch:
    """Noise, on the device, normalized; captions of random words."""
    dice = np.random.default_rng(0)
    keys = [str(number) for number in range(size.batch)]
    ids = dice.integers(1, 49406, (size.batch, WORDS))
    ids[:, 0], ids[:, 12], ids[:, 13:] = 49406, 49407, 0
    frames = torch.randn(
        size.batch, size.frames, 3, size.pixels, size.pixels, device=options.device, dtype=torch.bfloat16
    )
    identity = Identity(*(part.to(options.device) for part in identify(keys, keys, keys, seed=0, step=0)))
    return DeviceBatch(
        Batch(frames, None, torch.from_numpy(ids).to(options.device), None, identity), State(0, 1, 0), keys
    )


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
