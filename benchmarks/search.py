"""Exact search over memory-mapped fp16 beside numpy's matrix product and faiss's flat index, both on fp32 in memory.

    python -m benchmarks.search [count=1000000] [width=512] [threads=1] [rounds=5]

The runs take turns. A time is the best of all rounds: CPU ms a query (and ms by the clock). numpy's is the product alone,
without choosing the best of it; ours and faiss's end with the ten best. A plain compiled loop, which looks halves up in a table,
is what exact.py's own LLVM IR has to beat by 1.5. Then: how long the index takes to open, and what of
it is in memory before and after a search.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import float32, njit
from numpy.typing import NDArray

from stillreel.configs.system.storage import Folder
from stillreel.finetune.search.exact import best_rows
from stillreel.finetune.search.store import Entry, IndexWriter, open_index

Floats = NDArray[np.float32]
_FRAMES = 1  # a clip: the frames' file is not what is measured
_PLAIN = "a plain compiled loop, fp16"
_WIDE = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)  # by its bits, each half in fp32


def main(words: list[str]) -> None:
    numbers = {"count": 1_000_000, "width": 512, "threads": 1, "rounds": 5}
    numbers |= {key: int(value) for key, value in (word.split("=") for word in words)}
    torch.set_num_threads(numbers["threads"])
    with tempfile.TemporaryDirectory() as home:
        folder = Folder(str(Path(home, "index")))
        wide = write(folder, numbers["count"], numbers["width"])
        before, begun = mapped_bytes(), time.perf_counter()
        index = open_index(folder)
        opened = time.perf_counter() - begun
        print(
            f"opening {len(index):,} videos: {opened:.3f} s, {(mapped_bytes() - before) / 1e6:.1f} MB of files in memory"
        )
        compare(index.vectors, wide, numbers["threads"], numbers["rounds"])
        print(f"after it: {(mapped_bytes() - before) / 1e6:.0f} MB of files in memory")


def write(folder: Folder, count: int, width: int) -> Floats:
    """An index of random vectors; returns them in fp32, as peers hold them."""
    random = np.random.default_rng(0)
    wide = np.empty((count, width), np.float32)
    frames, times = np.zeros((10_000, _FRAMES, width), np.float16), np.zeros((10_000, _FRAMES), np.float32)
    with IndexWriter(folder, count, width, _FRAMES) as writer:
        for start in range(0, count, len(frames)):
            rows = wide[start : start + len(frames)]
            random.standard_normal(out=rows, dtype=np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            writer.add(rows.astype(np.float16), frames[: len(rows)], times[: len(rows)])
        entries = [Entry(f"{number:07}.mp4", 1, 1, row=number) for number in range(count)]
        writer.finish(entries, {"root": "/", "model": {}, "settings": {}})
    return wide


def compare(halves: NDArray[np.float16], wide: Floats, threads: int, rounds: int) -> None:
    flat = faiss_flat(wide, threads)
    for batch in (1, 32):
        queries = np.ascontiguousarray(wide[:batch])
        ways: dict[str, Callable[[], object]] = {
            "ours, fp16": lambda q=queries: best_rows(halves, q, 10),
            "numpy, fp32, product only": lambda q=queries: wide @ q.T if len(q) > 1 else wide @ q[0],
        }
        if flat is not None:
            ways["faiss flat, fp32"] = lambda q=queries: flat.search(q, 10)
            assert np.array_equal(flat.search(queries, 1)[1], best_rows(halves, queries, 1)[1])
        if batch == 1:
            ways[_PLAIN] = lambda q=queries: best_products(halves.view(np.uint16), q[0], _WIDE)
        times = {name: (float("inf"), float("inf")) for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                clock, cpu = time.perf_counter(), time.process_time()
                way()
                cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
                times[name] = min(times[name][0], cpu), min(times[name][1], clock)
        best = min(cpu for name, (cpu, _) in times.items() if name not in ("ours, fp16", _PLAIN))
        for name, (cpu, clock) in times.items():
            print(
                f"batch {batch:>2}  {name:<28}{1e3 * cpu / batch:8.2f} CPU ms a query ({1e3 * clock / batch:.2f} by the clock)"
            )
        print(f"          ours / the faster peer: {times['ours, fp16'][0] / best:.2f}")
        if _PLAIN in times:
            print(f"          a plain compiled loop / ours: {times[_PLAIN][0] / times['ours, fp16'][0]:.2f}")


@njit(nogil=True, fastmath={"reassoc", "contract"})
def best_products(bits, query, wide):  # type: ignore[no-untyped-def]
    """What exact.py would be without LLVM IR of its own: halves looked up in a table. The largest product alone."""
    best = float32(-np.inf)
    for i in range(len(bits)):
        total = float32(0)
        for j in range(len(query)):
            total += wide[bits[i, j]] * query[j]
        best = max(best, total)
    return best


def faiss_flat(wide: Floats, threads: int) -> Any:
    """faiss's exact index of the vectors, or None where faiss is not installed."""
    try:
        import faiss
    except ImportError:
        print("faiss is not installed: pip install faiss-cpu")
        return None
    faiss.omp_set_num_threads(threads)
    flat = faiss.IndexFlatIP(wide.shape[1])
    flat.add(wide)
    return flat


def mapped_bytes() -> int:
    """Bytes of files that this process has in its memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))


if __name__ == "__main__":
    main(sys.argv[1:])
