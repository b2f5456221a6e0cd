"""What tests of the search make things of: small models on the disk, folders of small videos, indexes of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from stillreel.cli import main
from stillreel.configs.system.storage import Folder
from stillreel.finetune.search.store import VideoIndex, open_index
from stillreel.pretrain.model import save_model
from tests.pretrain.video.making import frame_of, write_video
from tests.pretrain.zoo import shaken

FRAMES, SIZE = 4, 64


def write_model(folder: Path, kind: str = "rerank") -> Path:
    save_model(shaken(kind), Folder(str(folder)), {})
    return folder


def write_videos(folder: Path, count: int) -> Path:
    """Videos that look different, of two seconds each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        tint = np.array([number * 90 % 256, number * 50 % 256, 255 - number * 70 % 256])
        frames = [np.uint8(0.5 * frame_of(20 * at + number) + 0.5 * tint) for at in range(20)]
        write_video(folder / f"video-{number:02}.mp4", frames, fps=10)
    return folder


def index(videos: Path, out: Path, checkpoint: Path, **settings: Any) -> int:
    """Run `stillreel index`."""
    values = {
        "checkpoint": checkpoint,
        "frames": FRAMES,
        "size": SIZE,
        "video.per_second": 2,
        "device": "cpu",
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    return main(["index", str(videos), str(out), *(f"{key}={value}" for key, value in values.items())])


def opened(folder: Path) -> VideoIndex:
    return open_index(Folder(str(folder)))


def copied(index: Path, to: Path) -> Path:
    """An index to be damaged."""
    return Path(shutil.copytree(index, to))
