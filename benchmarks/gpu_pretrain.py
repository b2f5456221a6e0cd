"""A GPU day: how fast a step of pretraining is, beside open_clip's own, and what the stream and the renderer cost it.

    python -m benchmarks.gpu_pretrain [PICTURES] [size=b32|b16|tiny] [device=cuda] [out=gpu-day] [seconds=360]
        [phases=smoke,race,stream,renderer,profile] [batch=N] [rounds=3] [steps=8] [warmup=3] [workers=16]
        [stream_seconds=20] [pictures=512 (cpu: 32)] [compile=on] [grammar=film]

`make gpu-day` prints the commands of the day: what to fetch where there is a network, and what to run where there is none.

PICTURES is a folder of JPEGs; without it, scenes are drawn by code. They become recipe shards in a temporary folder. 12 frames
at 224, captions of 32 tokens, bf16, random weights, model mean-b32 or mean-b16. Each phase runs in a process of its own, which
is ended when its share of `seconds` is up; within it, each line is tried by itself, and printed and appended to
`out`/results.txt once it is known. What does not fit into the time is left out by name.

    smoke       versions; two small steps of tiny and of `size`: eager, open_clip, and tiny compiled
    race        the loop's own step on frames that lie ready, eager and compiled, and open_clip's: each by itself, then in
                interleaved rounds, the median round
    stream      rendering: milliseconds of a batch's rendering and normalizing alone on an idle device, and their share of a step
                syncs: calls in a fed step for which the host waits for the device, by torch.cuda.set_sync_debug_mode
                stream: from recipe shards through ClipLoader and DevicePrefetcher; data wait is the host's, as the log has it
                loader: what the workers alone give, once what they had made ahead is used up
    renderer    does the device renderer give the CPU renderer's frames? PSNR >= 48 dB, 99 % within 1, all within 8
    profile     two steps by torch.profiler, eager and compiled: profile-NAME.txt and trace-NAME.json.gz in `out`

Peak memory is of one contender: the others' weights are subtracted. MFU is of `clip_flops` against the dense bf16 peak, so
open_clip's is of our sizes, not of its 77 tokens. A step has as many clips as the card's memory holds, up to 320 (B/16: 96);
all contenders have equally many, and where one of them does not fit, all start anew with half.
open_clip's step is its model, loss and AdamW as `open_clip_train` builds them, under its bf16 autocast, on the same frames:
features are averaged over a clip, and a clip has one caption, or its text tower would have twelve times the work of ours.
`device=cpu size=tiny seconds=60` runs the same code small; `compile=off` leaves out what takes a compiler. The exit code is 1
where something failed, and 0 where time alone was short.

This module imports no torch, so the processes that draw pictures do not. Beside them one process imports everything, once, and
touches nothing; the phases are forked from it, so that what breaks or hangs in one does not reach the next.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NoReturn

from benchmarks.gpu_options import Options, Phase, read_options
from benchmarks.gpu_shards import write_shards

# How phases share what is left of the seconds when one begins; what it does not need is left to the later ones.
_SHARES = {"smoke": 0.15, "race": 0.45, "stream": 0.25, "renderer": 0.1, "profile": 0.1}
_SHARDS_SHARE = 0.3  # of all seconds, from the first one on
_OF_SHARDS = {"stream", "renderer"}
_LEAST_S = 4.0  # below which no phase is begun
_CLOSING_S = 3.0  # in which processes end


def main(words: list[str]) -> int:
    """The exit code."""
    options, begin = read_options(words), time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.txt").write_text(f"{' '.join(words)}\n")
    signal.signal(signal.SIGTERM, _leave)
    context = get_context("spawn")
    drawn, end = context.Event(), begin + options.seconds
    with tempfile.TemporaryDirectory() as home:
        options = options._replace(shards=Path(home))
        day = context.Process(target=run_day, args=(options, end, drawn))
        shards = context.Process(target=make_shards, args=(options, begin + _SHARDS_SHARE * options.seconds))
        try:
            day.start()
            if _OF_SHARDS & set(options.phases):
                shards.start()
                shards.join(_SHARDS_SHARE * options.seconds)
                _kill(shards)
            drawn.set()
            day.join(max(0.0, end - time.monotonic()))
        finally:
            for process in (day, shards):
                if process.pid is not None and process.is_alive():
                    process.terminate()
                    process.join(5)  # it ends the phase's process first
                    _kill(process)
        name_left_out(options, end)
    return int(day.exitcode != 0)


def name_left_out(options: Options, end: float) -> None:
    """Phases of which nothing was told: a machine may be so slow that the time is up before they could begin."""
    told = (options.out / "results.txt").read_text()
    whole = Phase(options, end)
    for name in options.phases:
        if f"\n{name}: " not in told and f"\n  {name:<10} " not in told:
            whole.tell(f"  {name:<10} left out: the time was up before it began")


def make_shards(options: Options, end: float) -> None:
    """In its own process."""
    os.setpgid(0, 0)
    phase = Phase(options, end)

    def make() -> None:
        begin = time.monotonic()
        count = write_shards(options.shards, options.folder, options.pictures, options.grammar)
        phase.tell(f"  {'shards':<10} {count} pictures: {time.monotonic() - begin:.0f} s")

    phase.attempt("shards", make)


def run_day(options: Options, end: float, drawn: Event) -> None:
    """The phases, one after the other, in processes that are forked from this one. The exit code is 0 if none failed."""
    signal.signal(signal.SIGTERM, _leave)
    whole, good = Phase(options, end), True
    imported = whole.attempt("imports", lambda: import_module("benchmarks.gpu_phases"))
    for name in options.phases:
        limit = _limit(name, options, whole)
        if not imported or limit < _LEAST_S:
            reason = f"{max(limit, 0):.0f} s are left for it" if imported else "there is nothing to run it with"
            whole.tell(f"  {name:<10} left out: {reason}")
            continue
        if name != "smoke":
            drawn.wait(max(0.0, whole.left()))  # nothing is timed beside that
            limit = _limit(name, options, whole)
        if name in _OF_SHARDS and not (options.shards / "manifest.json").exists():
            whole.tell(f"  {name:<10} left out: there are no shards")
            continue
        good = run_apart(name, options, whole, time.monotonic() + limit) and good
    _end(int(bool(whole.failed) or not good))


def run_apart(name: str, options: Options, whole: Phase, end: float) -> bool:
    """Whether a phase has done what it could until its end; what it began and did not finish is ended with it."""
    process = get_context("fork").Process(target=run_phase, args=(name, options, end))
    try:
        process.start()
        process.join(max(0.0, end - time.monotonic()))
        late = process.is_alive()
    finally:
        _kill(process)
    if late:
        whole.tell(f"  {name:<10} stopped: its time was up")
    elif process.exitcode:
        whole.tell(f"  {name:<10} FAILED with exit code {process.exitcode}")
    return late or not process.exitcode


def run_phase(name: str, options: Options, end: float) -> None:
    """In its own process, and group of processes, so that all that it starts can be ended with it."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    phase = Phase(options, end)
    phase.tell(f"\n{name}: {phase.left():.0f} s at most")
    try:
        import_module("benchmarks.gpu_phases").run(name, phase, options)
    except Exception:  # between what it attempts
        phase.fail(name)
    _end(int(bool(phase.failed)))


def _limit(name: str, options: Options, whole: Phase) -> float:
    """The seconds of a phase that begins now."""
    coming = options.phases[options.phases.index(name) :]
    return (whole.left() - _CLOSING_S) * _SHARES[name] / sum(_SHARES[one] for one in coming)


def _kill(process: BaseProcess) -> None:
    """With all that it started; also once it has ended, for those may live on."""
    assert process.pid is not None, "it was started"
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it is gone, or has no group of its own
        process.kill()
    process.join()


def _end(code: int) -> NoReturn:
    """Without taking apart what the process holds, which takes seconds; who started it ends what it started."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _leave(_signal: int, _frame: object) -> None:
    """Of SIGTERM: end, and on the way what was started."""
    sys.exit(143)


if __name__ == "__main__":
    # Contenders have blocks of other sizes. To be set before anything imports torch.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    sys.exit(main(sys.argv[1:]))
