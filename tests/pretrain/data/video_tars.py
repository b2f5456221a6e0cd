"""Small tars of videos as video2dataset writes them, drawn here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from stillreel.configs.stream import CatalogSettings
from stillreel.shards.commands.catalog import run
from tests.making import write_tar
from tests.pretrain.video.making import frame_of, write_video

Members = list[tuple[str, bytes]]

_CODECS = {"webm": "libvpx", "avi": "mpeg4"}


@cache
def video(number: int = 0, frames: int = 30, ending: str = "mp4", fps: int = 10) -> bytes:
    """A video of so many frames, different for each number."""
    codec = _CODECS.get(ending, "libx264")
    options = {"preset": "ultrafast"} if codec == "libx264" else {"b": "200000"}
    pictures = [frame_of((7 * number + at) % 256, 64, 48) for at in range(frames)]
    with TemporaryDirectory() as home:
        file = write_video(Path(home) / f"v.{ending}", pictures, fps=fps, codec=codec, options=options)
        return file.read_bytes()


def sound() -> bytes:
    """An mp4 with sound and nothing to see."""
    with TemporaryDirectory() as home:
        file = Path(home) / "s.mp4"
        with av.open(str(file), "w") as container:
            stream = container.add_stream("aac", rate=16000)
            for at in range(8):
                wave = np.sin(np.arange(1024 * at, 1024 * (at + 1)) / 20)[None].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16000, 1024 * at
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return file.read_bytes()


def sample_of(number: int, **more: object) -> Members:
    """A sample of video2dataset's: KEY.mp4, KEY.txt, KEY.json. Some videos are shorter than two seconds."""
    key = f"{number:09d}"
    described = {"url": f"https://videos.test/{number}", "caption": f"video {number}", "key": key, "status": "success"}
    return [
        (f"{key}.mp4", video(number, 8 + 9 * (number % 4))),
        (f"{key}.txt", f"video {number}".encode()),
        (f"{key}.json", json.dumps({**described, **more}, indent=4).encode()),
    ]


def failed(number: int) -> Members:
    """What video2dataset leaves of a video that it could not download."""
    key = f"{number:09d}"
    told = {"key": key, "caption": f"video {number}", "status": "failed_to_download"}
    return [(f"{key}.txt", f"video {number}".encode()), (f"{key}.json", json.dumps(told, indent=4).encode())]


def write_shard(tars: Path, number: int, samples: Sequence[Members], stats: Mapping[str, object] | None = None) -> Path:
    """A shard as video2dataset leaves it: 00000.tar and 00000_stats.json. (Nobody reads its Parquet.)"""
    told = {"failed_to_download": 0, "failed_to_subsample": 0, "successes": len(samples), **(stats or {})}
    path = write_tar(tars / f"{number:05d}.tar", [member for sample in samples for member in sample])
    path.with_name(f"{number:05d}_stats.json").write_text(json.dumps(told))
    return path


def catalog(tars: Path, out: Path) -> int:
    return run(str(tars), str(out), CatalogSettings(progress="off"))


def write_videos(home: Path, sizes: Sequence[int]) -> Path:
    """A catalog of shards of these sizes."""
    number = 0
    for shard, size in enumerate(sizes):
        write_shard(home / "tars", shard, [sample_of(one) for one in range(number, number + size)])
        number += size
    assert catalog(home / "tars", home / "videos") == 0
    return home / "videos"
