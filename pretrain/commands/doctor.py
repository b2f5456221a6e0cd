"""What this machine can do, what it lacks, and what a model costs on it: `stillreel doctor`.

Must answer on a machine that has neither torch nor a GPU, so what may be missing is imported where it is asked for.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stillreel.animate.camera.recipe import RENDERER_VERSION
from stillreel.configs import RequestError
from stillreel.configs.doctor import DoctorSettings
from stillreel.configs.model import ModelSettings
from stillreel.configs.settings import load_preset, preset_names
from stillreel.configs.system.hardware import dense_peak, has_nvidia_driver, usable_cores, usable_memory
from stillreel.configs.system.progress import amount

if TYPE_CHECKING:
    from stillreel.pretrain.run.opening import Described

# What stillreel runs without: module -> what for, and the command that brings it.
_OPTIONAL = {
    "torch": ("training and finetuning", 'pip install "stillreel[train]"'),
    "open_clip": ("the models", 'pip install "stillreel[train]"'),
    "ray": ("builds on more than one core", 'pip install "stillreel[build]"'),
    "img2dataset": ("stillreel download", 'pip install "stillreel[build]"'),
    "s3fs": ("data in a bucket", 'pip install "stillreel[s3]"'),
}
_PACKAGES = {"open_clip": "open_clip_torch"}  # module -> the name that pip knows it by
_SMALL_SHM = 1 << 30  # bytes; loader workers hand batches over in shared memory


class Finding(NamedTuple):
    """A fact about the machine; `fix` says what to do where it is a fault, and `blocks` that a command cannot run."""

    what: str
    value: str
    fix: str = ""
    blocks: bool = False


def run(settings: DoctorSettings) -> int:
    """Print what was found; exit 1 when something that every command needs is wrong."""
    names = preset_names("model") if settings.model == "all" else [settings.model]
    presets = {name: read_preset(name) for name in names}
    findings = list(examine())
    can_model = not any(finding.what in ("torch", "open_clip") and finding.fix for finding in findings)
    models = describe_models(presets) if can_model else {}
    costs = tell_costs(models, settings) if can_model else {}
    times = {}
    if can_model and settings.measure and settings.model != "all":
        times = measure(models[settings.model], costs[settings.model], settings)
    step = None
    if can_model and settings.model != "all":
        from stillreel.pretrain.commands.steps import tell_step

        step = tell_step(models[settings.model], settings)
    if settings.json_output:
        machine = [finding._asdict() for finding in findings]
        told = {"machine": machine, "flops_per_clip": costs, "times": times, "step": step and step.as_json()}
        print(json.dumps(told, indent=1))
    else:
        print("\n".join([*render(findings, costs, times, settings), *(step.render() if step else ())]))
    return 1 if any(finding.blocks for finding in findings) else 0


def examine() -> Iterator[Finding]:
    """The machine and its packages."""
    yield Finding("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    yield Finding("cores", str(usable_cores()))
    yield Finding("memory", amount(usable_memory()))
    yield from _opencv()
    for module, (purpose, command) in _OPTIONAL.items():
        package = _PACKAGES.get(module, module)
        if importlib.util.find_spec(module) is None:
            yield Finding(module, f"missing: {purpose}", command)
        else:
            yield Finding(module, _version(package) or "of unknown version")
    if importlib.util.find_spec("torch") is not None:
        yield from _devices()


def _opencv() -> Iterator[Finding]:
    import cv2

    fix = "" if cv2.__version__.startswith("4.") else 'pip install "opencv-python-headless>=4.10,<5"'
    yield Finding("opencv", f"{cv2.__version__}, renderer version {RENDERER_VERSION}", fix, blocks=bool(fix))
    if other := _version("opencv-python"):
        clash = f"{other} beside opencv-python-headless: each overwrites the other's cv2"
        fix = 'pip uninstall -y opencv-python && pip install --force-reinstall "opencv-python-headless>=4.10,<5"'
        yield Finding("opencv-python", clash, fix)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            peak = dense_peak(device.name)
            reach = f"{peak / 1e12:.0f} TFLOP/s dense bf16" if peak else "its peak is not in our table"
            yield Finding(f"cuda:{index}", f"{device.name}, {amount(device.total_memory)}, {reach}")
        shm = shutil.disk_usage("/dev/shm").total
        if shm < _SMALL_SHM:
            fix = "docker run --shm-size=8g"
            yield Finding("/dev/shm", f"{amount(shm)}: workers of the loader will die of it", fix)
        return
    if not has_nvidia_driver():
        yield Finding("cuda", "no device; models run on the CPU")
    elif torch.version.cuda is None:
        fix = "pip install torch --index-url https://download.pytorch.org/whl/cu130"
        yield Finding("cuda", "there is an NVIDIA driver, and this torch was built without CUDA", fix)
    else:
        fix = "nvidia-smi tells the driver's version; CUDA_VISIBLE_DEVICES may hide the devices"
        yield Finding(
            "cuda", f"there is an NVIDIA driver, and torch for CUDA {torch.version.cuda} finds no device", fix
        )


def read_preset(name: str) -> ModelSettings | None:
    """A preset of configs/model, or a YAML file; None for a checkpoint, which only torch reads."""
    path = Path(name).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix not in (".yaml", ".yml")):
        return None
    model = ModelSettings.resolve(load_preset(name, "model"))
    if ":" in model.towers.name:
        raise RequestError(f"{name}: the sizes of towers.name={model.towers.name} are not known before it is fetched")
    return model


def describe_models(presets: Mapping[str, ModelSettings | None]) -> dict[str, Described]:
    """Presets, and the models of checkpoints."""
    from stillreel.pretrain.run.opening import describe, describe_fresh

    return {name: describe(name) if one is None else describe_fresh(one) for name, one in presets.items()}


def tell_costs(models: Mapping[str, Described], settings: DoctorSettings) -> dict[str, dict[str, int]]:
    """Operations of one clip and its caption, by preset and part."""
    from stillreel.pretrain.model.flops import clip_flops

    costs = {}
    for name, model in models.items():
        flops = clip_flops(model.settings, model.towers, settings.frames, settings.context_length)
        costs[name] = {**flops._asdict(), "forward": flops.forward, "training": flops.training}
    return costs


def measure(model: Described, flops: Mapping[str, int], settings: DoctorSettings) -> dict[str, Any]:
    """What a clip takes on this machine, and what it means: see `stillreel.pretrain.model.timing`."""
    import torch

    from stillreel.pretrain.model.timing import time_clip

    times = time_clip(model.settings, model.towers, settings.frames, settings.context_length)
    reached = 1000 * (flops["forward"] + (times.captions - 1) * flops["head"]) / times.model
    peak = dense_peak(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return {
        "ms_per_clip": times.steps,
        "loader_clips_per_s": usable_cores() * 1000 / times.loader,
        "model_clips_per_s": 1000 / times.model,
        "model_tflops_per_s": reached / 1e12,
        "share_of_peak": reached / peak if peak else None,
    }


def render(
    findings: list[Finding], costs: dict[str, dict[str, int]], times: dict[str, Any], settings: DoctorSettings
) -> Iterator[str]:
    """A page to read."""
    yield "this machine"
    for finding in findings:
        yield f"  {finding.what:<14}{finding.value}"
        if finding.fix:
            yield f"  {'':<14}-> {finding.fix}"
    if costs:
        yield f"\nGFLOP a clip of {settings.frames} frames with a caption of {settings.context_length} tokens"
        parts = ("image", "temporal", "text", "head", "forward", "training", "rerank")
        yield f"  {'':<16}" + "".join(f"{part:>12}" for part in parts)
        for name, flops in costs.items():
            yield f"  {name:<16}" + "".join(f"{flops[part] / 1e9:>12,.2f}" for part in parts)
    if times:
        yield f"\nwhere the time goes: ms a clip of {settings.frames} frames, {settings.model}"
        for step, milliseconds in times["ms_per_clip"].items():
            yield f"  {step:<46}{milliseconds:>10,.2f}"
        yield from _in_words(times)


def _in_words(times: dict[str, Any]) -> Iterator[str]:
    share = f", {times['share_of_peak']:.0%} of the peak" if times["share_of_peak"] else ""
    loader, model = times["loader_clips_per_s"], times["model_clips_per_s"]
    yield f"  forward: {model:,.1f} clips/s, {times['model_tflops_per_s']:.3g} TFLOP/s{share}; training: about a third"
    yield f"  {usable_cores()} cores feed {loader:,.1f} clips/s: training waits for the {_slower(loader, model / 3)}"


def _slower(loader: float, model: float) -> str:
    return "loader" if loader < model else "model"
