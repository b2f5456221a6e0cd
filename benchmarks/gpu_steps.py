"""Steps of training that are timed beside each other on a GPU day: ours, eager and compiled, and open_clip's."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu_options import Options, Overdue, Phase, Size
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
_OPTIMIZER = OptimizerSettings(warmup_steps=10)


def fitting_batch(size: Size, memory: int | None) -> int:
    """Clips of a step for a card of so many bytes (None: no card): a fifth of it is for three models and their states."""
    if memory is None:
        return size.batch
    return max(1, min(size.batch, int(0.8 * memory / 1e9 / size.clip_gb) // 16 * 16))


class Contender:
    """A step that is built and timed beside others."""

    def __init__(self, build: Callable[[], Callable[[], object]], options: Options) -> None:
        self._build = build
        self._options = options
        self._own = 0  # bytes that it keeps between steps
        self.peak = 0
        self.rounds: list[float] = []  # seconds a step

    def warm_up(self, phase: Phase, steps: int) -> object:
        """Build it, compile it, have its optimizer's state, as far as there is time; what the last step gave."""
        before = self._allocated()
        self._step, last = self._build(), None
        for _ in range(steps):
            if phase.left() <= 0:
                raise Overdue
            last = self._step()
            wait(self._options)
        self._own = self._allocated() - before
        return last

    def run(self) -> None:
        """A round."""
        if self._options.on_cuda:
            torch.cuda.empty_cache()  # the others' blocks
            torch.cuda.reset_peak_memory_stats()
            self._step()
            wait(self._options)
        before, begin = self._allocated(), time.perf_counter()
        for _ in range(self._options.steps):
            self._step()
        wait(self._options)
        self.rounds.append((time.perf_counter() - begin) / self._options.steps)
        if self._options.on_cuda:
            self.peak = max(self.peak, torch.cuda.max_memory_allocated() - before + self._own)

    def describe(self, size: Size) -> str:
        """Its rounds so far."""
        rate = size.batch / statistics.median(self.rounds)
        spread = f"{size.batch / max(self.rounds):,.1f} to {size.batch / min(self.rounds):,.1f}"
        memory = f", peak {self.peak / 1e9:.1f} GB" if self.peak else ""
        return f"{rate:,.1f} clips/s ({spread}), {mfu(rate, size, self._options)}{memory}"

    def _allocated(self) -> int:
        return torch.cuda.memory_allocated() if self._options.on_cuda else 0


def race(contenders: dict[str, Contender], size: Size, options: Options, phase: Phase) -> bool:
    """Tell what each contender does by itself, then in interleaved rounds; whether all of them fit into memory."""
    ready, too_large = {}, []
    for number, (name, contender) in enumerate(contenders.items()):

        def enter(name: str = name, contender: Contender = contender) -> None:
            begin = time.monotonic()
            try:
                contender.warm_up(phase, options.warmup)
                warm = time.monotonic() - begin
                contender.run()
            except torch.OutOfMemoryError as error:
                phase.tell(f"  {name:<10} {size.batch} clips do not fit: {str(error).splitlines()[0]}")
                too_large.append(name)
                return
            phase.tell(f"  {name:<10} first {options.warmup} steps: {warm:.1f} s; then {contender.describe(size)}")
            ready[name] = contender

        # Who compiles leaves a third of the time to who comes after.
        phase.attempt(name, enter, phase.left() * (1 if number == len(contenders) - 1 else 2 / 3))
        if too_large:
            return False
    for number in range(1, options.rounds):
        needed = 1.2 * sum(one.rounds[-1] * (options.steps + 1) for one in ready.values())
        if not ready or not phase.allows(f"round {number + 1}", needed + 3):
            break
        for name, contender in ready.items():
            phase.attempt(name, contender.run)
    rates = {name: size.batch / statistics.median(one.rounds) for name, one in ready.items()}
    for name, contender in ready.items():
        beside = f"; {rates[name] / rates['open_clip']:.2f} x open_clip" if "open_clip" in rates else ""
        phase.tell(f"  {name:<10} {len(contender.rounds)} rounds: {contender.describe(size)}{beside}")
    return True


def build_ours(size: Size, options: Options, *, compile: Literal["on", "off"]) -> TrainState:
    """As `stillreel pretrain` does."""
    torch.manual_seed(0)
    model = build_model(ModelSettings(towers=TowerSettings(name=size.towers))).to(options.device)
    task = Task(model, ObjectiveSettings()).train()
    wrapped = parallelize(task, EngineSettings(precision="bf16", compile=compile))
    return TrainState(task, wrapped, build_optimizer(task, _OPTIMIZER), _OPTIMIZER, micro_batch=0, ema=None)


def build_open_clip(size: Size, options: Options, fed: DeviceBatch) -> Callable[[], Tensor]:
    """A step of open_clip_train 3.3 (`train_one_epoch`, `--precision amp_bf16`), but for the mean over a clip's frames."""
    torch.manual_seed(0)
    model = CLIP(**named_cfg(size.towers)).to(options.device).train()
    loss = ClipLoss(cache_labels=True)
    plain = [weight for name, weight in model.named_parameters() if weight.ndim < 2 or "bias" in name or "ln" in name]
    known = {id(weight) for weight in plain}
    rest = [weight for weight in model.parameters() if id(weight) not in known]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.2}]
    optimizer = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.98), eps=1e-6)
    frames, texts = fed.batch.frames, F.pad(fed.batch.token_ids, (0, model.context_length - WORDS))

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(options.device, torch.bfloat16):
            of_frames = model.encode_image(frames.flatten(0, 1), normalize=True)
            of_clips = F.normalize(of_frames.unflatten(0, frames.shape[:2]).mean(dim=1), dim=-1)
            total = loss(of_clips, model.encode_text(texts, normalize=True), model.logit_scale.exp())
        total.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        return total.detach()

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
    model = ModelSettings(towers=TowerSettings(name=size.towers))
    reached = rate * clip_flops(model, named_cfg(size.towers), size.frames, WORDS).training
    peak = dense_peak(torch.cuda.get_device_name(options.device)) if options.on_cuda else None
    return f"{reached / 1e12:,.3g} TFLOP/s, MFU {f'{reached / peak:.1%}' if peak else '-'}"


def wait(options: Options) -> None:
    """For the device."""
    if options.on_cuda:
        torch.cuda.synchronize(options.device)
