"""Does it learn? The demo's corpus into the tiny model, with every temporal module, by the command that people type.

    python -m benchmarks.learning DEMO [modules=mean,seq,lstm,tdb,tab,stan] [steps=0] [key=value ...]

DEMO is a folder of `stillreel demo`: 4,744 clips are trained on, 256 others, whose captions no training clip has, are searched
(chance: R@1 0.4). Printed for each module: R@1 from captions to clips and back, its course, and when it passed 60, in seconds
from the start of the process, evaluations included. Nothing is pinned: the run has all cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODULES = {
    "mean": ["model.temporal=mean"],
    "seq": ["model.temporal=seq"],
    "lstm": ["model.temporal=lstm"],
    "tdb": ["model.temporal=tdb"],
    "tab": ["model.temporal=tdb", "model.align=slow_tdb"],
    "stan": ["model.temporal=stan"],
}
PASSED = 60.0


def main(words: list[str]) -> None:
    demo = Path(words[0])
    options = dict(word.split("=", 1) for word in words[1:])
    modules = options.pop("modules", ",".join(MODULES)).split(",")
    more = [f"{key}={value}" for key, value in options.items()]
    print(f"{'module':<8}{'t2v R@1':>9}{'v2t R@1':>9}{'time':>8}{'t2v R@1 of 60 after':>22}   course")
    for module in modules:
        with tempfile.TemporaryDirectory() as home:
            seconds, told = train(demo, Path(home) / "run", [*MODULES[module], *more])
        course = [(at, line["t2v_r1"]) for at, line in told]
        passed = next((f"{at:.0f} s" for at, r1 in course if r1 >= PASSED), "-")
        last = told[-1][1]
        said = " ".join(f"{r1:.0f}" for _, r1 in course)
        print(
            f"{module:<8}{last['t2v_r1']:>9.1f}{last['v2t_r1']:>9.1f}{seconds:>6.0f} s{passed:>22}   {said}", flush=True
        )


def train(demo: Path, out: Path, words: list[str]) -> tuple[float, list[tuple[float, dict[str, float]]]]:
    """Seconds of a run, and its evaluations, with the second in which each was read."""
    command = [sys.executable, "-m", "stillreel", "pretrain", "demo", f"data={demo / 'clips'}"]
    command += [f"eval.data={demo / 'clips-heldout'}", f"out={out}", "progress=off", *words]
    begin = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    found: list[tuple[float, dict[str, float]]] = []
    while process.poll() is None:
        time.sleep(0.5)
        new = evaluations(out)[len(found) :]
        found += [(time.monotonic() - begin, line) for line in new]
    assert process.stderr is not None
    if process.returncode:
        raise SystemExit(process.stderr.read())
    return time.monotonic() - begin, found + [
        (time.monotonic() - begin, line) for line in evaluations(out)[len(found) :]
    ]


def evaluations(out: Path) -> list[dict[str, float]]:
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [found for line in lines if line.endswith("\n") and "t2v_r1" in (found := json.loads(line))]


if __name__ == "__main__":
    main(sys.argv[1:])
