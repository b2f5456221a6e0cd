"""What a run would be and cost: touches no GPU, builds no weights, and reads a few clips to see how long that takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import torch

from stillreel.configs.finetune import FinetuneSettings
from stillreel.configs.system.hardware import dense_peak
from stillreel.configs.system.progress import amount, duration
from stillreel.finetune.data.loader import Pair, draws_of
from stillreel.finetune.data.store import FrameStore, open_source
from stillreel.pretrain.engine.session import step_flops
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.adapter import is_openais
from stillreel.pretrain.model.towers import build_towers
from stillreel.pretrain.run.opening import Described
from stillreel.pretrain.video import VideoError

_BUSY = 0.4  # share of a device's dense peak that a well fed step reaches
_READ = 12  # clips that are read to see how fast that is
_STATE = 16  # bytes a weight: itself, its gradient, AdamW's two moments, in fp32


def without_weights(described: Described) -> VideoTextModel:
    """The model as it is built, on no device."""
    with torch.device("meta"):
        return VideoTextModel(build_towers(described.towers), described.settings)


def describe_costs(settings: FinetuneSettings, described: Described, pairs: int, classes: int) -> str:
    """Steps, parameters, memory, operations and time of a run on `pairs` pairs that tells `classes` apart (0: none)."""
    steps, model = settings.steps_of(pairs), without_weights(described)
    weights = sum(tensor.numel() for tensor in model.parameters())
    step = step_flops(settings, described.settings, described.towers, settings.frames, settings.context_length, classes)
    names = devices()
    peaks = [dense_peak(name) for name in names]
    known = [peak for peak in peaks if peak]
    if known and len(known) == len(peaks):
        seconds = steps * step / (_BUSY * sum(known))
        time = f"{duration(seconds)} at {_BUSY:.0%} of the peak of {len(names)} x {names[0]}, decoding not counted"
    else:
        time = "unknown (no device whose peak is known)"
    kept = (
        amount(activations(described.towers, settings, classes))
        if is_openais(described.towers)
        else "an unknown amount"
    )
    return "\n".join(
        (
            f"{steps:,} steps of {settings.batch:,} clips: {steps * settings.batch / pairs:.3g} epochs of {pairs:,} pairs",
            f"parameters: {weights / 1e6:.1f} M",
            f"memory, estimated: {amount(weights * _STATE)} of weights and optimizer on each device, and {kept} of "
            "activations over all of them" + (" (computed again)" if settings.activation_checkpointing else ""),
            f"operations: {step:.3g} FLOP a step, {steps * step:.3g} in all",
            f"time: {time}",
        )
    )


def describe_reading(settings: FinetuneSettings, pairs: Sequence[Pair], store: FrameStore | None, ranks: int) -> str:
    """How fast clips can be read here, by some of them; where it is slower than the device, it is what a run takes."""
    source = open_source(settings.video_settings(), store, draws_of(settings))
    chosen = pairs[:: max(len(pairs) // _READ, 1)][:_READ]
    start, damaged = time.monotonic(), 0
    for pair in chosen:
        try:
            source.read(pair.clip, 0)
        except VideoError:
            damaged += 1
    seconds = (time.monotonic() - start) / len(chosen)
    workers = ranks * max(settings.workers, 1)
    clips = settings.steps_of(len(pairs)) * settings.batch
    return (
        f"reading: {1000 * seconds:.3g} ms a clip and process here, by {len(chosen)} of them"
        + (f" ({damaged} damaged)" if damaged else "")
        + f"; {duration(clips * seconds / workers)} for the run, with {workers} processes that have a core each"
    )


def activations(towers: dict[str, object], settings: FinetuneSettings, classes: int) -> int:
    """Bytes that a step keeps for its backward pass, by Korthikanti et al. (arXiv 2205.05198): 34 a token, layer and channel
    in half precision without the attention matrix. The blocks over frames are small beside that; STAN's are half as much again.
    """
    vision, text = towers["vision_cfg"], towers["text_cfg"]
    assert isinstance(vision, dict) and isinstance(text, dict)
    side = settings.size // vision["patch_size"]
    rows = min(settings.micro_batch or settings.batch, settings.batch)
    seen = rows * settings.frames * (1 + side * side) * vision.get("width", 768) * vision.get("layers", 12)
    texts = rows * (1 + ceil(classes / settings.batch))
    read = texts * settings.context_length * text.get("width", 512) * text.get("layers", 12)
    each = 2 if settings.activation_checkpointing else 34
    return int((seen + read) * each * (2 if settings.precision == "fp32" else 1))


def devices() -> list[str]:
    """Names of the machine's NVIDIA devices, by the driver's files: asking CUDA would take hold of them."""
    names = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = [line.partition(":") for line in file.read_text().splitlines()]
        names += [value.strip() for key, _, value in lines if key.strip() == "Model"]
    return names
