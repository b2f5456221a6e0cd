"""The parts of a step add up to what torch's counter counts, floors are floors, and a rank's memory is what FSDP2 gives it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.flop_counter import FlopCounterMode

from stillreel.cli import main
from stillreel.configs.model import ModelSettings
from stillreel.configs.settings import load_preset, preset_names
from stillreel.configs.system.hardware import ACCELERATORS, Accelerator, accelerator_of, dense_peak
from stillreel.pretrain.engine.memory import rank_memory
from stillreel.pretrain.engine.parallel import sharded_blocks
from stillreel.pretrain.model.costs import Part, Step, Work, step_parts
from stillreel.pretrain.model.flops import clip_flops
from stillreel.pretrain.model.pretrained import named_cfg
from stillreel.pretrain.model.towers import TINY
from tests.pretrain.gradients import build_task
from tests.pretrain.zoo import ZOO, inputs, shaken

STEP = Step(clips=3, frames=5, words=9)
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")


@pytest.fixture
def _countable() -> Iterator[None]:
    """What the counter cannot see is spelt out."""
    with sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
        yield


def parts_of(kind: str) -> dict[str, Part]:
    return {part.name: part for part in step_parts(shaken(kind).settings, TINY.model_cfg(), STEP)}


@pytest.mark.parametrize("kind", [*ZOO])
def test_parts_add_up_to_the_cost_of_a_step(kind: str) -> None:
    flops = clip_flops(shaken(kind).settings, TINY.model_cfg(), STEP.frames, STEP.words)
    expected = STEP.clips * (flops.training + 3 * (STEP.clips - 1) * flops.head)
    assert sum(part.flops for part in parts_of(kind).values()) == expected


@pytest.mark.usefixtures("_countable")
@pytest.mark.parametrize("kind", ["mean", "seq", "stan"])
def test_each_part_is_what_the_counter_counts(kind: str) -> None:
    """Forward and backward, by the modules that the operations are in."""
    model, parts = copy.deepcopy(shaken(kind)).train(), parts_of(kind)
    model.patch_dropout.rate = 0
    given = inputs(*STEP)
    with FlopCounterMode(display=False) as counter:
        model(*given).sum().backward()
    counted = {name: sum(one.values()) for name, one in counter.get_flop_counts().items()}
    tower, layers = f"{type(model).__name__}.clip.visual.transformer.resblocks", range(TINY.vision_layers)
    assert sum(counted[f"{tower}.{layer}.mlp"] for layer in layers) == parts["image tower: perceptron"].flops
    attended = sum(counted[f"{tower}.{layer}.attn"] for layer in layers)
    assert attended == parts["image tower: projections"].flops + parts["image tower: attention"].flops
    assert counted["Global"] == pytest.approx(sum(part.flops for part in parts.values()), rel=0.01)


def test_a_floor_is_the_longer_of_both_and_floors_add_up() -> None:
    device = Accelerator("a square one", peak=10.0, bandwidth=2.0, link=1.0)
    assert Work(100, 10).floor(device) == 10 and Work(10, 10).floor(device) == 5
    part = Part("both", (Work(100, 10), Work(10, 10).times(3)))
    assert (part.flops, part.bytes, part.floor(device)) == (130, 40, 25)


@pytest.mark.parametrize("preset", preset_names("model"))
def test_every_preset_has_parts_whose_floor_is_above_that_of_its_operations(preset: str) -> None:
    settings = ModelSettings.resolve(load_preset(preset, "model"))
    parts = step_parts(settings, named_cfg(settings.towers.name), Step(64, 12, 32))
    for device in ACCELERATORS.values():
        together = sum(part.flops for part in parts) / device.peak
        floor = sum(part.floor(device) for part in parts)
        assert (
            together < floor < (4 if preset != "tiny" else 20) * together
        )  # whose products are too small for any device
        assert all(part.bytes > 0 for part in parts if part.flops and part.name.startswith(("patch", "image", "text")))


def test_devices_are_known_by_their_names_in_cuda() -> None:
    names = {"NVIDIA H200": "h200", "NVIDIA H100 80GB HBM3": "h100", "NVIDIA A100-SXM4-80GB": "a100"}
    for name, known in names.items():
        assert accelerator_of(name) == known and ACCELERATORS[known].peak == dense_peak(name)
    assert not any(map(accelerator_of, ("NVIDIA H200 NVL", "NVIDIA H100 PCIe", "Tesla T4")))


@pytest.mark.parametrize("kind", ["mean", "clip2video", "stan"])
def test_a_rank_holds_what_fsdp_gives_it(kind: str) -> None:
    """Of 48 ranks, which divide hardly anything, the first one: its parts are the largest."""
    task = build_task(kind).float()
    dist.init_process_group("fake", rank=0, world_size=48, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (48,))
        for block in sharded_blocks(task):
            fully_shard(block, mesh=mesh)
        fully_shard(task, mesh=mesh, ignored_params={one for one in task.parameters() if one.ndim == 0})
        held = [(one.to_local() if isinstance(one, DTensor) else one).numel() for one in task.parameters()]
    finally:
        dist.destroy_process_group()
    model = task.model
    told = rank_memory(model.settings, TINY.model_cfg(), STEP, 48, "fsdp")
    whole = rank_memory(model.settings, TINY.model_cfg(), STEP, 48, "ddp")
    assert told.weights == 4 * sum(held)
    assert whole.weights == 4 * sum(one.numel() for one in build_task(kind).parameters())
    assert whole.moments == 2 * whole.gradients > 0
    assert 0 < told.gathered_weights < whole.weights and whole.gathered_weights == 0
    assert told.activations == whole.activations > 0


def test_what_is_gathered_at_512_ranks_is_features_and_never_frames() -> None:
    """65,536 clips: two vectors of 512 numbers and 16 bytes each."""
    settings = ModelSettings.resolve(load_preset("mean-b16", "model"))
    told = rank_memory(settings, named_cfg(settings.towers.name), Step(128, 12, 32), 512, "ddp")
    assert told.gathered_features == 65_536 * (2 * 4 * 512 + 16)
    more = rank_memory(settings, named_cfg(settings.towers.name), Step(64, 12, 32), 512, "ddp")
    assert 1.9 < told.activations / more.activations < 2.1


def test_doctor_tells_a_step_on_a_device_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["doctor", "model=mean-b32", "device=h100", "ranks=64", "measure=false"]
    assert main(words) == 0
    page = capsys.readouterr().out
    for part in ("a training step of 256 clips, mean-b32", "H100 SXM, bf16: 989 TFLOP/s, 3.35 TB/s", "image tower: attention",
                 "optimizer, casts of weights", "unmeasured here", "parallel=fsdp", "gathered features"):  # fmt: skip
        assert part in page
    assert main([*words, "json=true"]) == 0
    step = json.loads(capsys.readouterr().out)["step"]
    assert sum(one["flops"] for one in step["parts"].values()) == pytest.approx(256 * 322.0e9, rel=0.001)
    assert all(one["measured_ms"] is None for one in step["parts"].values())
    assert 1450 < step["floor_clips_per_s"] < 989e12 / 322e9  # the goal lies below the floor's rate


def test_doctor_times_the_parts_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "model=tiny", "device=cpu", "batch=1", "frames=2", "json=true"]) == 0
    step = json.loads(capsys.readouterr().out)["step"]
    assert step["device"] is None and step["floor_clips_per_s"] is None
    timed = {name for name, one in step["parts"].items() if one["measured_ms"]}
    assert timed >= {*step["parts"]} - {"temporal module"}


def test_ranks_of_no_device_are_asked_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine's own device is meant")
    assert main(["doctor", "model=tiny", "ranks=4", "measure=false"]) == 2
    assert "say of which device, such as device=h100" in capsys.readouterr().err
