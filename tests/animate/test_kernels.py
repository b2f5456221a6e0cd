"""The device renderer's Triton kernels: interpreted on the CPU bit for bit, compiled once, and what their machine code does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from functools import partial
from typing import Any

import pytest

from stillreel.animate.pictures.picture import stored_pixels
from tests.making import ROOT, jpeg

torch = pytest.importorskip("torch", reason="the device renderer is torch's: pip install '.[train]'")
pytest.importorskip("triton", reason="Triton comes with torch for CUDA")

from benchmarks import gpu_instructions  # noqa: E402
from stillreel.animate.render import kernels  # noqa: E402
from stillreel.animate.render.plan import StillBatch, batch_stills, prepare_still  # noqa: E402
from tests.animate.test_device import recipe_of  # noqa: E402

_LAUNCHED = ("low_pass", "mix", "warp_affine", "warp_perspective", "finish")


def small_batch(number: int, frames: int = 4, size: int = 64) -> StillBatch:
    stills = []
    for clip in range(12):
        data = jpeg(clip, 300 + 20 * number, 200 + 7 * clip)
        recipe = recipe_of("film", f"{number} {clip}", data)
        stills.append(prepare_still(recipe, partial(stored_pixels, data), frames, size))
    return batch_stills(stills)


def test_interpreted_kernels_make_the_reference_s_bytes() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.animate.kernel_runner"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    film, large = json.loads(run.stdout)
    for told in (film, large):
        assert told["views"] == told["frames"] == told["normal"] == 0, told
    for part in ("straight", "affine", "perspective", "copies", "fading", "mirrored", "several rounds"):
        assert film[part] + large[part] > 0, part
    assert large["widest kernel"] > 3


class Recorder:
    """In place of a kernel: notes what a launch is compiled for."""

    def __init__(self, seen: set[tuple[Any, ...]]) -> None:
        self._seen = seen

    def __getitem__(self, grid: tuple[int]) -> Any:
        assert len(grid) == 1 and grid[0] > 0

        def launch(*given: Any, **options: Any) -> None:
            # Triton compiles anew for other types, and for numbers that it does not know to be constant.
            self._seen.add((*(one.dtype if isinstance(one, torch.Tensor) else one for one in given), *options.items()))

        return launch


def test_ten_batches_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for name in _LAUNCHED:
        monkeypatch.setattr(kernels, name, Recorder(seen[name]))
    for number in range(10):
        batch = small_batch(number)
        kernels.finish_normalized(
            kernels.render_views(batch.to(torch.device("cpu"))), batch, torch.ones(2, 3), torch.bfloat16
        )
    assert {name: len(keys) for name, keys in seen.items()} == dict.fromkeys(_LAUNCHED, 1)


def test_nothing_of_the_renderer_is_left_to_torch_s_compiler() -> None:
    from torch._dynamo.utils import counters

    from stillreel.animate.render.device import render_stills

    counters.clear()
    for number in range(10):
        render_stills(small_batch(number, frames=2, size=24), "cpu")
    assert not counters["stats"] and not counters["frames"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton can be used here")
def test_where_triton_cannot_be_used_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    from stillreel.animate.render.device import _kernels

    assert _kernels.__wrapped__("cuda") is None
    assert "op by op, many times slower: Triton cannot be used (" in caplog.text


def test_rounds_are_those_of_the_kernel_s_loops() -> None:
    batch = small_batch(0, frames=3, size=gpu_instructions.SIZE)
    programs, rows, both = 0, 0, 0
    for (across, down), taps in zip(batch.places.tolist(), batch.straight[:, 3].tolist(), strict=True):
        for top in range(0, gpu_instructions.SIZE, gpu_instructions.TILE):
            for left in range(0, gpu_instructions.SIZE, gpu_instructions.TILE):
                seen = [
                    [place >> 6 for place in part[begin : begin + gpu_instructions.TILE]]
                    for part, begin in ((across, left), (down, top))
                ]
                x, y = (len(range(min(part), max(part) + taps, kernels.SPAN)) for part in seen)
                programs, rows, both = programs + 1, rows + y, both + x * y
    assert gpu_instructions.mix_rounds(batch) == (programs, rows, both)


def test_machine_code_is_counted_by_its_loops() -> None:
    sass = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;     /* 0x00000a0000017a02 */
        /*0010*/              @!P0 BRA 0x70 ;                 /* 0x0 */
        /*0020*/                   LDG.E.U8 R2, [R4.64] ;     /* 0x0 */
        /*0030*/                   IMAD R3, R2, R2, R3 ;      /* 0x0 */
        /*0040*/              @P1 BRA 0x30 ;                 /* 0x0 */
        /*0050*/             @!UP0 UIADD3 UR4, UR4, 0x1, URZ ; /* 0x0 */
        /*0060*/               @P0 BRA 0x20 ;                 /* 0x0 */
        /*0070*/                   EXIT ;                     /* 0x0 */
        /*0080*/                   BRA 0x80;                  /* 0x0 */
        /*0090*/                   NOP;                       /* 0x0 */
    """
    kernel = gpu_instructions.Kernel(list(gpu_instructions.lines_of(sass)), 4, 32, 0, 0)
    assert kernel.loops() == [(0x20, 0x60), (0x30, 0x40)]
    assert kernel.counts() == [3, 3, 2]
    assert kernel.deepest("LDG.E.U8") == 0


def test_a_kernel_for_an_h100_checks_nothing_in_its_loops() -> None:
    """Loads of a loop are those of a tile's pixels, a thread's share: neither unrolled nor guarded by assertions."""
    kernel = gpu_instructions.compile_kernel(
        "mix",
        {"pixels": "*u8", "sources": "*i64", "straight": "*i32", "places": "*i32", "table": "*fp16", "out": "*u8"},
        {"SIZE": 224, "TILE": gpu_instructions.TILE, "SPAN": kernels.SPAN},
        num_warps=kernels.WARPS,
    )
    assert len(kernel.counts()) == 3
    assert kernel.deepest("LDG.E.U8") == 3 * kernels.SPAN**2 // (32 * kernels.WARPS)
    assert not {line.name.split(".")[0] for line in kernel.lines} & {"BPT", "CALL"}
