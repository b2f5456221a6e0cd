"""What `select unique=near` finds, and what it costs.

    python -m benchmarks.unique PICTURES [rows=1000000]

Found: each picture once as it is stored and once in other bytes, hashed as a build hashes them. Recall is the share of the others
that are within `distance` bits of their own original, precision the share of all pairs within it that are of one picture. (The
folder's own duplicates are left out before.)
Cost: the tables of `rows` samples, a tenth of them near duplicates, chosen from as `select` does, on one pinned core; the same
with `where` and `sample`. And the share of the hash in making a sample of store=recipe.
"""

from __future__ import annotations

import hashlib
import io
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.command import begin
from stillreel.animate.clips.clip import ClipMaker, Stage
from stillreel.animate.pictures.likeness import perceptual_hash
from stillreel.animate.pictures.picture import PictureReader
from stillreel.configs.build import ClipSettings
from stillreel.configs.select import SelectSettings
from stillreel.configs.system.storage import Folder
from stillreel.shards.format.plan import Plan, PlanHeader, PlannedSample
from stillreel.shards.format.receipt import FileStamp, Receipt
from stillreel.shards.format.record import SCHEMA, Rejection
from stillreel.shards.selection.choice import choose
from stillreel.shards.selection.clips import ClipSet
from stillreel.shards.selection.near import near_pairs

_DISTANCES = (0, 2, 4, 6, 8, 10)
_SHARD = 1000
_SIDES = (512, 384)


def main(words: list[str]) -> None:
    folder, numbers, _ = begin(words, rows=1_000_000)
    files = [
        path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    ]
    report_cost(numbers["rows"])  # first: memory is told by its peak
    report_found(files)
    report_share(files)


def changes() -> dict[str, Callable[[Image.Image], bytes]]:
    """What is done to a picture, by name."""

    def jpeg(image: Image.Image, quality: int = 90) -> bytes:
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=quality)
        return sink.getvalue()

    def cropped(image: Image.Image, share: float) -> Image.Image:
        x, y = (round(side * share / 2) for side in image.size)
        return image.crop((x, y, image.width - x, image.height - y))

    def resized(image: Image.Image, scale: float) -> Image.Image:
        width, height = (max(32, round(side * scale)) for side in image.size)
        return image.resize((width, height), Image.Resampling.LANCZOS)

    return {
        "quality 75": lambda image: jpeg(image, 75),
        "quality 40": lambda image: jpeg(image, 40),
        "size x 1/2": lambda image: jpeg(resized(image, 1 / 2)),
        "size x 1/3": lambda image: jpeg(resized(image, 1 / 3)),
        "256 x 256": lambda image: jpeg(image.resize((256, 256), Image.Resampling.BICUBIC)),
        "brighter by 15 %": lambda image: jpeg(image.point(lambda value: min(255, int(1.15 * value)))),
        "cropped by 1 %": lambda image: jpeg(cropped(image, 0.01)),
        "cropped by 2 %": lambda image: jpeg(cropped(image, 0.02)),
        "cropped by 5 %": lambda image: jpeg(cropped(image, 0.05)),
        "cropped by 10 %": lambda image: jpeg(cropped(image, 0.10)),
    }


def report_found(files: list[bytes]) -> None:
    reader = PictureReader(ClipSettings())
    stored: dict[int, Any] = {}
    for data in files:
        try:
            pixels = reader.read(data).pixels().copy()
        except Rejection:
            continue
        stored.setdefault(perceptual_hash(pixels), pixels)
    own = np.array(list(stored), np.int64)
    print(f"\n{len(own)} pictures of {len(files)} that differ; recall / precision by distance, in percent")
    print(f"{'':18}" + "".join(f"{distance:>15}" for distance in _DISTANCES))
    for name, change in changes().items():
        other = [reader.read(change(Image.fromarray(pixels))).perceptual_hash() for pixels in stored.values()]
        hashes = np.concatenate([own, np.array(other, np.int64)]).view(np.uint64)
        cells = []
        for distance in _DISTANCES:
            pieces = [np.stack(pair) for pair in near_pairs(hashes, distance)]
            pairs = np.unique(np.sort(np.concatenate([np.empty((2, 0), np.int64), *pieces], axis=1), axis=0), axis=1)
            right = int((pairs[1] - pairs[0] == len(stored)).sum())
            cells.append(f"{100 * right / len(stored):.1f} / {100 * right / max(pairs.shape[1], 1):.1f}")
        print(f"{name:18}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


def report_share(files: list[bytes]) -> None:
    """CPU time of the hash, as it comes after a decode, beside that of making the whole sample."""
    maker, reader = ClipMaker(Stage.of_settings(ClipSettings())), PictureReader(ClipSettings())
    made = hashed = 0.0
    for turn in range(4):
        for number, data in enumerate(files):
            planned = PlannedSample(f"a_{number:09d}", "a", str(number), 0, number, 0, 0, ("a picture",), None)
            start = time.thread_time()
            sample = maker.make(planned, data)
            spent = time.thread_time() - start
            if sample.members and turn:  # the first warms up
                picture = reader.read(data)
                start = time.thread_time()
                picture.perceptual_hash()
                hashed += time.thread_time() - start
                made += spent
    count = 3 * len(files)
    print(
        f"\nthe hash: {1e6 * hashed / count:.0f} of {1e6 * made / count:.0f} us a sample, {hashed / made:.1%}",
        flush=True,
    )


def report_cost(rows: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        clips = synthetic_set(Path(home), rows)
        before = _peak()
        for settings in (
            {"where": "min(width, height) >= 300 and 'dog' not in caption"},
            {"unique": "near"},
            {"unique": "near", "distance": 3},
            {"sample": rows // 10},
        ):
            start = time.process_time()
            choice = choose([clips], SelectSettings.resolve(settings))
            spent = time.process_time() - start
            told = " ".join(f"{key}={value}" for key, value in settings.items())
            print(
                f"{told}: {len(choice.rows):,} of {rows:,} rows in {spent:.1f} s, {rows / spent:,.0f} rows/s/core; "
                f"peak memory {_peak():.0f} MiB, {before:.0f} before",
                flush=True,
            )


def synthetic_set(home: Path, rows: int) -> ClipSet:
    """Tables, as a build writes them, of samples of which a tenth are near duplicates of others."""
    dice = np.random.default_rng(0)
    hashes = dice.integers(0, 2**64, rows, dtype=np.uint64)
    copies = dice.permutation(rows)[: rows // 10]
    bits = np.uint64(1) << dice.integers(0, 64, len(copies), dtype=np.uint64)
    hashes[copies] = hashes[dice.integers(0, rows, len(copies))] ^ bits
    folder = Folder(str(home))
    shards = range(-(-rows // _SHARD))
    receipts = [_publish(folder, shard, hashes[shard * _SHARD : (shard + 1) * _SHARD]) for shard in shards]
    settings = {"store": "recipe", "grammar": "film", "shard_size": _SHARD}
    header = PlanHeader(0, "clips", settings, {"grammar": {}}, {}, {}, first_shard=0, first_position=0)
    return ClipSet(folder, [Plan(header, "", rows, len(receipts), folder)], receipts)


def _publish(folder: Folder, shard: int, hashes: np.ndarray[Any, Any]) -> Receipt:
    count = len(hashes)
    keys = [f"clips_{shard * _SHARD + at:09d}" for at in range(count)]
    columns: dict[str, Any] = {
        "key": keys,
        "status": ["written"] * count,
        "source": [f"{shard:05d}.tar"] * count,
        "source_key": [key[6:] for key in keys],
        "width": [_SIDES[0]] * count,
        "height": [_SIDES[at % 2] for at in range(count)],
        "captions": [
            [f"a picture of a {('dog', 'cat')[at % 2]}, the thing of number {key}"] for at, key in enumerate(keys)
        ],
        "moves": [["zoom_in"]] * count,
        "seen_area": [0.9] * count,
        "sha256": [hashlib.sha256(key.encode()).hexdigest() for key in keys],
        "phash": hashes.view(np.int64),
    }
    table = pa.table([pa.array(columns.get(one.name, [None] * count), one.type) for one in SCHEMA], schema=SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = bytes(sink.getvalue())
    name = f"clips-{shard:06d}"
    folder.publish(f"shards/{name}.parquet", data)
    stamp = FileStamp(len(data), hashlib.sha256(data).hexdigest())
    return Receipt(name, "", count, count, {}, {"parquet": stamp}, {}, 1, {})


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
