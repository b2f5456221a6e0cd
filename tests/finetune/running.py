"""Runs of `finetune` and `evaluate` on small benchmarks, and what they leave."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from stillreel.cli import main
from tests.warm import Warm

# A model of milliseconds.
SMALL = {
    "preset": "tiny",
    "threads": 1,
    "workers": 0,
    "device": "cpu",
    "batch": 8,
    "steps": 6,
    "frames": 2,
    "context_length": 16,
    "optimizer.warmup_steps": 2,
    "save_every": 3,
    "log_every": 1,
    "progress": "lines",
}
OF_TRAINING = {"batch", "steps", "optimizer.warmup_steps", "save_every", "log_every", "progress"}


def finetune_words(data: Path, out: Path, **settings: object) -> list[str]:
    """The command's words; dots of names are written as two underscores."""
    given = {key.replace("__", "."): value for key, value in settings.items()}
    values = {**SMALL, "data": data, "out": out, **given}
    return ["finetune", "folder", *(f"{key}={value}" for key, value in values.items())]


def evaluate_words(data: Path, checkpoint: Path, **settings: object) -> list[str]:
    given = {key.replace("__", "."): value for key, value in settings.items()}
    small = {key: value for key, value in SMALL.items() if key not in OF_TRAINING}
    values = {**small, "data": data, "checkpoint": checkpoint, **given}
    return ["evaluate", "folder", *(f"{key}={value}" for key, value in values.items())]


def finetune(data: Path, out: Path, **settings: object) -> int:
    return main(finetune_words(data, out, **settings))


def evaluate(data: Path, checkpoint: Path, **settings: object) -> int:
    return main(evaluate_words(data, checkpoint, **settings))


def results_in(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def weights_in(out: Path) -> dict[str, Tensor]:
    return load_file(out / "final" / "model.safetensors")


def losses_told(out: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl that have a loss, in its order."""
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [found for line in lines if "loss" in (found := json.loads(line))]


def steps_told(out: Path) -> list[int]:
    """Steps whose loss metrics.jsonl has, in its order."""
    return [line["step"] for line in losses_told(out)]


def kill_after(words: list[str], out: Path, step: int) -> None:
    """Run a command until it has told of a step, and kill it there, with its children, as a machine dies."""
    process = Warm("stillreel", words)
    end = time.monotonic() + 240
    while step not in steps_told(out):
        assert process.poll() is None and time.monotonic() < end, f"it told of no step {step}"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
