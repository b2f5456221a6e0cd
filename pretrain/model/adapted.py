"""LoRA adapters of PEFT's (Hu et al., arXiv 2106.09685): merged into the checkpoint that they adapt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stillreel.configs import DataError, RequestError
from stillreel.pretrain.model.files import Checkpoint, read_checkpoint, read_file, read_json

ADAPTER = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_PLAIN = {
    "use_dora": False,
    "fan_in_fan_out": False,
    "alora_invocation_tokens": None,
}  # what else changes what it computes


def read_adapted(folder: Path) -> Checkpoint:
    """The base with the adapter in it: W + scale * B A, and the weights that were trained whole in place of the base's.

    The base is where the adapter's configuration says: a path, or a repository that lies in the hub's cache. Every tensor of
    the adapter must find its place. RequestError where the base is not here.
    """
    config = read_json(folder / ADAPTER)
    if config.get("peft_type") != "LORA" or any(config.get(key, value) != value for key, value in _PLAIN.items()):
        raise DataError(
            f"an adapter of the kind {config.get('peft_type')}, and only plain LoRA is merged; merge it with peft"
        )
    file = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise DataError(f"it has an {ADAPTER}, and none of {', '.join(_WEIGHTS)}")
    # Read as a file is, which takes what stands before all names off.
    adapter = {f"{_PREFIX}{name.removeprefix(_PREFIX)}": one for name, one in read_file(file).tensors.items()}
    base = read_checkpoint(_base_of(folder, config))
    return merge(base, adapter, config)


def merge(base: Checkpoint, adapter: Mapping[str, Tensor], config: Mapping[str, Any]) -> Checkpoint:
    """The base's tensors with the adapter in them. DataError names what finds no place."""
    tensors, merged = dict(base.tensors), 0
    for given, tensor in adapter.items():
        name = given.removeprefix(_PREFIX)
        if name.endswith(_B):
            continue
        if not name.endswith(_A):
            _check(name in tensors and tensors[name].shape == tensor.shape, given)
            tensors[name] = tensor
            continue
        module = name.removesuffix(_A)
        target, up = f"{module}.weight", adapter.get(f"{_PREFIX}{module}{_B}")
        _check(up is not None and target in tensors and tensor.ndim == 2, given)
        assert up is not None
        _check(
            up.ndim == 2 and tensors[target].shape == (up.shape[0], tensor.shape[1]) and up.shape[1] == len(tensor),
            given,
        )
        change = _scale(module, len(tensor), config) * (up.float() @ tensor.float())
        tensors[target] = tensors[target].float() + change
        merged += 1
    lonely = [name for name in adapter if name.endswith(_B) and name.removesuffix(_B) + _A not in adapter]
    _check(not lonely and merged > 0, lonely[0] if lonely else "lora_A")
    return base._replace(tensors=tensors, container=f"{base.container} with {merged} LoRA weights merged")


def _scale(module: str, rank: int, config: Mapping[str, Any]) -> float:
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if module == pattern or module.endswith(f".{pattern}"):
            alpha = value
    if not isinstance(alpha, int | float):
        raise DataError(f"its lora_alpha is {alpha!r}; expected a number")
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def _check(holds: bool, name: str) -> None:
    if not holds:
        raise DataError(f"{name} of the adapter finds no place in its base, which has no weight of that name and shape")


def _base_of(folder: Path, config: Mapping[str, Any]) -> Path:
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise DataError(f"its {ADAPTER} does not say what it adapts (base_model_name_or_path)")
    for path in (folder / named, Path(named).expanduser()):
        if path.exists():
            return path
    from huggingface_hub import try_to_load_from_cache

    for file in (
        "model.safetensors",
        "pytorch_model.bin",
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.bin",
    ):
        try:
            found = try_to_load_from_cache(named, file)
        except ValueError:  # no name of a repository
            break
        if isinstance(found, str):
            return Path(found).parent
    raise RequestError(
        f"{folder} adapts {named}, which is not here; put that checkpoint on this machine and name it in {ADAPTER} as "
        "base_model_name_or_path"
    )
