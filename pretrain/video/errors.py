"""What can be wrong with a video file. A file that gives no frame raises one of these; a clip that could be read although
its file is damaged carries them as its flaws. Neither is ever silent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from stillreel.configs import DataError

# The closed list. Reports count by it; details are free text.
TROUBLES = {
    "missing": "there is no such file",
    "unreadable": "the file cannot be read",
    "empty": "the file has no bytes",
    "not_a_video": "no container that is read here: playlists and lists of files are none",
    "no_video": "a container without moving pictures: sound, subtitles, a cover",
    "unsupported": "a codec that cannot be decoded here",
    "no_frames": "no frame could be decoded",
    "truncated": "the file ends early",
    "corrupt": "the data are damaged",
    "times": "its timestamps jump by more than anyone waits for a frame",
    "too_large": "frames of more than max_pixels, or more than there is memory for",
    "too_slow": "decoding took longer than max_seconds",
    "outside": "no frame lies in the span that was asked for",
}


class Flaw(NamedTuple):
    """A trouble that a clip survived: a key of TROUBLES and what exactly was found."""

    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class VideoError(DataError):
    """A video that gives no clip: its file, a reason from TROUBLES and what exactly was found."""

    def __init__(self, file: str, reason: str, detail: str) -> None:
        assert reason in TROUBLES, reason
        super().__init__(file, reason, detail)
        self.file, self.reason, self.detail = file, reason, detail

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}: {self.detail}"


@contextmanager
def reading(file: str | Path) -> Iterator[None]:
    """Whatever is raised within is the file's VideoError: no file ends a run, whatever its bytes make a library do."""
    try:
        yield
    except VideoError:
        raise
    except MemoryError:
        raise VideoError(str(file), "too_large", "reading it needs more memory than there is") from None
    except OSError as error:
        raise VideoError(str(file), "unreadable", error.strerror or str(error)) from error
    except Exception as error:
        raise VideoError(str(file), "corrupt", f"{type(error).__name__} while it was read: {error}") from error
