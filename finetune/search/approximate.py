"""faiss beside the exact search: for many millions of videos, where reading all vectors for a query takes too long.

    build    vectors -> faiss-GEN.index: an inverted file over sqrt(N) * 4 cells of fp16 vectors (IVF, Jégou et al., 2011)
    search   the cells nearest to a query are read, the others are not: some of the best may be missed

What is found is scored again by the vectors themselves, so a video's number is the same either way.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillreel.configs import DataError, RequestError
from stillreel.finetune.search.store import MANIFEST, VideoIndex, digest_of_file, open_index

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_ROWS = 65536  # added at once
_OF_A_CELL = 64  # vectors that its center is learned from
_SHARE = 16  # of the cells, one in so many is read for a query, and at least 8


def faiss_file(index: VideoIndex) -> Path | None:
    """The faiss index of an index, if it has one."""
    name = f"faiss-{index.manifest['generation']:06}.index"
    return Path(index.folder.locate(name)) if name in index.manifest["files"] else None


def build_faiss(index: VideoIndex) -> VideoIndex:
    """Write the faiss index beside the arrays, and name it in the manifest. The index with it."""
    faiss, count = _faiss(), len(index)
    cells = max(1, min(int(4 * math.sqrt(count)), count // 8))
    built = faiss.index_factory(index.vectors.shape[1], f"IVF{cells},SQfp16", faiss.METRIC_INNER_PRODUCT)
    built.cp.seed = 0
    chosen = np.sort(np.random.default_rng(0).permutation(count)[: _OF_A_CELL * cells])
    built.train(np.asarray(index.vectors[chosen], np.float32))
    for start in range(0, count, _ROWS):
        built.add(np.asarray(index.vectors[start : start + _ROWS], np.float32))
    name = f"faiss-{index.manifest['generation']:06}.index"
    with index.folder.draft(name) as draft:
        faiss.write_index(built, str(draft.path))
        about = {"bytes": draft.path.stat().st_size, "sha256": digest_of_file(draft.path)}
        draft.publish()
    manifest = {**index.manifest, "files": {**index.manifest["files"], name: about}}
    index.folder.publish(MANIFEST, json.dumps(manifest, sort_keys=True, indent=1).encode() + b"\n")
    return open_index(index.folder)


class FaissSearch:
    """An open faiss index, its cells on the disk until they are read."""

    def __init__(self, index: VideoIndex) -> None:
        """RequestError where the index has none, DataError where it is damaged."""
        file = faiss_file(index)
        if file is None:
            raise RequestError(f"{index.folder.url} has no faiss index; run `stillreel index` again with faiss=true")
        faiss = _faiss()
        try:
            self._found: Any = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError as error:
            raise DataError(f"{file} is damaged: {str(error).strip().splitlines()[0]}") from None
        if self._found.ntotal != len(index) or self._found.d != index.vectors.shape[1]:
            raise DataError(f"{file} is of another index: {self._found.ntotal} vectors, of {len(index)}")
        self._found.nprobe = min(self._found.nlist, max(8, self._found.nlist // _SHARE))
        self._vectors = index.vectors

    def best_rows(self, queries: Floats, k: int) -> tuple[Floats, Ints]:
        """As `exact.best_rows`, but some of the best may be missing: then others, or rows of -1, stand in their place."""
        _, rows = self._found.search(np.ascontiguousarray(queries, np.float32), min(k, len(self._vectors)))
        near = self._vectors[np.maximum(rows, 0)].astype(np.float32)
        scores = np.einsum("qke,qe->qk", near, queries)
        scores[(rows < 0) | np.isnan(scores)] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def _faiss() -> Any:
    import faiss

    return faiss
