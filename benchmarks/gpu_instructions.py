"""What the device renderer should cost on an H100, without one: `python -m benchmarks.gpu_instructions PICTURES`.

Its kernels are compiled for sm_90 by Triton's own tools and taken apart into instructions. How often each loop goes round is
counted on the plan of a batch: recipes of the grammar `film` for the photographs in PICTURES, again and again with other
keys. The time is that of issuing those instructions at 55 % of what an H100 can, which is an assumption; bytes of memory are
told beside it. Run it with the Triton that the GPU machine's torch brings: torch 2.11 has Triton 3.6.

    python -m venv /tmp/compiling && /tmp/compiling/bin/pip install triton==3.6.0   # beside this project's packages
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
import triton
from numpy.typing import NDArray
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stillreel.animate.camera.draw import draw_recipe
from stillreel.animate.pictures.picture import stored_pixels
from stillreel.animate.render import kernels
from stillreel.animate.render.plan import TILE, StillBatch, batch_stills, plan_batch, prepare_still
from stillreel.configs.grammar import load_grammar

CLIPS, FRAMES, SIZE = 320, 12, 224
MULTIPROCESSORS, SCHEDULERS, CLOCK, ISSUED = 132, 4, 1.755e9, 0.55  # of an H100 SXM; the last is an assumption
MEMORY = 3.35e12  # bytes/s
TRITON = "3.6"  # of torch 2.11
BAR = 9.0  # ms


class Line(NamedTuple):
    """An instruction at its address; where it may jump to."""

    at: int
    name: str
    to: int | None


class Kernel(NamedTuple):
    """A compiled kernel: its instructions, and registers and bytes of stack and shared memory of a thread or block."""

    lines: list[Line]
    warps: int
    registers: int
    stack: int
    shared: int

    def loops(self) -> list[tuple[int, int]]:
        """First and last address of each loop, the outer ones first: what a jump back spans."""
        spans = [(line.to, line.at) for line in self.lines if line.to is not None and line.to < line.at]
        return sorted(spans, key=lambda span: span[0] - span[1])

    def counts(self) -> list[int]:
        """Instructions by how many loops they lie in."""
        depths = [sum(begin <= line.at <= end for begin, end in self.loops()) for line in self.lines]
        return np.bincount(depths).tolist()

    def deepest(self, name: str) -> int:
        """Instructions of a name in the innermost loop."""
        begin, end = self.loops()[-1]
        return sum(begin <= line.at <= end and line.name.startswith(name) for line in self.lines)


class Cost(NamedTuple):
    """Of a kernel over a batch: instructions of a thread, all threads together; bytes that it makes."""

    name: str
    kernel: Kernel
    instructions: float
    made: int


def compile_kernel(name: str, types: Mapping[str, str], constants: Mapping[str, Any], **options: Any) -> Kernel:
    """For sm_90, with pointers that are multiples of 16, as a device's memory is."""
    function = getattr(kernels, name)
    attributes = {
        (place,): [["tt.divisibility", 16]]
        for place, argument in enumerate(function.arg_names)
        if types.get(argument, "").startswith("*")
    }
    signature = {**types, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(function, signature, constexprs=dict(constants), attrs=attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return disassemble(compiled.asm["cubin"], compiled.metadata.num_warps, compiled.metadata.shared)


def disassemble(cubin: bytes, warps: int, shared: int) -> Kernel:
    """By the cuobjdump that Triton ships."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    file = Path(f"/tmp/stillreel-{time.monotonic_ns()}.cubin")
    try:
        file.write_bytes(cubin)
        told = [
            subprocess.run([tool, option, file], capture_output=True, text=True, check=True).stdout
            for option in ("-sass", "-res-usage")
        ]
    finally:
        file.unlink(missing_ok=True)
    usage = {name: int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", told[1])}
    return Kernel(list(lines_of(told[0])), warps, usage["REG"], usage["STACK"], shared)


def lines_of(sass: str) -> Iterator[Line]:
    """Up to the end of the program: what comes after it is padding."""
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)([^;]*);", sass)
    for at, name, rest in found:
        if name.startswith("NOP"):
            continue
        target = re.search(r"0x([0-9a-f]+)", rest) if name.startswith("BRA") else None
        to = int(target[1], 16) if target else None
        if to == int(at, 16):  # a jump to itself ends the program
            return
        yield Line(int(at, 16), name, to)


def real_batch(pictures: Path) -> tuple[StillBatch, float, float]:
    """A batch of recipes for photographs; and the seconds that a core plans its clips, and then the batch."""
    paths = sorted(pictures.glob("*.jpg"))
    if not paths:
        sys.exit(f"{pictures} has no .jpg")
    grammar, stills, seconds = load_grammar("film"), [], 0.0
    for number in range(CLIPS):
        path = paths[number % len(paths)]
        data = path.read_bytes()
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        recipe = draw_recipe("film", grammar, None, 0, f"{path.name} {number}", (width, height), ("a",)).recipe
        load = partial(stored_pixels, data)
        begin = time.thread_time()
        prepare_still(recipe, lambda level: np.empty((0, 0, 3), np.uint8), FRAMES, SIZE)
        seconds += time.thread_time() - begin
        stills.append(prepare_still(recipe, load, FRAMES, SIZE))
    shapes = np.array([still.picture.shape[:2] for still in stills])
    warps = [still.warps for still in stills]
    batch, times = batch_stills(stills), []
    for _ in range(5):
        begin = time.thread_time()
        plan_batch(batch.pixels.numpy(), shapes, warps, SIZE)
        times.append(time.thread_time() - begin)
    return batch, seconds, float(np.median(times))


def rounds(firsts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often SPAN pixels are summed to cover those from `firsts` up to `ends`."""
    return -(-(ends - firsts) // kernels.SPAN)


def mix_rounds(batch: StillBatch) -> tuple[int, float, float]:
    """Programs; passes through the loop over rows, and through that over columns within it, of all of them."""
    starts = np.arange(0, SIZE, TILE)
    first = batch.places.numpy().astype(np.int64) >> 6
    taps = batch.straight[:, 3].numpy()[:, None, None]
    low = np.minimum.reduceat(first, starts, axis=2)
    high = np.maximum.reduceat(first, starts, axis=2) + taps
    across, down = rounds(low, high).transpose(1, 0, 2)
    return across.size * len(starts), float(down.sum() * len(starts)), float((down.sum(1) * across.sum(1)).sum())


def low_pass_rounds(batch: StillBatch) -> tuple[int, float, float]:
    """The same of the filter's."""
    taps = batch.copies[batch.tiles[:, 0].long(), 3].numpy()
    once = rounds(np.zeros_like(taps), taps + TILE - 1)
    return 3 * len(taps), float(3 * once.sum()), float(3 * (once**2).sum())


def costs_of(batch: StillBatch) -> list[Cost]:
    """Of every kernel that a batch needs, uint8 to normalized bf16."""
    tiles = (-(-SIZE // TILE)) ** 2
    common = {"pixels": "*u8", "sources": "*i64"}
    size, tile, span = {"SIZE": SIZE}, {"TILE": TILE}, {"SPAN": kernels.SPAN}
    area = 3 * SIZE**2
    plans: list[tuple[str, dict[str, str], dict[str, Any], dict[str, Any], tuple[float, ...], int]] = [
        (
            "low_pass",
            {**common, "copies": "*i32", "tiles": "*i32", "table": "*fp16"},
            {**tile, **span},
            {"num_warps": kernels.WARPS},
            low_pass_rounds(batch),
            batch.room - len(batch.pixels),
        ),
        (
            "mix",
            {**common, "straight": "*i32", "places": "*i32", "table": "*fp16", "out": "*u8"},
            {**size, **tile, **span},
            {"num_warps": kernels.WARPS},
            mix_rounds(batch),
            len(batch.straight) * area,
        ),
        (
            "warp_affine",
            {**common, "turned": "*i32", "places": "*i32", "out": "*u8"},
            {**size, **tile},
            {},
            (len(batch.affine) * tiles,),
            len(batch.affine) * area,
        ),
        (
            "warp_perspective",
            {**common, "turned": "*i32", "matrices": "*fp64", "out": "*u8"},
            {**size, **tile},
            {"enable_fp_fusion": False},
            (len(batch.perspective) * tiles,),
            len(batch.perspective) * area,
        ),
        (
            "finish",
            {"views": "*u8", "fades": "*i32", "affine": "*fp32", "out": "*bf16"},
            {**size, "NORMALIZED": True, "BLOCK": kernels.PIXELS},
            {},
            (len(batch.fades) * -(-(SIZE**2) // kernels.PIXELS),),
            len(batch.fades) * area,
        ),
    ]
    costs = []
    for name, types, constants, options, passes, made in plans:
        kernel = compile_kernel(name, types, constants, **options)
        counts = kernel.counts()
        if len(counts) != len(passes):
            sys.exit(
                f"{name} has {len(counts) - 1} nested loops in its machine code, and {len(passes) - 1} in its source"
            )
        total = 32 * kernel.warps * sum(count * times for count, times in zip(counts, passes, strict=True))
        costs.append(Cost(name, kernel, total, made))
    return costs


def main(pictures: Path) -> int:
    """Print the table; 1 where the bar is missed."""
    batch, clips_s, batch_s = real_batch(pictures)
    turned = len(batch.affine) + len(batch.perspective)
    print(
        f"{CLIPS} clips of {FRAMES} frames at {SIZE}: {batch.views:,} views, {turned / batch.views:.1%} turned, "
        f"{len(batch.copies)} filtered copies; pictures {len(batch.pixels) / 1e6:.0f} MB, "
        f"plan {sum(part.nbytes for part in batch[3:]) / 1e6:.1f} MB"
    )
    straight = batch.straight[:, 2].unique()
    blurs = {tuple(batch.table[begin : begin + taps].tolist()) for begin, taps in batch.copies[:, 2:4].tolist()}
    print(
        f"{len(straight)} different filters of {len(batch.straight):,} straight views, {len(blurs)} of "
        f"{len(batch.copies)} filtered copies"
    )
    print(f"planned on a core in {1000 * batch_s:.1f} ms, after {1000 * clips_s:.0f} ms for the clips' own windows")
    told = "" if triton.__version__.startswith(TRITON) else f" (torch 2.11 has {TRITON})"
    print(f"Triton {triton.__version__}{told}, sm_90\n")
    print("| kernel | instructions | by loops around them | registers | stack | MB made | a byte | ms |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    rate = MULTIPROCESSORS * SCHEDULERS * CLOCK * ISSUED * 32
    costs = costs_of(batch)
    for name, kernel, instructions, made in costs:
        print(
            f"| {name} | {len(kernel.lines):,} | {' + '.join(map(str, kernel.counts()))} | {kernel.registers} | "
            f"{kernel.stack} | {made / 1e6:.0f} | {instructions / max(made, 1):.0f} | {1000 * instructions / rate:.2f} |"
        )
    total = 1000 * sum(cost.instructions for cost in costs) / rate
    frames = 3 * SIZE**2 * len(batch.fades)
    moved = (
        2 * len(batch.pixels) + 2 * (batch.room - len(batch.pixels)) + 4 * frames
    )  # views out and in, two bytes a value
    print(
        f"\npredicted for an H100: {total:.2f} ms a batch at {ISSUED:.0%} of its issue rate, "
        f"{sum(cost.instructions for cost in costs) / frames:.0f} thread-instructions a byte of frames; "
        f"its memory alone: {1000 * moved / MEMORY:.2f} ms. Bar {BAR:.0f} ms. Unmeasured."
    )
    return int(total > BAR)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.gpu_instructions PICTURES")
    sys.exit(main(Path(sys.argv[1])))
