"""Exact search: of N fp16 vectors those with the largest products with a query, summed in fp32.

Half the bytes of fp32 are read, which is what one query costs: a single pass widens eight halves at a time in registers, sums
and keeps the best. From a few queries on the arithmetic counts: blocks that stay in the cache are widened once for all
queries, and multiplied by the BLAS. benchmarks/search.py measures both against numpy and faiss on fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise, repeat
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import float32, njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

Halves = NDArray[np.float16]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_FEW = 3  # queries up to which a pass for each costs less than widening into memory
_BLOCK = 1024  # vectors of a block, a thread: 2 MB in fp32 at a width of 512


def best_rows(vectors: Halves, queries: Floats, k: int) -> tuple[Floats, Ints]:
    """Products (Q, K) of queries (Q, E) with rows of vectors (N, E), the largest first, and the rows, K = min(k, N).

    Of equal products the lower row is first. A product that is NaN is behind all others: its row is -1, its product -inf.
    Only what is read of a memory-mapped file comes into memory, and nothing of the size of N is made.
    """
    assert vectors.dtype == np.float16 and queries.ndim == 2 and vectors.shape[1] == queries.shape[1]
    assert vectors.flags.c_contiguous and k > 0
    queries = np.ascontiguousarray(queries, np.float32)
    k = min(k, len(vectors))
    scores, rows = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
    if not scores.size:
        return scores, rows
    bits = vectors.view(np.uint16)
    if len(queries) <= _FEW:
        _by_threads(bits, queries, scores, rows)
    else:
        _by_blocks(vectors, queries, scores, rows)
    return scores, rows


def _by_threads(bits: NDArray[np.uint16], queries: Floats, scores: Floats, rows: Ints) -> None:
    """Each thread has a range of rows; their bests are merged in the order of rows."""
    threads = min(torch.get_num_threads(), 1 + len(bits) // _BLOCK)
    if threads == 1:
        for query, top, at in zip(queries, scores, rows, strict=True):
            _scan(bits, query, 0, top, at)
        return
    edges = np.linspace(0, len(bits), threads + 1, dtype=np.int64).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for query, top, at in zip(queries, scores, rows, strict=True):
            tops, ats = np.full((threads, len(top)), -np.inf, np.float32), np.full((threads, len(at)), -1, np.int64)
            parts = [bits[first:end] for first, end in pairwise(edges)]
            list(pool.map(_scan, parts, repeat(query), edges, tops, ats))
            order = np.argsort(-tops.ravel(), kind="stable")[: len(top)]
            top[:], at[:] = tops.ravel()[order], ats.ravel()[order]


def _by_blocks(vectors: Halves, queries: Floats, scores: Floats, rows: Ints) -> None:
    size = min(_BLOCK * torch.get_num_threads(), len(vectors))
    wide, products = torch.empty(size, vectors.shape[1]), torch.empty(size, len(queries))
    columns = torch.from_numpy(queries).T.contiguous()
    for start in range(0, len(vectors), size):
        halves = torch.from_numpy(_as_writable(vectors[start : start + size]))
        count = len(halves)
        torch.mm(wide[:count].copy_(halves), columns, out=products[:count])
        _keep(products[:count].numpy(), start, scores, rows)


def _as_writable(block: Halves) -> Halves:
    """The same memory: torch warns of arrays that it may not write to, as files that are mapped to be read. It only reads."""
    if block.flags.writeable:
        return block

    class Memory:
        __array_interface__ = {**block.__array_interface__, "data": (block.__array_interface__["data"][0], False)}

    return np.asarray(Memory())


def _compiled(function: Callable[..., Any], *, fast: bool = False) -> Callable[..., Any]:
    """Compile on first use, once for all processes where a cache can be kept. `fast` may sum in any order."""
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract"} if fast else False}
    try:
        compiled: Callable[..., Any] = njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        compiled = njit(**options)(function)
    return compiled


@intrinsic
def _widened(_typing: Any, _bits: Any) -> Any:
    """The float32 of a half's bits: numba knows no halves on CPUs, LLVM and the processor do."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), build


@_compiled
def _insert(score, row, top, at):  # type: ignore[no-untyped-def]
    """Put a row among the best, behind those of the same score; its score is above that of the last."""
    place = len(top) - 1
    while place > 0 and score > top[place - 1]:
        top[place], at[place] = top[place - 1], at[place - 1]
        place -= 1
    top[place], at[place] = score, row


@partial(_compiled, fast=True)
def _dot(row, query):  # type: ignore[no-untyped-def]
    total = float32(0)
    for j in range(len(query)):
        total += _widened(row[j]) * query[j]  # type: ignore[call-arg]
    return total


@_compiled
def _scan(bits, query, first, top, at):  # type: ignore[no-untyped-def]
    """Keep the best of vectors (n, E), given as bits of halves, whose first is row `first`."""
    for i in range(len(bits)):
        score = _dot(bits[i], query)
        if score > top[-1]:
            _insert(score, first + i, top, at)


@_compiled
def _keep(products, first, scores, rows):  # type: ignore[no-untyped-def]
    """Keep the best of products (n, Q), whose first is of row `first`."""
    for i in range(len(products)):
        for query in range(products.shape[1]):
            if products[i, query] > scores[query, -1]:
                _insert(products[i, query], first + i, scores[query], rows[query])
