"""Decode a stranger's file in a process of its own, which may hang, swell or die of it without taking this one along.

    python -m stillreel.pretrain.video.sandbox FILE SETTINGS       SETTINGS: of VideoSettings, as JSON
        stdout: a line of JSON, {"frames": shape} or {"error": what is wrong}, then the frames' and the mask's bytes

The child can open no more than a few files, start no process, write no file, and has limits on memory and CPU time. Where the
kernel has Landlock, there is nothing for it to read but this file and Python's modules, and no network; FFmpeg is told so, too
(see `container`).
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stillreel.configs import DataError
from stillreel.configs.system.pool import ending
from stillreel.configs.video import VideoSettings

MEMORY = 2 << 30  # bytes of address space, libraries included
_FILES = 32
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # system calls, of the same number everywhere
_ALL_OF_FILES, _READ, _LIST, _ALL_OF_TCP, _NO_NEW_PRIVILEGES = (1 << 13) - 1, 1 << 2, 1 << 3, 3, 38
PATIENCE_S = 10.0  # beside the decoding itself, which max_seconds limits: starting, reading, resizing

Clip = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def decode_sandboxed(file: Path, settings: VideoSettings) -> Clip:
    """Frames uint8 (T, H, W, 3) and mask (T,) of a video or a picture. DataError where it is neither, or costs too much."""
    seconds = settings.max_seconds + PATIENCE_S
    command = [sys.executable, "-m", "stillreel.pretrain.video.sandbox", str(file), settings.model_dump_json()]
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


def limit_process() -> None:
    """From here on this process has little address space, opens few files, writes none and leaves no core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # root may nevertheless; but Landlock leaves it nothing to start


def shut_in(*files: str) -> None:
    """From here on only these files and modules can be opened, for reading, if the kernel can do that."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    version = call(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return
    rules = struct.pack("=QQ", _ALL_OF_FILES, _ALL_OF_TCP)[: 16 if version >= 4 else 8]
    ruleset = call(_LANDLOCK_CREATE, rules, len(rules), 0)
    for path in filter(
        os.path.exists, (*files, *sys.path)
    ):  # PyAV imports some of its modules when it meets what needs them
        allowed = os.open(path, os.O_RDONLY)
        rights = _READ | _LIST if Path(path).is_dir() else _READ
        call(_LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", rights, allowed), 0)
        os.close(allowed)
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    call(_LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _main(file: str, settings: VideoSettings) -> None:
    # After its own libraries are there, before a byte of the file is looked at.
    from stillreel.pretrain.video.picture import frames_of_picture, is_picture
    from stillreel.pretrain.video.reader import VideoReader

    seconds = math.ceil(settings.max_seconds + PATIENCE_S)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    limit_process()
    shut_in(file)
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
        _answer({"error": f"decoding it needs more than {MEMORY >> 30} GiB"})
        return
    _answer({"frames": frames.shape}, frames.tobytes() + mask.tobytes())


def _answer(head: Mapping[str, object], data: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    _main(sys.argv[1], VideoSettings.model_validate_json(sys.argv[2]))
