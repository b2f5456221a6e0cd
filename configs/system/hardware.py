"""What a machine has: cores and memory that this process may use, and what its accelerators reach on paper."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import NamedTuple

# Dense matrix products in bf16 with fp32 sums (V100, T4: fp16), TFLOP/s, by NVIDIA's data sheets; the first name that a
# device's name contains. Data sheets print the sparse figure larger; it is twice what a dense product can reach.
_DENSE_PEAKS = {
    "B300": 2250,
    "B200": 2250,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H200 NVL": 836,
    "H200": 989,  # and GH200
    "H100": 989,
    "H20": 148,
    "A100": 312,
    "A40": 150,
    "A30": 165,
    "A10G": 70,
    "A10": 125,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "RTX 6000 Ada": 364,
    "RTX A6000": 155,
    "RTX 4090": 165,
    "RTX 3090": 71,
    "V100": 125,
    "T4": 65,
}


def dense_peak(device: str) -> float | None:
    """FLOP/s of dense bf16 matrix products of a CUDA device, by its name; None for a device that is not known here."""
    return next((peak * 1e12 for name, peak in _DENSE_PEAKS.items() if name in device), None)


class Accelerator(NamedTuple):
    """What a device reaches on paper, by NVIDIA's data sheet of it."""

    name: str
    peak: float  # FLOP/s of dense bf16 matrix products
    bandwidth: float  # bytes/s of its memory
    link: float  # bytes/s from the host, one way


# "H100 Tensor Core GPU", "H200 Tensor Core GPU" (SXM; PCIe 5: 128 GB/s both ways) and "A100 80GB" (SXM; PCIe 4: 64 GB/s).
ACCELERATORS = {
    "h100": Accelerator("H100 SXM", 989e12, 3.35e12, 64e9),
    "h200": Accelerator("H200 SXM", 989e12, 4.8e12, 64e9),
    "a100": Accelerator("A100 SXM 80 GB", 312e12, 2.039e12, 32e9),
}
_CUDA_NAMES = {"H200": "h200", "H100 80GB HBM3": "h100", "A100-SXM4-80GB": "a100"}


def accelerator_of(device: str) -> str | None:
    """The one of ACCELERATORS that a CUDA device is, by its name; None for another."""
    return next((found for name, found in _CUDA_NAMES.items() if name in device and "NVL" not in device), None)


def usable_cores() -> int:
    """Cores that this process may use at once: its affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def usable_memory() -> int:
    """Bytes that this process may take: the machine's, or the limit of its container."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return min(pages, int(limit)) if limit.isdigit() else pages


def peak_memory() -> int:
    """Bytes of memory that this process has had at most.

    Linux tells it of the process itself; getrusage's figure is also that of whoever forked it.
    """
    own = [line for line in _read("/proc/self/status").splitlines() if line.startswith("VmHWM:")]
    if own:
        return int(own[0].split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def has_nvidia_driver() -> bool:
    """Whether the kernel has one, whatever torch was built for."""
    return Path("/proc/driver/nvidia/version").exists()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
