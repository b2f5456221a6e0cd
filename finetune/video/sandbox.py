"""Decode a stranger's file in a process of its own, which may hang, swell or die of it without taking this one along.

    python -m stillreel.finetune.video.sandbox FILE SETTINGS       SETTINGS: of VideoSettings, as JSON
        stdout: a line of JSON, {"frames": shape} or {"error": what is wrong}, then the frames' and the mask's bytes

The child can open no more than a few files, start no process, write no file, and has limits on memory and CPU time; FFmpeg is
told to read nothing but the file (see `container`).
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stillreel.configs import DataError
from stillreel.configs.system.pool import ending
from stillreel.configs.video import VideoSettings

_MEMORY = 2 << 30  # bytes of address space, libraries included
_PATIENCE_S = 10.0  # beside the decoding itself, which max_seconds limits: starting, reading, resizing

Clip = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def decode_sandboxed(file: Path, settings: VideoSettings) -> Clip:
    """Frames uint8 (T, H, W, 3) and mask (T,) of a video or a picture. DataError where it is neither, or costs too much."""
    seconds = settings.max_seconds + _PATIENCE_S
    command = [sys.executable, "-m", "stillreel.finetune.video.sandbox", str(file), settings.model_dump_json()]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False, cwd=_home())
    except subprocess.TimeoutExpired:
        raise DataError(f"decoding it took over {seconds:.0f} s, and was stopped") from None
    head, _, data = done.stdout.partition(b"\n")
    try:
        told = json.loads(head)
        if "error" in told:
            raise DataError(str(told["error"]))
        shape = tuple(map(int, told["frames"]))
        size = math.prod(shape)
        frames = np.frombuffer(data[:size], np.uint8).reshape(shape)
        mask = np.frombuffer(data[size:], np.bool_).reshape(shape[:1])
    except (ValueError, KeyError, TypeError):
        raise DataError(f"decoding it failed: the process that tried {ending(done.returncode)}") from None
    return frames, mask


def _home() -> Path:
    return Path(__file__).resolve().parents[2]


def _limit(settings: VideoSettings) -> None:
    seconds = math.ceil(settings.max_seconds + _PATIENCE_S)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _main(file: str, settings: VideoSettings) -> None:
    # After its own libraries are there, before a byte of the file is looked at.
    from stillreel.finetune.video.picture import frames_of_picture, is_picture
    from stillreel.finetune.video.reader import VideoReader

    _limit(settings)
    try:
        if is_picture(Path(file)):
            frames, mask = frames_of_picture(Path(file).read_bytes(), settings)
        else:
            clip = VideoReader(settings).read(file)
            frames, mask = clip.frames, clip.mask
    except DataError as error:
        _answer({"error": str(error).removeprefix(f"{file}: ")})
        return
    except MemoryError:
        _answer({"error": f"decoding it needs more than {_MEMORY >> 30} GiB"})
        return
    _answer({"frames": frames.shape}, frames.tobytes() + mask.tobytes())


def _answer(head: Mapping[str, object], data: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    _main(sys.argv[1], VideoSettings.model_validate_json(sys.argv[2]))
