"""What more workers and more hosts gain: one against two, and Ray against a plain process pool, by turns in one run.

    python -m benchmarks.speedup WORK pictures=FOLDER [videos=FOLDER] [count=8000] [rounds=3] [phases=workers,hosts]

    workers   `stillreel animate` (store=frames) of `count` pictures, which the FOLDER's are repeated to, on two cores: one
              process, two, and two on Ray; give a `count` of an even number of shards (1,000 each). Rates are the build's own,
              `whole` is the command's time. Beside them what two bare processes, which only decode and hash, are of one
    hosts     `finetune folder prepare=true` and `index` of the FOLDER's videos on a cluster of one and of two hosts, which are
              network namespaces of one pinned core each. Rates are their own; the bytes are compared

Prints each figure's median, and ratios of the medians.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.build import build, floor_rate, load_pictures, repeat

_RATE = re.compile(r"(?:samples in .*|indexed), ([\d.]+)(?:/s| a second)")
_VIDEO_ENDINGS = (".mp4", ".avi", ".webm", ".mkv")
_WAYS = {"one process": ("off", 1), "two processes": ("off", 2), "two on Ray": ("local", 2)}


def main(words: list[str]) -> None:
    options = dict(word.split("=", 1) for word in words if "=" in word)
    home = Path(next(word for word in words if "=" not in word)) / "speedup"
    rounds = int(options.get("rounds", 3))
    phases = options.get("phases", "workers,hosts").split(",")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    try:
        if "workers" in phases:
            compare_workers(home, Path(options["pictures"]), int(options.get("count", 8000)), rounds)
        if "hosts" in phases:
            compare_hosts(home, Path(options["videos"]), rounds)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def compare_workers(home: Path, pictures: Path, count: int, rounds: int) -> None:
    loaded = load_pictures(pictures)
    repeat(loaded, count, home / "source")
    rates, whole = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    bare: list[float] = []
    for _ in range(rounds):
        bare.append(floor_rate(loaded, 2) / floor_rate(loaded, 1))
        for name, (ray, workers) in _WAYS.items():
            built = build(home, "frames", workers, "0", ray)
            shutil.rmtree(home / "frames")
            rates[name].append(built["rate"])
            whole[name].append(built["wall"])
    for name in _WAYS:
        print(f"{name:<14}{_median(rates, name):8.1f} clips/s   whole {_median(whole, name):6.1f} s", flush=True)
    one, two, on_ray = (_median(rates, name) for name in _WAYS)
    print(f"two processes are {two / one:.2f} of one, and {two / on_ray:.2f} of two on Ray", flush=True)
    print(f"two bare ones, which decode and hash, are {statistics.median(bare):.2f} of one", flush=True)


def compare_hosts(home: Path, videos: Path, rounds: int) -> None:
    from tests.cluster.hosts import ADDRESS, hosts
    from tests.cluster.test_videos import digests
    from tests.finetune.search.making import FRAMES, SIZE, write_model
    from tests.making import data_digests

    listed = sorted(path for path in videos.rglob("*") if path.suffix in _VIDEO_ENDINGS)
    lines = [f"{path.relative_to(videos)}\ta video\t{'test' if at else 'train'}" for at, path in enumerate(listed)]
    (home / "captions.tsv").write_text("\n".join(["video\tcaption\tsplit", *lines, ""]))
    common = [f"ray={ADDRESS}", f"frames={FRAMES}", "video.per_second=6"]
    prepare = ["finetune", "folder", f"data={home}", f"videos={videos}", "prepare=true", "out=OUT", "progress=off"]
    index = ["index", str(videos), "OUT", f"checkpoint={write_model(home / 'model')}", f"size={SIZE}", "device=cpu"]
    commands = {"prepare": [*prepare, *common], "index": [*index, "batch=8", "part=16", *common]}
    rates, whole = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    bytes_of = defaultdict[str, set[str]](set)
    for count in [1, 2] * rounds:
        with hosts(count, RAY_memory_monitor_refresh_ms="0") as machines:
            for core, machine in enumerate(machines):
                with _pinned(core):
                    machine.start_ray(home / f"{machine.name}.log")
            for name, words in commands.items():
                out, log = home / f"{name}-out", home / "said"
                command = [sys.executable, "-m", "stillreel", *(word.replace("OUT", str(out)) for word in words)]
                start = time.perf_counter()
                with _pinned(0), log.open("wb") as file:
                    process = machines[0].start(*command, output=file)
                assert process.wait() == 0, log.read_text()
                whole[f"{name} {count}"].append(time.perf_counter() - start)
                rates[f"{name} {count}"].append(float(_RATE.findall(log.read_text())[-1]))
                bytes_of[name].add(str((data_digests if name == "prepare" else digests)(out)))
                shutil.rmtree(out)
    for name in commands:
        one, two = (_median(rates, f"{name} {count}") for count in (1, 2))
        alone, both = (_median(whole, f"{name} {count}") for count in (1, 2))
        same = "equal" if len(bytes_of[name]) == 1 else "DIFFERENT"
        print(
            f"{name:<8}{len(listed)} videos: one host {one:.1f}/s, two {two:.1f}/s: {two / one:.2f} of one; bytes {same}"
        )
        print(f"        the whole command {alone:.1f} s and {both:.1f} s: {alone / both:.2f}", flush=True)


def _median(found: dict[str, list[float]], name: str) -> float:
    return statistics.median(found[name])


@contextmanager
def _pinned(core: int) -> Iterator[None]:
    """What starts within it runs on one core."""
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


if __name__ == "__main__":
    main(sys.argv[1:])
