"""What a build costs beside the work itself.

    python benchmarks/build.py PICTURES [PICTURES ...] [count=10000] [workers=2] [max_side=0]

Each PICTURES is a folder of JPEGs or a tar that holds some. They are repeated, under new keys, until there are `count`,
written as WebDataset shards, and built by `stillreel animate` into store=recipe and store=frames. Before and after each
build, `workers` processes do nothing but decode the same pictures (simplejpeg) and sha256 them: the floor of store=recipe.

Prints, for each build: clips/s and clips/s/core with and without Ray's start; for frames the share of the workers' time
that is not decode, render or encode; for recipe its rate over the floor's.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path

import simplejpeg

from stillreel.shards.format.writer import TarWriter

_TAR_SAMPLES = 1000
_FLOOR_SAMPLES = 1000  # a process


def main(words: list[str]) -> None:
    options = dict(word.split("=") for word in words if "=" in word)
    count, workers = int(options.get("count", 10_000)), int(options.get("workers", 2))
    max_side = options.get("max_side", "0")
    for source in (word for word in words if "=" not in word):
        pictures = load_pictures(Path(source))
        sizes = [len(picture) for picture in pictures]
        mean = sum(sizes) / len(sizes) / 1000
        print(f"\n{source}: {len(pictures)} pictures, mean {mean:.0f} kB, as {count:,} samples, max_side={max_side}")
        with tempfile.TemporaryDirectory() as folder:
            repeat(pictures, count, Path(folder) / "source")
            for store in ("recipe", "frames"):
                before = floor_rate(pictures, workers)
                built = build(Path(folder), store, workers, max_side)
                after = floor_rate(pictures, workers)
                report(store, built, (before + after) / 2, count, workers)


def load_pictures(source: Path) -> list[bytes]:
    """The JPEGs of a folder or tar that decode in color."""
    if source.suffix == ".tar":
        with tarfile.open(source) as tar:
            found = [tar.extractfile(member).read() for member in tar if member.name.endswith(".jpg")]  # type: ignore[union-attr]
    else:
        found = [path.read_bytes() for path in sorted(source.glob("*.jpg"))]
    assert found, source
    return found


def repeat(pictures: list[bytes], count: int, folder: Path) -> None:
    """Write `count` samples as WebDataset tars, taking the pictures in turn."""
    folder.mkdir()
    for first in range(0, count, _TAR_SAMPLES):
        with open(folder / f"{first // _TAR_SAMPLES:05d}.tar", "wb") as file:
            tar = TarWriter(file)
            for number in range(first, min(count, first + _TAR_SAMPLES)):
                key = f"{number:09d}"
                tar.add([(f"{key}.jpg", pictures[number % len(pictures)]), (f"{key}.txt", b"a photograph")])
            tar.finish()


def floor_rate(pictures: list[bytes], workers: int) -> float:
    """Pictures a second that `workers` processes together decode and hash."""
    with multiprocessing.Pool(workers) as pool:
        return sum(pool.map(_decode_and_hash, [pictures] * workers, chunksize=1))


def _decode_and_hash(pictures: list[bytes]) -> float:
    # Copies, since a build never meets the same bytes, warm in the cache, twice.
    chosen = [bytes(bytearray(pictures[number % len(pictures)])) for number in range(_FLOOR_SAMPLES)]
    start = time.perf_counter()
    for picture in chosen:
        simplejpeg.decode_jpeg(picture, "RGB")
        hashlib.sha256(picture).digest()
    return len(chosen) / (time.perf_counter() - start)


def build(folder: Path, store: str, workers: int, max_side: str, ray: str = "local") -> dict[str, float]:
    """Run `stillreel animate`; its rate, its wall time, and the workers' seconds by kind of work."""
    out = folder / store
    command = [sys.executable, "-m", "stillreel", "animate", str(folder / "source"), str(out)]
    command += [
        f"store={store}",
        f"workers={workers}",
        f"max_side={max_side}",
        "name=bench",
        "progress=off",
        f"ray={ray}",
    ]
    start = time.perf_counter()
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    wall = time.perf_counter() - start
    made = re.search(r"samples in .*, ([\d,.]+)/s", said)
    assert made, said
    seconds: Counter[str] = Counter()
    for receipt in out.glob("shards/*.json"):
        seconds.update(json.loads(receipt.read_text())["seconds"])
    return {**seconds, "rate": float(made[1].replace(",", "")), "wall": wall}


def report(store: str, built: dict[str, float], floor: float, count: int, workers: int) -> None:
    core_seconds = count / built["rate"] * workers
    work = sum(built.get(kind, 0.0) for kind in ("decode", "render", "encode"))
    rate, whole = built["rate"], count / built["wall"]
    print(
        f"  {store}: {rate:.0f} clips/s, {rate / workers:.0f} a core; with planning, Ray's start and stop {whole:.0f}"
    )
    parts = ("decode", "render", "encode", "draw", "write", "read")
    spent = ", ".join(f"{kind} {built[kind] / core_seconds:.1%}" for kind in parts if kind in built)
    print(f"    of {core_seconds:.0f} core seconds: {spent}, else {1 - built['total'] / core_seconds:.1%}")
    if store == "recipe":
        print(
            f"    decode + sha256 alone: {floor:.0f}/s, {floor / workers:.0f} a core; ours / floor = {rate / floor:.2f}"
        )
    else:
        print(f"    everything but decode, render and encode: {1 - work / core_seconds:.1%}")


if __name__ == "__main__":
    main(sys.argv[1:])
