"""Videos that are in memory, decoded in a process beside the one that wants their frames: it may hang, swell or die of one.

    python -m stillreel.pretrain.video.beside BYTES FRAMES OPTIONS    two files in memory, by number; VideoOptions as JSON
        stdin      a line of JSON a video: its name, the clip's shape, and what draws its frames
        stdout     a line of JSON: what was shown, the frames then being in FRAMES; or why there is nothing

The file of a video is never on a disk: both processes hold it, and FFmpeg opens it by /proc. What the process may do is what
`sandbox` lets it. A loader worker has one such process, which waits while the worker does not, and ends with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stillreel.configs import StillreelError
from stillreel.configs.system.dice import Dice
from stillreel.configs.system.pool import cpu_limit, ending
from stillreel.configs.video import VideoOptions, VideoSettings
from stillreel.pretrain.video.errors import VideoError
from stillreel.pretrain.video.sandbox import MEMORY, PATIENCE_S, limit_process, shut_in

_LARGEST = 256 << 20  # bytes of a video: all of it is in memory
_OWN_MAKING = {-one for one in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT, signal.SIGILL)}
_TRIES_ALONE = 2  # fresh processes that a video must end before it is guilty
_TRIES = 5  # processes that may be ended by others, before the machine is


class DrawnBy(NamedTuple):
    """What the dice of a sampler are made of, see `Dice`."""

    seed: int
    source_key: str


class Shown(NamedTuple):
    """What a video has shown: how many of the T frames there are, when these come and when the video ends, in seconds, how many
    frames it has in all, and what is wrong with it nevertheless."""

    frames: int
    times: list[float]
    end: float
    total: int
    flaws: list[str]


class VideoDecoder:
    """Decodes one video after another in a process of its own, which is started with the first, and anew after its death."""

    def __init__(self, options: VideoOptions) -> None:
        self._options = options
        self._child: _Child | None = None

    def read(self, name: str, data: bytes, frames: NDArray[np.uint8], drawn_by: DrawnBy | None = None) -> Shown:
        """Fill frames (T, size, size, 3) from the bytes of a video; without `drawn_by` they are those of a test.

        VideoError, and nothing else, for a video that gives none, crashes its decoder or takes more than `max_seconds` of CPU
        time. StillreelError when something else ends the process again and again: no video's doing.
        """
        if len(data) > _LARGEST:
            raise VideoError(name, "too_large", f"{len(data):,} bytes; at most {_LARGEST:,} are read")
        alone = 0
        for _ in range(_TRIES):
            child, fresh = self._child, False
            if child is None or not child.is_ours():
                child, fresh = _Child(self._options), True
            self._child = child
            order = {"name": name, "shape": frames.shape[:2], "drawn_by": drawn_by}
            answer = child.ask(order, data, frames)
            if answer is not None:
                if "reason" in answer:
                    raise VideoError(name, answer["reason"], answer["detail"])
                return Shown(**answer)
            self._child = None
            code = child.end()
            if code == -signal.SIGPROF:
                seconds = self._options.max_seconds
                raise VideoError(name, "too_slow", f"decoding took over {seconds:g} s (max_seconds), and did not stop")
            alone += fresh and code in _OWN_MAKING  # another may have died of what videos before have left in it
            if alone == _TRIES_ALONE:
                raise VideoError(name, "corrupt", f"the process that decodes it {ending(code)}, each time")
        raise StillreelError(
            f"the process that decodes videos {ending(code)}, {_TRIES} times in a row: no video's doing. Is memory short?"
        )


class _Child:
    """The process, as its parent sees it."""

    def __init__(self, options: VideoOptions) -> None:
        self._owner = os.getpid()
        self._bytes, self._frames = os.memfd_create("video"), os.memfd_create("frames", os.MFD_ALLOW_SEALING)
        # A process that a video has taken over must not take the memory away that this one reads.
        fcntl.fcntl(self._frames, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        numbers = (self._bytes, self._frames)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *map(str, numbers), options.model_dump_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=numbers,
            cwd=Path(__file__).resolve().parents[2],
            start_new_session=True,  # what is sent to all processes of a run is for those that can heed it
        )
        self._finish = weakref.finalize(self, _end, self._process, numbers, self._owner)

    def is_ours(self) -> bool:
        """Whether this process started it, and did not inherit it by a fork."""
        return self._owner == os.getpid()

    def ask(self, order: dict[str, Any], data: bytes, frames: NDArray[np.uint8]) -> dict[str, Any] | None:
        """Its answer, the frames filled in; None when it has died."""
        os.ftruncate(self._bytes, 0)
        _write(self._bytes, data)
        if os.fstat(self._frames).st_size < frames.nbytes:
            os.ftruncate(self._frames, frames.nbytes)
        told, heard = self._process.stdin, self._process.stdout
        assert told is not None and heard is not None
        with contextlib.suppress(BrokenPipeError):
            told.write(json.dumps(order).encode() + b"\n")
            told.flush()
        line = heard.readline()
        if not line.endswith(b"\n"):
            return None
        answer: dict[str, Any] = json.loads(line)
        if "reason" not in answer:
            with mmap.mmap(self._frames, frames.nbytes, access=mmap.ACCESS_READ) as shared:
                frames[:] = np.frombuffer(shared, np.uint8).reshape(frames.shape)
        return answer

    def end(self) -> int:
        """End it, if it has not ended; how it did."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_S)
        self._finish()
        return int(self._process.returncode)


def _end(process: subprocess.Popen[bytes], numbers: tuple[int, ...], owner: int) -> None:
    if os.getpid() == owner:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            pipe.close()  # type: ignore[union-attr]
    for number in numbers:
        os.close(number)


def _write(number: int, data: bytes) -> None:
    view, at = memoryview(data), 0
    while at < len(view):
        at += os.pwrite(number, view[at:], at)


def _serve(video: int, frames: int, options: VideoOptions, orders: IO[bytes]) -> None:
    """Answer until there are no more orders."""
    from stillreel.pretrain.video.reader import VideoReader

    file = f"/proc/self/fd/{video}"
    limit_process()
    shut_in(file)
    for line in orders:
        order = json.loads(line)
        settings = VideoSettings(frames=order["shape"][0], size=order["shape"][1], **dict(options))
        try:
            with cpu_limit(options.max_seconds + PATIENCE_S):
                dice = Dice(*order["drawn_by"]) if order["drawn_by"] else None
                clip = VideoReader(settings).read(file, None, dice, name=order["name"])
                with mmap.mmap(frames, clip.frames.nbytes) as shared:
                    np.frombuffer(shared, np.uint8).reshape(clip.frames.shape)[:] = clip.frames
            flaws = [str(flaw) for flaw in clip.flaws]
            found = Shown(int(clip.mask.sum()), clip.times.tolist(), clip.end, clip.total, flaws)
            answer: dict[str, Any] = found._asdict()
        except VideoError as error:
            answer = {"reason": error.reason, "detail": error.detail}
        except MemoryError:
            answer = {"reason": "too_large", "detail": f"decoding it needs more than {MEMORY >> 30} GiB"}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]), VideoOptions.model_validate_json(sys.argv[3]), sys.stdin.buffer)
