"""State dicts written into every kind of checkpoint file, as the codes that publish them write it."""

from __future__ import annotations

import json
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

State = Mapping[str, Tensor]


def write_torch(path: Path, state: State) -> Path:
    torch.save(OrderedDict(state), path)
    return path


def write_legacy(path: Path, state: State) -> Path:
    torch.save(OrderedDict(state), path, _use_new_zipfile_serialization=False)
    return path


def write_training(path: Path, state: State) -> Path:
    """open_clip's trainer under DistributedDataParallel: the optimizer's tensors lie in the same file."""
    wrapped = {f"module.{name}": nn.Parameter(tensor, requires_grad=False) for name, tensor in state.items()}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    torch.save({"epoch": 3, "name": "run", "state_dict": wrapped, "optimizer": optimizer}, path)
    return path


def write_safetensors(path: Path, state: State) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path, {"format": "pt"})
    return path


def write_sharded(folder: Path, state: State, config: Mapping[str, object]) -> Path:
    """A folder as the HF hub has large models: an index, and the tensors in two files."""
    folder.mkdir()
    names = list(state)
    files = {name: f"model-{1 + 2 * place // len(names):05d}-of-00002.safetensors" for place, name in enumerate(names)}
    for file in set(files.values()):
        write_safetensors(folder / file, {name: state[name] for name in names if files[name] == file})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_mmengine(path: Path, state: State) -> Path:
    """mmengine's checkpoint: its hub of log buffers pickles objects, arrays and functions beside the state dict."""
    with _mmengine() as history:
        buffers = OrderedDict((f"train/{name}", history([1.0, 0.5])) for name in ("loss", "lr"))
        hub = {"log_scalars": buffers, "runtime_info": OrderedDict(epoch=3, cfg="model = dict()"), "resumed_keys": {}}
        meta = {"cfg": "model = dict()", "seed": 1, "epoch": 3, "time": "20231001", "mmengine_version": "0.8.4"}
        torch.save({"meta": meta, "state_dict": OrderedDict(state), "message_hub": hub}, path)
    return path


def write_torchscript(path: Path, state: State) -> Path:
    """An archive of TorchScript whose submodules spell the names, as OpenAI publishes CLIP."""
    root = nn.Module()
    for name, tensor in state.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, nn.Module())
            module = getattr(module, parent)
        module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    root.register_buffer("input_resolution", torch.tensor(32))
    torch.jit.save(torch.jit.script(root.eval()), str(path))
    return path


@contextmanager
def _mmengine() -> Iterator[type]:
    """mmengine.logging.history_buffer.HistoryBuffer while a file is written, pickling as the real one does."""

    class HistoryBuffer:
        def __init__(self, values: list[float]) -> None:
            self._max_length = 1000000
            self._log_history = np.array(values)
            self._count_history = np.ones(len(values))
            self._statistics_methods = {"mean": HistoryBuffer.mean}

        def mean(self) -> float:
            return float(self._log_history.mean())

        def __getstate__(self) -> dict[str, object]:
            self.__dict__.update(statistics_methods=self._statistics_methods)
            return self.__dict__

    name = "mmengine.logging.history_buffer"
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = name, "HistoryBuffer"
    HistoryBuffer.mean.__module__, HistoryBuffer.mean.__qualname__ = name, "HistoryBuffer.mean"
    module = types.ModuleType(name)
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    names = ("mmengine", "mmengine.logging", name)
    sys.modules.update({one: types.ModuleType(one) for one in names[:2]} | {name: module})
    try:
        yield HistoryBuffer
    finally:
        for one in names:
            del sys.modules[one]


WRITERS = {
    "torch": write_torch,
    "legacy": write_legacy,
    "training": write_training,
    "safetensors": write_safetensors,
    "mmengine": write_mmengine,
}
