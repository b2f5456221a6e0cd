"""How every benchmark begins: what its command says, and one core and one thread for the whole process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2


def begin(words: Sequence[str], **usual: int) -> tuple[Path, dict[str, int], dict[str, str]]:
    """`PICTURES name=value ...` as the folder, the numbers named in `usual`, and the other options."""
    options = dict(word.split("=", 1) for word in words if "=" in word)
    folder = next(Path(word) for word in words if "=" not in word)
    numbers = {name: int(options.pop(name, value)) for name, value in usual.items()}
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    try:
        import torch

        torch.set_num_threads(1)
    except ImportError:  # an environment of peers need not have it
        pass
    return folder, numbers, options
