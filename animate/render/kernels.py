"""The device renderer's kernels, in Triton: what `device` does op by op, in the same integers.

A weighted sum of neighboring pixels, at any scale, is a product with a matrix that has a band of weights; so both passes of
a tile of a frame are products of small matrices, between which nothing leaves the chip. Pixels and weights are whole numbers
below 2^11 and their sums below 2^24: half precision holds the former and single precision the latter exactly, whatever the
order of adding. A pixel p enters as 1024 + p, whose bits in half precision are those of p beside a constant.

Every place is held within its picture before it is multiplied, so nothing is checked in a loop; numbers of views are no part
of what is compiled, sizes of frames are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from stillreel.animate.render.plan import TILE, StillBatch

SPAN = 64  # pixels along either axis that a program sums at a time, for TILE outputs
WARPS = 4
PIXELS = 1024  # of a program that finishes frames


def _kernel(function: Callable[..., None]) -> Any:
    return cast(Any, triton.jit)(function)


@_kernel
def pixels_at(places):  # type: ignore[no-untyped-def]
    """1024 + the pixels at some places, in half precision."""
    return (tl.load(places).to(tl.int16) | 0x6400).to(tl.float16, bitcast=True)


@_kernel
def band(table, rows, firsts, taps, pixels):  # type: ignore[no-untyped-def]
    """The weights of some pixels in outputs whose `taps` weights stand in `table` from `rows` on, for pixels from `firsts` on."""
    tap = pixels - firsts
    return tl.load(table + (rows + tap), mask=(tap >= 0) & (tap < taps), other=0.0)


@_kernel
def mixed(sums):  # type: ignore[no-untyped-def]
    """Sums of weights (in 128ths) x (1024 + pixel) as pixels with a fraction to be cut off, within 0 and 255."""
    return tl.clamp((sums - (128 * 1024 - 64)) * 0.0078125, 0.0, 255.5)


@_kernel
def mix(pixels, sources, straight, places, table, out, SIZE: tl.constexpr, TILE: tl.constexpr, SPAN: tl.constexpr):  # type: ignore[no-untyped-def]
    """A tile of a straight view: columns first, then rows, rounded in between."""
    TILES: tl.constexpr = (SIZE + TILE - 1) // TILE
    program = tl.program_id(0)
    number = program // (TILES * TILES)
    view = tl.load(straight + 4 * number).to(tl.int64)
    source = sources + 4 * tl.load(straight + 4 * number + 1)
    picture, stride = pixels + tl.load(source), tl.load(source + 1).to(tl.int32)
    right, bottom = tl.load(source + 2).to(tl.int32), tl.load(source + 3).to(tl.int32)
    filter, taps = tl.load(straight + 4 * number + 2), tl.load(straight + 4 * number + 3)
    columns = program % TILES * TILE + tl.arange(0, TILE)
    rows = program // TILES % TILES * TILE + tl.arange(0, TILE)
    across = tl.load(places + 2 * SIZE * number + tl.minimum(columns, SIZE - 1))
    down = tl.load(places + 2 * SIZE * number + SIZE + tl.minimum(rows, SIZE - 1))
    left_taps, top_taps = filter + (across & 63) * taps, filter + (down & 63) * taps
    lefts, tops = across >> 6, down >> 6
    first, end = tl.min(lefts, 0), tl.max(lefts, 0) + taps
    red = tl.zeros((TILE, TILE), tl.float32)
    green = tl.zeros((TILE, TILE), tl.float32)
    blue = tl.zeros((TILE, TILE), tl.float32)
    for y in tl.range(tl.min(tops, 0), tl.max(tops, 0) + taps, SPAN, num_stages=1):
        ys = y + tl.arange(0, SPAN)
        lines = tl.minimum(tl.maximum(ys, 0), bottom) * stride
        reds = tl.zeros((SPAN, TILE), tl.float32)
        greens = tl.zeros((SPAN, TILE), tl.float32)
        blues = tl.zeros((SPAN, TILE), tl.float32)
        for x in tl.range(first, end, SPAN, num_stages=1):
            xs = x + tl.arange(0, SPAN)
            at = picture + (lines[:, None] + 3 * tl.minimum(tl.maximum(xs, 0), right)[None, :])
            weights = band(table, left_taps[None, :], lefts[None, :], taps, xs[:, None])
            reds = tl.dot(pixels_at(at), weights, reds)
            greens = tl.dot(pixels_at(at + 1), weights, greens)
            blues = tl.dot(pixels_at(at + 2), weights, blues)
        weights = band(table, top_taps[:, None], tops[:, None], taps, ys[None, :])
        # Between 1024 and 2048 half precision has no fractions: rounded toward zero, they are cut off.
        red = tl.dot(weights, (mixed(reds) + 1024).to(tl.float16, fp_downcast_rounding="rtz"), red)
        green = tl.dot(weights, (mixed(greens) + 1024).to(tl.float16, fp_downcast_rounding="rtz"), green)
        blue = tl.dot(weights, (mixed(blues) + 1024).to(tl.float16, fp_downcast_rounding="rtz"), blue)
    to = out + view * (3 * SIZE * SIZE) + (rows * SIZE)[:, None] + columns[None, :]
    inside = (rows < SIZE)[:, None] & (columns < SIZE)[None, :]
    tl.store(to, mixed(red).to(tl.int32).to(tl.uint8), mask=inside)
    tl.store(to + SIZE * SIZE, mixed(green).to(tl.int32).to(tl.uint8), mask=inside)
    tl.store(to + 2 * SIZE * SIZE, mixed(blue).to(tl.int32).to(tl.uint8), mask=inside)


@_kernel
def low_pass(pixels, sources, copies, tiles, table, TILE: tl.constexpr, SPAN: tl.constexpr):  # type: ignore[no-untyped-def]
    """A tile of one color of a filtered copy: columns, then rows, rounded once; kernels are in 256ths."""
    program = tl.program_id(0)
    color = program % 3
    copy = copies + 8 * tl.load(tiles + 3 * (program // 3))
    source, target = sources + 4 * tl.load(copy), sources + 4 * tl.load(copy + 1)
    picture, stride = pixels + (tl.load(source) + color), tl.load(source + 1).to(tl.int32)
    right, bottom = tl.load(source + 2).to(tl.int32), tl.load(source + 3).to(tl.int32)
    filter, taps = tl.load(copy + 2), tl.load(copy + 3)
    columns = tl.load(tiles + 3 * (program // 3) + 1) + tl.arange(0, TILE)
    rows = tl.load(tiles + 3 * (program // 3) + 2) + tl.arange(0, TILE)
    lefts, tops = columns - taps // 2, rows - taps // 2
    first, end = tl.min(lefts, 0), tl.max(lefts, 0) + taps
    highs = tl.zeros((TILE, TILE), tl.float32)
    lows = tl.zeros((TILE, TILE), tl.float32)
    for y in tl.range(tl.min(tops, 0), tl.max(tops, 0) + taps, SPAN, num_stages=1):
        ys = y + tl.arange(0, SPAN)
        lines = tl.minimum(tl.maximum(ys, 0), bottom) * stride
        sums = tl.zeros((SPAN, TILE), tl.float32)
        for x in tl.range(first, end, SPAN, num_stages=1):
            xs = x + tl.arange(0, SPAN)
            at = picture + (lines[:, None] + 3 * tl.minimum(tl.maximum(xs, 0), right)[None, :])
            sums = tl.dot(pixels_at(at), band(table, filter, lefts[None, :], taps, xs[:, None]), sums)
        whole = sums.to(tl.int32) - 256 * 1024  # 16 bits, in two halves of 8
        weights = band(table, filter, tops[:, None], taps, ys[None, :])
        highs = tl.dot(weights, (whole >> 8).to(tl.float16), highs)
        lows = tl.dot(weights, (whole & 255).to(tl.float16), lows)
    value = (256 * highs.to(tl.int32) + lows.to(tl.int32) + (1 << 15)) >> 16
    width = tl.load(target + 1).to(tl.int32)
    to = pixels + tl.load(target) + color + (rows * width)[:, None] + 3 * columns[None, :]
    inside = (rows < tl.load(copy + 7))[:, None] & (columns < tl.load(copy + 6))[None, :]
    tl.store(to, value.to(tl.uint8), mask=inside)


@_kernel
def gather(pixels, sources, source, x, y, to, inside, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Bilinear samples at x, y in 32nds of a pixel, three planes of a view; edges are repeated."""
    picture, stride = pixels + tl.load(source), tl.load(source + 1).to(tl.int32)
    right, bottom = tl.load(source + 2).to(tl.int32), tl.load(source + 3).to(tl.int32)
    left, top, a, b = x >> 5, y >> 5, x & 31, y & 31
    x0, x1 = 3 * tl.minimum(tl.maximum(left, 0), right), 3 * tl.minimum(tl.maximum(left + 1, 0), right)
    y0, y1 = tl.minimum(tl.maximum(top, 0), bottom) * stride, tl.minimum(tl.maximum(top + 1, 0), bottom) * stride
    for color in tl.static_range(3):
        total = 512 + tl.load(picture + (y0 + x0) + color).to(tl.int32) * ((32 - b) * (32 - a))
        total += tl.load(picture + (y0 + x1) + color).to(tl.int32) * ((32 - b) * a)
        total += tl.load(picture + (y1 + x0) + color).to(tl.int32) * (b * (32 - a))
        total += tl.load(picture + (y1 + x1) + color).to(tl.int32) * (b * a)
        tl.store(to + color * SIZE * SIZE, (total >> 10).to(tl.uint8), mask=inside)


@_kernel
def warp_affine(pixels, sources, turned, places, out, SIZE: tl.constexpr, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    """A tile of a turned view, at places that are a sum of one of its column and one of its row, in 1024ths."""
    TILES: tl.constexpr = (SIZE + TILE - 1) // TILE
    program = tl.program_id(0)
    number = program // (TILES * TILES)
    columns = program % TILES * TILE + tl.arange(0, TILE)
    rows = program // TILES % TILES * TILE + tl.arange(0, TILE)
    column = places + 4 * SIZE * number + tl.minimum(columns, SIZE - 1)
    row = places + 4 * SIZE * number + 2 * SIZE + tl.minimum(rows, SIZE - 1)
    x = (tl.load(column)[None, :] + tl.load(row)[:, None] + 16) >> 5
    y = (tl.load(column + SIZE)[None, :] + tl.load(row + SIZE)[:, None] + 16) >> 5
    view = tl.load(turned + 2 * number).to(tl.int64)
    to = out + view * (3 * SIZE * SIZE) + (rows * SIZE)[:, None] + columns[None, :]
    inside = (rows < SIZE)[:, None] & (columns < SIZE)[None, :]
    gather(pixels, sources, sources + 4 * tl.load(turned + 2 * number + 1), x, y, to, inside, SIZE)


@_kernel
def nearest(value):  # type: ignore[no-untyped-def]
    """Rounded to whole numbers, half to even, by the precision that double has from 2^52 on."""
    return ((value + 6755399441055744.0) - 6755399441055744.0).to(tl.int32)


@_kernel
def warp_perspective(pixels, sources, turned, matrices, out, SIZE: tl.constexpr, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    """A tile of a view through a homography. To be compiled without fused multiply-adds, whose products are not rounded."""
    TILES: tl.constexpr = (SIZE + TILE - 1) // TILE
    program = tl.program_id(0)
    number = program // (TILES * TILES)
    columns = program % TILES * TILE + tl.arange(0, TILE)
    rows = program // TILES % TILES * TILE + tl.arange(0, TILE)
    u, v = columns.to(tl.float64)[None, :], rows.to(tl.float64)[:, None]
    m = matrices + 9 * number
    scale = 32 / (tl.load(m + 6) * u + (tl.load(m + 7) * v + tl.load(m + 8)))
    x = nearest((tl.load(m + 0) * u + (tl.load(m + 1) * v + tl.load(m + 2))) * scale)
    y = nearest((tl.load(m + 3) * u + (tl.load(m + 4) * v + tl.load(m + 5))) * scale)
    view = tl.load(turned + 2 * number).to(tl.int64)
    to = out + view * (3 * SIZE * SIZE) + (rows * SIZE)[:, None] + columns[None, :]
    inside = (rows < SIZE)[:, None] & (columns < SIZE)[None, :]
    gather(pixels, sources, sources + 4 * tl.load(turned + 2 * number + 1), x, y, to, inside, SIZE)


@_kernel
def dissolved(first, second, share):  # type: ignore[no-untyped-def]
    """Two pixels mixed by a share in 256ths, half to even."""
    total = first.to(tl.int32) * (256 - share) + second.to(tl.int32) * share
    return (total + 127 + ((total >> 8) & 1)) >> 8


@_kernel
def finish(views, fades, affine, out, SIZE: tl.constexpr, NORMALIZED: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """A stretch of a frame: its view, or two that dissolve; as bytes (S, S, 3) or `NORMALIZED`, (3, S, S)."""
    BLOCKS: tl.constexpr = (SIZE * SIZE + BLOCK - 1) // BLOCK
    frame = (tl.program_id(0) // BLOCKS).to(tl.int64)
    at = tl.program_id(0) % BLOCKS * BLOCK + tl.arange(0, BLOCK)
    inside = at < SIZE * SIZE
    other, share = tl.load(fades + 2 * frame).to(tl.int64), tl.load(fades + 2 * frame + 1)
    for color in tl.static_range(3):
        value = tl.load(views + (3 * frame + color) * (SIZE * SIZE) + at, mask=inside).to(tl.int32)
        if other >= 0:
            second = tl.load(views + (3 * other + color) * (SIZE * SIZE) + at, mask=inside)
            value = dissolved(value, second, share)
        if NORMALIZED:
            normal = value.to(tl.float32) * tl.load(affine + color) + tl.load(affine + 3 + color)
            tl.store(out + (3 * frame + color) * (SIZE * SIZE) + at, normal.to(out.dtype.element_ty), mask=inside)
        else:
            tl.store(out + 3 * (frame * (SIZE * SIZE) + at) + color, value.to(tl.uint8), mask=inside)


def render_views(batch: StillBatch) -> Tensor:
    """Views uint8 (V, 3, size, size) of a batch that is on the device."""
    size, tiles = batch.size, (-(-batch.size // TILE)) ** 2
    views = batch.pixels.new_empty((batch.views, 3, size, size))
    pixels, sources, table = batch.pixels, batch.sources, batch.table
    if count := len(batch.tiles):
        low_pass[(3 * count,)](pixels, sources, batch.copies, batch.tiles, table, TILE, SPAN, num_warps=WARPS)
    if count := len(batch.straight):
        grid = (count * tiles,)
        mix[grid](pixels, sources, batch.straight, batch.places, table, views, size, TILE, SPAN, num_warps=WARPS)
    if count := len(batch.affine):
        warp_affine[(count * tiles,)](pixels, sources, batch.affine, batch.affine_places, views, size, TILE)
    if count := len(batch.perspective):
        warp_perspective[(count * tiles,)](
            pixels, sources, batch.perspective, batch.homographies, views, size, TILE, enable_fp_fusion=False
        )
    return views


def finish_frames(views: Tensor, batch: StillBatch) -> Tensor:
    """Frames uint8 (F, size, size, 3) of `render_views`' views."""
    size, count = batch.size, len(batch.fades)
    out = views.new_empty((count, size, size, 3))
    grid = (count * -(-(size**2) // PIXELS),)
    finish[grid](views, batch.fades, views, out, size, False, PIXELS)
    return out


def finish_normalized(views: Tensor, batch: StillBatch, affine: Tensor, dtype: torch.dtype) -> Tensor:
    """Frames (F, 3, size, size) of a floating `dtype`: colors times `affine[0]` (3,), plus `affine[1]`."""
    size, count = batch.size, len(batch.fades)
    out = views.new_empty((count, 3, size, size), dtype=dtype)
    grid = (count * -(-(size**2) // PIXELS),)
    finish[grid](views, batch.fades, affine, out, size, True, PIXELS)
    return out
