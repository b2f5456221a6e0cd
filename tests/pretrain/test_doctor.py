"""`stillreel doctor`: says what there is, what is missing and what fixes it, and what a model costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stillreel.configs.system.hardware import dense_peak, peak_memory, usable_cores, usable_memory
from stillreel.pretrain.commands.doctor import examine
from tests.making import stillreel


def test_the_page_has_machine_costs_and_times() -> None:
    said = stillreel("doctor", "model=tiny", "frames=4")
    assert said.returncode == 0, said.stderr
    for part in ("python ", "cores ", f"torch         {torch.__version__.split('+')[0]}", "renderer version", "tiny ",
                 "decode and render, one core", "model, forward", "clips/s"):  # fmt: skip
        assert part in said.stdout


def test_json_tells_every_preset_and_measures_none() -> None:
    said = stillreel("doctor", "model=all", "json=true").stdout
    told = json.loads(said[said.index("{") :])
    assert told["flops_per_clip"]["mean-b32"]["training"] == pytest.approx(322.0e9, rel=0.001)
    assert told["flops_per_clip"]["stan-b32"]["forward"] > 1.4 * told["flops_per_clip"]["mean-b32"]["forward"]
    assert told["times"] == {}


def test_an_unknown_model_is_named() -> None:
    said = stillreel("doctor", "model=clip2vidio-b32")
    assert (said.returncode, "did you mean 'clip2video-b32'?" in said.stderr) == (2, True)


def test_what_is_missing_comes_with_the_command_that_brings_it(tmp_path: Path) -> None:
    """On a machine without torch, here an interpreter that cannot see this one's, doctor still answers."""
    hidden = "import sys; sys.modules['torch'] = sys.modules['open_clip'] = sys.modules['ray'] = None; "
    code = hidden + "import stillreel.cli; sys.exit(stillreel.cli.main(['doctor']))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert 'pip install "stillreel[train]"' in said.stdout
    assert 'pip install "stillreel[build]"' in said.stdout
    assert "GFLOP" not in said.stdout


def test_a_command_without_torch_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; import stillreel.cli; sys.exit(stillreel.cli.main(['export', 'a', 'b']))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (said.returncode, 'pip install "stillreel[train]"' in said.stderr) == (2, True), said.stderr


def test_facts_of_this_machine_are_those_of_the_system() -> None:
    assert 1 <= usable_cores() <= 4096
    assert 1 << 28 < usable_memory() < 1 << 50
    found = {finding.what: finding for finding in examine()}
    assert found["torch"].value == torch.__version__.split("+")[0]
    assert ("cuda:0" in found) == torch.cuda.is_available()


@pytest.mark.parametrize(
    ("device", "teraflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", 70),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("Tesla T4", 65),
        ("AMD Instinct MI300X", None),
    ],
)
def test_dense_peaks_are_not_the_sparse_ones(device: str, teraflops: int | None) -> None:
    assert dense_peak(device) == (teraflops and teraflops * 1e12)


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere getrusage is asked, which knows of this process's parent, too"
)
def test_a_process_s_peak_of_memory_is_its_own() -> None:
    """The one that forks it has torch in memory by then."""
    program = (
        "from stillreel.configs.system.hardware import peak_memory\n"
        "print(peak_memory()); kept = b'.' * (64 << 20); print(peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = (int(line) for line in done.stdout.split())
    assert before < 64 << 20 < peak_memory()
    assert after > 64 << 20
