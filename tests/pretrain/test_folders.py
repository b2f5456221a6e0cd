"""Checkpoints as trainers leave them: every tensor comes back to the bit, and what cannot be read is refused by one sentence."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor

from stillreel.configs import DataError, RequestError, StillreelError
from stillreel.pretrain.model.clip_files import hub_config, hub_state, read_clip
from stillreel.pretrain.model.files import read_checkpoint
from stillreel.pretrain.model.towers import TowerConfig, build_towers
from tests.pretrain import containers

SIZES = TowerConfig(24, 32, 8, 64, 2, 64, 2, 12, 90)


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(build_towers(SIZES.model_cfg()).state_dict())


def assert_same(found: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("prefix", ["model.", "clip_model.", "net.", "_forward_module.model.", "lit.student.clip_vit."])
def test_what_a_trainer_puts_before_every_name_is_taken_off(
    prefix: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    under = {prefix + name: tensor for name, tensor in state.items()}
    torch.save(
        {"state_dict": under, "epoch": 3, "hyper_parameters": {"lr": 1e-3}, "callbacks": {}}, tmp_path / "c.ckpt"
    )
    read = read_checkpoint(tmp_path / "c.ckpt")
    assert read.prefix == prefix and "hyper_parameters" in read.left
    assert_same(read_clip(read).state, state)


def test_names_that_nobody_knows_keep_what_stands_before_them(tmp_path: Path) -> None:
    torch.save({"encoder.layer.weight": torch.ones(2)}, tmp_path / "c.pt")
    assert list(read_checkpoint(tmp_path / "c.pt").tensors) == ["encoder.layer.weight"]


def write_deepspeed(folder: Path, state: dict[str, Tensor]) -> Path:
    (folder / "global_step7").mkdir(parents=True)
    (folder / "latest").write_text("global_step7")
    told = {"param_shapes": [], "ds_config": {}, "args": argparse.Namespace(lr=1), "optimizer": None}
    torch.save({"module": state, **told}, folder / "global_step7" / "mp_rank_00_model_states.pt")
    return folder


def write_zero3(folder: Path, state: dict[str, Tensor], ranks: int = 3) -> Path:
    """As DeepSpeed lays them out: each weight is cut into equal parts, the last one padded."""
    folder.mkdir()
    shapes = [collections.OrderedDict((name, tensor.shape) for name, tensor in state.items())]
    parts: list[list[Tensor]] = [[] for _ in range(ranks)]
    for tensor in state.values():
        each = -(-tensor.numel() // ranks)
        padded = torch.nn.functional.pad(tensor.flatten(), (0, each * ranks - tensor.numel()))
        for rank, part in enumerate(padded.split(each)):
            parts[rank].append(part)
    for rank in range(ranks):
        stem = folder / f"zero_pp_rank_{rank}_mp_rank_00"
        torch.save({"module": {}, "param_shapes": shapes, "buffer_names": []}, f"{stem}_model_states.pt")
        flat = {"zero_stage": 3, "partition_count": ranks, "fp32_flat_groups": [torch.cat(parts[rank])]}
        torch.save({"optimizer_state_dict": flat}, f"{stem}_optim_states.pt")
    return folder


def write_distributed(folder: Path, state: dict[str, Tensor]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what one process is
        dcp.save({"model": state, "optimizer": {"m": torch.ones(3)}, "step": 4}, checkpoint_id=folder, no_dist=True)
    return folder


def write_accelerate(folder: Path, state: dict[str, Tensor]) -> Path:
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    torch.save({"state": {}}, folder / "optimizer.bin")
    return folder


def write_accelerate_fsdp(folder: Path, state: dict[str, Tensor]) -> Path:
    folder.mkdir()
    write_distributed(folder / "pytorch_model_fsdp_0", state)
    return folder


FOLDERS = (write_deepspeed, write_zero3, write_distributed, write_accelerate, write_accelerate_fsdp)


@pytest.mark.parametrize("write", FOLDERS)
def test_a_trainers_folder_is_read_whole(write: object, state: dict[str, Tensor], tmp_path: Path) -> None:
    read = read_checkpoint(write(tmp_path / "run", state))  # type: ignore[operator]
    assert_same(read_clip(read).state, state)


def test_chunks_of_a_tensor_are_put_together(tmp_path: Path) -> None:
    """Two ranks' halves, as FSDP saves them."""
    torch.multiprocessing.spawn(_save_half, (str(tmp_path),), nprocs=2)
    read = read_checkpoint(tmp_path / "halves")
    assert torch.equal(read.tensors["visual.conv1.weight"], torch.arange(24.0).reshape(6, 4))
    (tmp_path / "halves" / "__1_0.distcp").unlink()
    with pytest.raises(DataError, match=r"__1_0\.distcp.*does not lie beside its table"):
        read_checkpoint(tmp_path / "halves")


def test_chunks_that_overlap_are_named(tmp_path: Path) -> None:
    """Together they have as many elements as the tensor, and two of its rows are in none."""
    torch.multiprocessing.spawn(_save_half, (str(tmp_path),), nprocs=2)
    file = tmp_path / "halves" / ".metadata"
    table = pickle.loads(file.read_bytes())
    table.storage_data = {
        dataclasses.replace(index, offset=torch.Size([index.offset[0] // 3, 0])): where
        for index, where in table.storage_data.items()
    }
    file.write_bytes(pickle.dumps(table))
    with pytest.raises(DataError, match=r"chunks of visual\.conv1\.weight overlap"):
        read_checkpoint(tmp_path / "halves")


def _save_half(rank: int, folder: str) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    whole = distribute_tensor(torch.arange(24.0).reshape(6, 4), init_device_mesh("cpu", (2,)), [Shard(0)])
    dcp.save({"visual.conv1.weight": whole}, checkpoint_id=f"{folder}/halves")
    dist.destroy_process_group()


def write_adapter(folder: Path, base: Path, lora: dict[str, Tensor], **config: object) -> Path:
    folder.mkdir()
    told = {"peft_type": "LORA", "lora_alpha": 8, "r": 2, "base_model_name_or_path": str(base), **config}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    save_file(
        {f"base_model.model.{name}": tensor for name, tensor in lora.items()}, folder / "adapter_model.safetensors"
    )
    return folder


QUERY = "vision_model.encoder.layers.1.self_attn.q_proj"


def test_a_lora_is_merged_into_its_base(state: dict[str, Tensor], tmp_path: Path) -> None:
    named = hub_state(state)
    base = containers.write_sharded(tmp_path / "base", named, hub_config(SIZES.model_cfg()))
    down, up, whole = torch.randn(2, 64), torch.randn(64, 2), torch.randn(24, 64)
    lora = {f"{QUERY}.lora_A.weight": down, f"{QUERY}.lora_B.weight": up, "visual_projection.weight": whole}
    read = read_clip(read_checkpoint(write_adapter(tmp_path / "lora", base, lora)))
    expected = named | {f"{QUERY}.weight": named[f"{QUERY}.weight"] + 4 * up @ down, "visual_projection.weight": whole}
    found = hub_state(read.state)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("lora", "config", "said"),
    [
        ({f"{QUERY}.lora_A.weight": torch.ones(2, 64)}, {}, r"q_proj\.lora_A\.weight of the adapter finds no place"),
        ({"else.weight": torch.ones(2)}, {}, r"else\.weight of the adapter finds no place"),
        ({"x": torch.ones(2)}, {"use_dora": True}, r"only plain LoRA is merged"),
        ({"x": torch.ones(2)}, {"peft_type": "IA3"}, r"kind IA3"),
        (
            {"x": torch.ones(2)},
            {"base_model_name_or_path": "nobody/has-this"},
            r"adapts nobody/has-this, which is not here",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    lora: dict[str, Tensor], config: dict[str, object], said: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    base = containers.write_sharded(tmp_path / "base", hub_state(state), hub_config(SIZES.model_cfg()))
    with pytest.raises(StillreelError, match=said):
        read_checkpoint(write_adapter(tmp_path / "lora", base, lora, **config))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink(), "is missing"),
        (lambda folder: (folder / "zero_pp_rank_1_mp_rank_00_model_states.pt").unlink(), "ranks 0, 2"),
    ],
)
def test_a_rank_that_is_missing_is_named(spoil: object, said: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    folder = write_zero3(tmp_path / "run", state)
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(DataError, match=said):
        read_checkpoint(folder)


class Trace:
    """Would touch a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_a_table_that_would_run_something_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    import pickle

    folder = write_distributed(tmp_path / "run", state)
    (folder / ".metadata").write_bytes(pickle.dumps(Trace(tmp_path / "trace")))
    with pytest.raises(DataError, match=r"posix\.system"):
        read_checkpoint(folder)
    assert not (tmp_path / "trace").exists()


def test_a_folder_without_one_says_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="a folder without a checkpoint"):
        read_checkpoint(tmp_path)
    (tmp_path / "latest").write_text("../elsewhere")
    with pytest.raises(DataError, match="no folder beside it"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("shape", [("x",), (-1, 4), (1 << 70,), 7, ((2, 2), 3)])
def test_shapes_that_none_could_have_are_damage_of_the_folder(
    shape: object, state: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = write_zero3(tmp_path / "zero", state)
    for path in folder.glob("*model_states.pt"):
        body = torch.load(path, weights_only=False)
        for group in body["param_shapes"]:
            group[next(iter(group))] = shape
        torch.save(body, path)
    with pytest.raises(DataError, match=f"^{folder}: "):
        read_checkpoint(folder)
