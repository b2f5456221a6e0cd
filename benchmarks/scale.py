"""What a driver spends on data sets of many samples, and on many shards: its time and memory beside linear growth.

    python -m benchmarks.scale WORK [rows=10000,100000,1000000,12400000] [shard_size=10000] [real=1000000] [s3_shards=1240]
                               [phases=plan,resume,simulate,verify,task,driver,bytes,bucket]

WORK is a folder for what is made: 1.3 GB at most, removed again. Samples are ten bytes of text, for what grows is their number.
Each line is a process of its own; `peak` is its resident memory, of which the imports take some 150 MiB.
    plan       written from a listing that is drawn                 task       a worker's way to its shard's rows
    resume     of the finished build: nothing to do                 driver     its CPU a shard, 64 workers simulated
    simulate   the stream opened, its order and its costs           bytes      verify beside sha256 alone, by size of a sample
    bucket     resume where it lies on a server of S3's protocol
    verify     up to `real` rows, since beyond that shards are copies of one under other names
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import resource
import shutil
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.manifest import manifest_by_hand
from stillreel.configs.build import BuildSettings, VerifySettings
from stillreel.configs.stream import OrderSettings
from stillreel.configs.system.pool import process_pool
from stillreel.configs.system.storage import Folder
from stillreel.shards.build import engine
from stillreel.shards.build.engine import Build, run_build
from stillreel.shards.build.executors import Executor, Outcome, ShardTask
from stillreel.shards.commands.verify import verify
from stillreel.shards.format.manifest import MANIFEST, ShardLine, manifest_of
from stillreel.shards.format.plan import Listed, Plan, PlanHeader, open_plan, write_plan
from stillreel.shards.format.receipt import PARTS, Receipt, part_file, receipt_file
from stillreel.shards.format.record import WRITTEN, Record
from stillreel.shards.format.writer import ShardWriter
from stillreel.shards.stream.simulate import node_costs, shuffle_quality
from stillreel.shards.stream.stream import open_blend

WORKERS, SECONDS_A_SHARD = 64, 10.0  # simulated: a shard of 1,000 samples at 100 a second
Figures = dict[str, Any]


def main(words: list[str]) -> None:
    options = dict(word.split("=", 1) for word in words if "=" in word)
    home = Path(next(word for word in words if "=" not in word)) / "scale"
    rows = [int(one) for one in options.get("rows", "10000,100000,1000000,12400000").split(",")]
    size, real = int(options.get("shard_size", 10_000)), int(options.get("real", 1_000_000))
    tables = {"plan": plan_rows, "resume": resume, "simulate": simulate, "verify": verify_all}
    lines: dict[str, tuple[Callable[..., Figures], list[tuple[int, ...]], str]] = {
        "task": (read_tasks, [(1240,), (12_400,), (40_000,)], "shards"),
        "driver": (drive, [(1240,), (12_400,)], "shards"),
        "bytes": (hash_beside_sha256, [(36, 8000), (91, 8000), (200, 4000), (1000, 400)], "kB"),
        "bucket": (resume_in_a_bucket, [(int(options.get("s3_shards", 1240)),)], "shards"),
    }
    asked = options["phases"].split(",") if "phases" in options else [*tables, *lines]
    shutil.rmtree(home, ignore_errors=True)
    try:
        for name in asked:
            if name in tables:
                table(name, tables[name], home, [one for one in rows if name != "verify" or one <= real], size)
                continue
            phase, cases, unit = lines[name]
            for case in cases:
                print(f"{name:<10}{case[0]:>10,} {unit:<7} {told(alone(phase, home, *case))}", flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def table(name: str, phase: Callable[..., Figures], home: Path, rows: list[int], size: int) -> None:
    """A line a number of rows: the time, and how it has grown beside the rows."""
    before: tuple[int, float] | None = None
    for count in rows:
        figures = alone(phase, home, count, size)
        growth = f"  x{figures['seconds'] / before[1]:.1f} of x{count / before[0]:.1f} rows" if before else ""
        print(f"{name:<10}{count:>10,} rows    {told(figures)}{growth}", flush=True)
        before = count, figures["seconds"]


def told(figures: Figures) -> str:
    return "  ".join(
        f"{name} {value:,.4g}" if value < 10_000 else f"{name} {value:,.0f}" for name, value in figures.items()
    )


def alone(phase: Callable[..., Figures], *arguments: object) -> Figures:
    """The figures of a process that does nothing else."""
    with process_pool(1) as pool:
        return pool.submit(measured, phase, *arguments).result()


def measured(phase: Callable[..., Figures], home: Path, *arguments: int) -> Figures:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    figures = phase(home, *arguments)
    return {**figures, "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


@contextmanager
def timed(figures: Figures) -> Iterator[None]:
    start, cpu = time.perf_counter(), time.process_time()
    yield
    figures["seconds"] = time.perf_counter() - start
    figures["CPU s"] = time.process_time() - cpu


def listing(rows: int) -> Iterator[Listed]:
    """As tars of 10,000 photographs list them."""
    for number in range(rows):
        tar, at = divmod(number, 10_000)
        caption = f"a photograph of the {number % 977} things that lie on table {number % 131}"
        yield Listed(f"cc12m/{tar:05d}.tar", f"{number:09d}", at * 38_400 + 512, 37_000, (caption,))


def plan(home: Path, rows: int, size: int) -> Plan:
    header = PlanHeader(0, "cc12m", {"shard_size": size}, {}, {}, {"kind": "drawn"}, first_shard=0, first_position=0)
    return write_plan(Folder(str(home)), header, listing(rows), {})


def plan_rows(home: Path, rows: int, size: int) -> Figures:
    figures: Figures = {}
    with timed(figures):
        written = plan(home, rows, size)
    assert written.samples == rows
    return {**figures, "rows/s": rows / figures["seconds"], "MB": (home / written.file).stat().st_size / 1e6}


def write_shard(made: Plan, shard: int, payload: bytes = b"ten bytes.") -> Receipt:
    with ShardWriter(made, shard, 0) as writer:
        for row in made.read_shard(shard):
            writer.write(Record.of(row, WRITTEN), {"txt": payload})
        return writer.publish(1, {"total": SECONDS_A_SHARD})


def build(home: Path, rows: int, size: int, real: bool, payload: bytes = b"ten bytes.") -> Plan:
    """A finished data set; where it is not `real`, shards are links to the first, under receipts of their own."""
    made = plan(home, rows, size)
    first = write_shard(made, 0, payload)
    receipts = [first]
    for shard in made.shard_numbers[1:]:
        if real:
            receipts.append(write_shard(made, shard, payload))
            continue
        name = made.shard_name(shard)
        for part in PARTS:
            os.link(home / part_file(first.shard, part), home / part_file(name, part))
        receipts.append(replace(first, shard=name))
        (home / receipt_file(name)).write_bytes(receipts[-1].encode())
    (home / MANIFEST).write_bytes(manifest_of([made], receipts).encode())
    return made


def build_beside(*arguments: Any) -> None:
    """In a process of its own, so that its memory is not counted."""
    with process_pool(1) as pool:
        pool.submit(_build, *arguments).result()


def _build(*arguments: Any) -> None:
    build(*arguments)


def follow(_: Folder, plans: list[Plan]) -> list[Plan]:
    return plans


def never(task: ShardTask) -> Receipt:
    raise AssertionError(f"shard {task.shard} is finished")


def run_again(url: str) -> None:
    settings = BuildSettings(ray="inline", progress="off")
    run_build(Folder(url), Build(follow, never, job=lambda _: None, unit="clips"), settings)


def resume(home: Path, rows: int, size: int) -> Figures:
    build_beside(home, rows, size, False)
    figures: Figures = {}
    with timed(figures):
        run_again(str(home))
    return figures


def simulate(home: Path, rows: int, size: int) -> Figures:
    made = plan(home, size, size)
    count, clips = rows // size, size * 1024
    lines = [ShardLine(made.shard_name(number), size, size, clips, f"{number:064x}") for number in range(count)]
    (home / MANIFEST).write_bytes(manifest_by_hand("cc12m", made.digest, made.header.settings, {}, lines).encode())
    figures: Figures = {}
    with timed(figures):
        blend = open_blend(str(home))
        settings = OrderSettings()
        costs = node_costs(blend, settings, batch=1024, ranks=8, nodes=2, start=0, steps=rows // 1024)
        quality = shuffle_quality(np.array([shard.samples for shard in blend.corpora[0].shards], np.int64), settings)
    return {**figures, "shard downloads": costs[0].shards, "quality": quality}


def verify_all(home: Path, rows: int, size: int) -> Figures:
    build_beside(home, rows, size, True)
    figures: Figures = {}
    with timed(figures):
        verdict = verify(Folder(str(home)), VerifySettings(progress="off"))
    assert not verdict.problems and verdict.written == rows, verdict.problems[:3]
    return {**figures, "MB/s": verdict.hashed / figures["seconds"] / 1e6}


def read_tasks(home: Path, shards: int) -> Figures:
    """Of the shards of a plan of ten rows each, a hundred, as a worker that has opened the plan before reads them."""
    made = plan(home, shards * 10, 10)
    messages = [pickle.dumps(made.locate(shard)) for shard in range(0, shards, shards // 100)]
    with process_pool(1) as pool:
        figures = pool.submit(_as_worker, home, made.digest, messages).result()
    return {**figures, "message bytes": max(map(len, messages))}


def _as_worker(home: Path, digest: str, messages: list[bytes]) -> Figures:
    times = []
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for message in messages:
        start = time.perf_counter()
        opened = open_plan(Folder(str(home)), 0, digest, pickle.loads(message))
        assert len(next(opened.read_all())) == 10
        times.append(1000 * (time.perf_counter() - start))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    return {"first ms": times[0], "median ms": sorted(times)[len(times) // 2], "worker's growth MiB": grown / 1024}


class Simulated(Executor):
    """Workers that are always done at once, so that all that is measured is the driver."""

    capacity = WORKERS

    def __init__(self, receipt: Receipt, made: Plan) -> None:
        self._receipt, self._made = receipt, made
        self._running: deque[ShardTask] = deque()

    def __exit__(self, *_: object) -> None:
        self._running.clear()

    def submit(self, task: ShardTask) -> None:
        pickle.dumps(task)
        self._running.append(task)

    def wait(self, seconds: float) -> Outcome:
        task = self._running.popleft()
        return Outcome(
            task, pickle.loads(pickle.dumps(replace(self._receipt, shard=self._made.shard_name(task.shard)))), None
        )

    def whereabouts(self, plan: int, shard: int) -> str:
        return "nowhere"


def drive(home: Path, shards: int) -> Figures:
    made = plan(home, shards * 10, 10)
    first = write_shard(made, 0)
    (home / receipt_file(first.shard)).unlink()
    executor = Simulated(first, made)
    engine.open_executor = lambda *_: executor  # type: ignore[assignment]
    engine._lies_in = lambda *_: True  # type: ignore[assignment]  # nothing is written here
    figures: Figures = {}
    with timed(figures):
        run_again(str(home))
    each = figures["CPU s"] / shards
    makespan = SECONDS_A_SHARD / WORKERS
    return {**figures, "CPU ms a shard": 1000 * each, "% of the makespan": 100 * each / makespan}


def hash_beside_sha256(home: Path, kilobytes: int, count: int) -> Figures:
    """Verify beside sha256 alone, by turns: the best rates of as many threads as there are cores, and the CPU time of one thread,
    which other work on the machine changes less. (CC12M's samples are of 91 kB; a small clip's of 36.)"""
    from concurrent.futures import ThreadPoolExecutor

    build_beside(home, count, 1000, True, os.urandom(kilobytes << 10))
    files = [path for path in home.glob("shards/*") if path.suffix != ".json"]
    size = sum(path.stat().st_size for path in files)

    def verify_in(threads: int) -> None:
        assert not verify(Folder(str(home)), VerifySettings(progress="off", workers=threads)).problems

    def hash_in(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(_hash, files))

    cores = os.cpu_count() or 1
    wall, cpu = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for _ in range(7):
        for name, work in (("verify", verify_in), ("sha256", hash_in)):
            start = time.perf_counter()
            work(cores)
            wall[name].append(time.perf_counter() - start)
            start = time.process_time()
            work(1)
            cpu[name].append(time.process_time() - start)
    figures: Figures = {f"{name} MB/s": size / min(found) / 1e6 for name, found in wall.items()}
    figures["of sha256"] = min(wall["sha256"]) / min(wall["verify"])
    figures |= {f"{name} CPU s/GB": min(found) / size * 1e9 for name, found in cpu.items()}
    return {**figures, "of its CPU": float(np.median(np.divide(cpu["sha256"], cpu["verify"])))}


def _hash(path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)


def resume_in_a_bucket(home: Path, shards: int) -> Figures:
    """A server of S3's protocol (moto) in this process, so that its time is counted, too."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # which tells of every request
    build_beside(home, shards * 10, 10, False)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    folder = Folder("s3://scale/built")
    folder.fs.mkdir("scale")
    folder.fs.put(str(home), folder.path, recursive=True)
    figures: Figures = {}
    with timed(figures):
        run_again(folder.url)
    assert folder.exists(MANIFEST)
    server.stop()
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
