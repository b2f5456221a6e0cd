"""The stream beside what people load with, in one interleaved run on one pinned core.

    python -m benchmarks.stream PICTURES [pictures=96] [rounds=7] [shards=1000]

Picture sets are made of a folder of photographs: 500x375 (q90), and 256 on the short side (q95), as img2dataset makes
them. T = 12 at 224, all of `film`. CPU milliseconds a clip, medians over interleaved rounds, in one process, in batches of 16:
    a  our stream, store=recipe, frames rendered on the CPU      d  webdataset, plain decode, the tar of c
    b  our stream, store=recipe, picture and windows             e  torch DataLoader, a folder of the JPEGs of c
    c  our stream, store=frames                                  f  tarfile: the bytes of the tar of c, nothing decoded
a, b and c hash each sample when they first read it; c+ and b+ are later epochs, which do not hash again.
Then the time to the first batch after a resume at 0 and 90 % of an epoch, the memory of a worker over three epochs,
and how well the usual order is shuffled.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
import webdataset as wds
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.command import begin
from benchmarks.manifest import manifest_by_hand
from benchmarks.renderer import FRAMES, SIZE, make_sets
from stillreel.animate.camera.draw import draw_recipe
from stillreel.animate.commands import animate as build
from stillreel.configs.build import AnimateSettings
from stillreel.configs.grammar import load_grammar
from stillreel.configs.stream import DataSettings, OrderSettings
from stillreel.pretrain.data import ClipDataset, Share
from stillreel.shards.format.index import encode_index, entry_of
from stillreel.shards.format.manifest import ShardLine
from stillreel.shards.format.writer import TarWriter
from stillreel.shards.stream.simulate import shuffle_quality
from stillreel.shards.stream.stream import open_blend

BATCH = 16


def main(words: list[str]) -> None:
    folder, numbers, _ = begin(words, pictures=96, rounds=7, shards=1000)
    count, rounds, shards = numbers.values()
    sets = make_sets(folder, None, count // BATCH * BATCH)
    for name in ("500x375", "short side 256"):
        with tempfile.TemporaryDirectory() as home:
            report_rates(name, sets[name], Path(home), rounds)
    with tempfile.TemporaryDirectory() as home:
        report_resume(sets["short side 256"][0], Path(home), shards)
        report_memory(sets["short side 256"][0], Path(home))
    report_shuffle()


def report_rates(name: str, jpegs: list[bytes], home: Path, rounds: int) -> None:
    jpegs = jpegs[: len(jpegs) // BATCH * BATCH]
    write_sets(jpegs, home)
    (tar,) = (home / "frames" / "shards").glob("*.tar")
    runs: dict[str, Callable[[], int]] = {
        "a  stream, recipe, rendered": lambda: read_ours(home / "recipe", len(jpegs)),
        "b  stream, recipe, windows": lambda: read_ours(home / "recipe", len(jpegs), render="device"),
        "c  stream, frames": lambda: read_ours(home / "frames", len(jpegs)),
        "d  webdataset, plain decode": lambda: read_webdataset(tar),
        "e  DataLoader over a folder": lambda: read_folder(home / "folder"),
        "f  tarfile, bytes alone": lambda: read_tarfile(tar),
    }
    for mark, store, render in (("b+", "recipe", "device"), ("c+", "frames", "loader")):
        runs[f"{mark} the same, hashed before"] = later_epochs(home / store, len(jpegs), render)
    costs = race(runs, len(jpegs), rounds)
    peer = next(cost for run, cost in costs.items() if run.startswith("d"))
    print(f"\n{name}, {len(jpegs)} pictures, mean {sum(map(len, jpegs)) / len(jpegs) / 1000:.0f} kB")
    for run, cost in costs.items():
        print(f"  {run:32}{cost:8.2f} ms/clip {1000 / cost:8.0f} clips/s/core   x{peer / cost:5.2f} of d", flush=True)


def write_sets(jpegs: list[bytes], home: Path) -> None:
    """The pictures as a data set of each store, one shard each, and the frames as a folder of JPEGs, one folder a clip."""
    (home / "source").mkdir()
    for number, jpeg in enumerate(jpegs):
        (home / "source" / f"{number:05d}.jpg").write_bytes(jpeg)
    lines = [f"{number:05d}.jpg\ta photograph" for number in range(len(jpegs))]
    (home / "source" / "captions.tsv").write_text("\n".join(["file\tcaption", *lines]) + "\n")
    for store in ("recipe", "frames"):
        values = {"store": store, "max_side": 0, "ray": "off", "progress": "off", "name": "benchmark"}
        assert build.run(str(home / "source"), str(home / store), AnimateSettings.resolve(values)) == 0
    (tar,) = (home / "frames" / "shards").glob("*.tar")
    with tarfile.open(tar) as file:
        for member in file:
            if member.name.endswith(".jpg"):
                key, frame, _ = member.name.split(".")
                path = home / "folder" / key / f"{frame}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.extractfile(member).read())  # type: ignore[union-attr]


def race(runs: dict[str, Callable[[], int]], clips: int, rounds: int) -> dict[str, float]:
    """Median CPU milliseconds a clip of each run, interleaved; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            before = time.process_time()
            assert run() == clips, name
            if number:
                times[name].append(1000 * (time.process_time() - before) / clips)
    return {name: statistics.median(values) for name, values in times.items()}


def batches_of(data: Path, steps: int | None, start: int = 0, batch: int = BATCH, **values: object) -> Iterator[Any]:
    settings = DataSettings.resolve({"frames": FRAMES, "size": SIZE, "context_length": 0, **values})
    blend = open_blend(str(data))
    dataset = ClipDataset(blend, settings, Share(batch), blend.start(settings.order(), start, batch), steps)
    return iter(DataLoader(dataset, batch_size=None, collate_fn=_as_it_is))


def read_ours(data: Path, clips: int, render: str = "loader") -> int:
    return sum(len(batch.keys) for batch in batches_of(data, clips // BATCH, render=render))


def later_epochs(data: Path, clips: int, render: str) -> Callable[[], int]:
    endless = batches_of(data, None, render=render)

    def run() -> int:
        return sum(len(next(endless).keys) for _ in range(clips // BATCH))

    return run


def read_webdataset(tar: Path) -> int:
    data = wds.WebDataset(str(tar), shardshuffle=False, empty_check=False).decode("rgb8")
    return sum(len(batch) for batch in _batched(np.stack(_frames(sample)) for sample in data))


def _frames(sample: dict[str, Any]) -> list[Any]:
    return [sample[f"{t:03d}.jpg"] for t in range(FRAMES)]


class Clips(Dataset):  # type: ignore[misc]
    """A folder a clip: what one writes without thinking, PIL and all."""

    def __init__(self, folder: Path) -> None:
        self._clips = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, number: int) -> torch.Tensor:
        frames = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(self._clips[number].iterdir())]
        return torch.from_numpy(np.stack(frames))


def read_folder(folder: Path) -> int:
    return sum(len(batch) for batch in DataLoader(Clips(folder), batch_size=BATCH))


def read_tarfile(tar: Path) -> int:
    keys = set()
    with tarfile.open(tar) as file:
        for member in file:
            assert file.extractfile(member).read()  # type: ignore[union-attr]
            keys.add(member.name.partition(".")[0])
    return len(keys)


def _batched(clips: Iterator[Any]) -> Iterator[torch.Tensor]:
    waiting: list[Any] = []
    for clip in clips:
        waiting.append(clip)
        if len(waiting) == BATCH:
            yield torch.from_numpy(np.stack(waiting))
            waiting = []


def _as_it_is(batch: Any) -> Any:
    return batch


def report_resume(jpeg: bytes, home: Path, shards: int) -> None:
    """Shards of 1,000, a batch of 64, as a process that was just started reads it: from opening the data set on."""
    data = write_linked_set(jpeg, home / "large", shards, 1000)
    print(f"\n{shards:,} shards of 1,000")
    for done in (0.0, 0.5, 0.9):
        waits = []
        for _ in range(3):
            begin = time.perf_counter()
            next(batches_of(data, None, int(done * shards * 1000 / 64), batch=64))
            waits.append(time.perf_counter() - begin)
        print(f"  first batch of 64 at {done:4.0%} of an epoch: {statistics.median(waits):.2f} s", flush=True)


def report_memory(jpeg: bytes, home: Path, epochs: int = 3) -> None:
    """Resident memory of one process after each epoch of 100 shards of 200, in batches of 50."""
    data = write_linked_set(jpeg, home / "small", 100, 200)
    batches = batches_of(data, None, batch=50, frames=1, size=32)
    print("\n100 shards of 200, memory of the process")
    for epoch in range(1, epochs + 1):
        for _ in range(400):
            next(batches)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        print(f"  after epoch {epoch}: {pages * os.sysconf('SC_PAGE_SIZE') / 1e6:.1f} MB", flush=True)


def report_shuffle() -> None:
    print("\nmean distance of two samples of a shard, against a full permutation's")
    for shards in (1000, 3000):
        print(
            f"  {shards:,} shards of 1,000: {shuffle_quality(np.full(shards, 1000), OrderSettings()):.2f}", flush=True
        )


def write_linked_set(jpeg: bytes, folder: Path, shards: int, samples: int) -> Path:
    """A finished data set whose shards are one file under many names: as many as a large one has, without its bytes."""
    (folder / "shards").mkdir(parents=True)
    grammar = load_grammar("film")
    height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
    first = folder / "shards" / "benchmark-000000"
    entries = []
    with open(f"{first}.tar", "wb") as file:
        tar = TarWriter(file)
        for number in range(samples):
            key = f"benchmark_{number:09d}"
            recipe = draw_recipe("film", grammar, None, 0, str(number), (width, height), ["a photograph"]).recipe
            described = {"recipe": recipe.to_json(), "captions": ["a photograph"], "source_key": str(number)}
            members = {"jpg": jpeg, "json": json.dumps(described).encode(), "txt": b"a photograph"}
            entries.append(entry_of(key, tar.add([(f"{key}.{end}", data) for end, data in members.items()])))
        tar.finish()
    Path(f"{first}.idx").write_bytes(encode_index(entries))
    names = [f"benchmark-{number:06d}" for number in range(shards)]
    for name in names[1:]:
        for part in ("tar", "idx"):
            (folder / "shards" / f"{name}.{part}").hardlink_to(f"{first}.{part}")
    presets = {"grammar": grammar.model_dump(), "look": None}
    size = Path(f"{first}.tar").stat().st_size
    lines = [ShardLine(name, samples, samples, size, receipt=name) for name in names]
    manifest = manifest_by_hand("benchmark", "", {"grammar": "film"}, presets, lines)
    (folder / "manifest.json").write_bytes(manifest.encode())
    return folder


if __name__ == "__main__":
    main(sys.argv[1:])
