"""Queries against an open index: text, a picture or a video becomes a vector, the vector candidates, the candidates results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillreel.configs import DataError, RequestError
from stillreel.configs.system.storage import Folder
from stillreel.configs.video import VideoSettings
from stillreel.finetune.search.approximate import FaissSearch
from stillreel.finetune.search.exact import best_rows
from stillreel.finetune.search.features import model_digest, open_model, stored_features
from stillreel.finetune.search.store import MANIFEST, VideoIndex, open_index
from stillreel.pretrain.data.tokens import CLIPS_WORDS, tokenizer_of
from stillreel.pretrain.evaluation.two_stage.order import fused
from stillreel.pretrain.evaluation.two_stage.stages import (
    coarse_logits,
    fine_scores,
    has_fine_stage,
    vectors_of_queries,
)
from stillreel.pretrain.model.features import TextFeatures, in_fp32, pick_rows, unit
from stillreel.pretrain.model.normalize import encode_frames
from stillreel.pretrain.model.towers import model_cfg_of
from stillreel.pretrain.run.opening import model_folder

Pixels = NDArray[np.uint8]

_TEXTS = 256  # encoded at once


class Moment(NamedTuple):
    """How similar one frame is to the query: a cosine."""

    seconds: float
    similarity: float


@dataclass(frozen=True)
class Hit:
    """A video that was found. `coarse` is its similarity by vectors, `fine` that of the fine stage, None where it was not
    asked."""

    row: int
    path: str
    duration: float
    coarse: float
    fine: float | None
    moments: tuple[Moment, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        moments = [
            {"seconds": round(one.seconds, 3), "similarity": _finite(round(one.similarity, 5))} for one in self.moments
        ]
        fine = None if self.fine is None else _finite(self.fine)
        return {**asdict(self), "fine": fine, "moments": moments}


def _finite(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else None


class Searcher:
    """An index and its model. Safe to share between threads, as long as one searches at a time."""

    def __init__(
        self, index: VideoIndex, checkpoint: str = "", device: str = "auto", *, weight: float = 1.0, faiss: bool = False
    ) -> None:
        """`checkpoint`: where the index's model lies now. RequestError when it is not there, DataError when it is another.
        `weight` is that of the fine score where there are two; `faiss` proposes by the approximate index."""
        made_by = index.manifest["model"]
        path = model_folder(checkpoint) if checkpoint else str(made_by.get("path", ""))
        if not Path(path).expanduser().is_dir():
            raise RequestError(f"{path}: the model of this index is not there; say where it is by checkpoint=FOLDER")
        self.index, self.model = index, open_model(path, device)
        if model_digest(path) != made_by.get("sha256"):
            raise DataError(f"{path} is not the model that this index was made by: its sha256 is another")
        self.video = VideoSettings.resolve(index.manifest["settings"])
        self._weight = weight
        self._approximate = FaissSearch(index) if faiss else None
        self._device = next(self.model.parameters()).device

    @property
    def can_rerank(self) -> bool:
        """Whether the model has a fine stage."""
        return has_fine_stage(self.model)

    def by_text(self, texts: Sequence[str], k: int, rerank: int = 0) -> list[list[Hit]]:
        """The best `k` videos of each text; of the best `rerank` the fine stage decides, the others follow in coarse order."""
        self.check_rerank(rerank)
        for text in texts:
            if not text.strip():
                raise RequestError("a query is empty: say what should be seen")
        found: list[list[Hit]] = []
        for start in range(0, len(texts), _TEXTS):
            found += self._by_texts(texts[start : start + _TEXTS], k, rerank)
        return found

    def by_frames(self, frames: Pixels, mask: NDArray[np.bool_], k: int) -> list[Hit]:
        """The videos that are most like a clip, uint8 (T, H, W, 3) and bool (T,)."""
        video = in_fp32(encode_frames(self.model, torch.from_numpy(frames)[None], torch.from_numpy(mask)[None]))
        vectors = vectors_of_queries(self.model, video.pooled, video.aligned)
        return self._hits(vectors, video.pooled, k)[0]

    def like(self, row: int, k: int) -> list[Hit]:
        """The videos that are most like one of the index, without itself."""
        stored = stored_features(self.index, np.array([row]), self._device)
        vectors = vectors_of_queries(self.model, stored.pooled, stored.aligned)
        return [hit for hit in self._hits(vectors, stored.pooled, k + 1)[0] if hit.row != row][:k]

    def check_rerank(self, rerank: int) -> None:
        """RequestError where re-ranking is asked for and the model has nothing to do it with."""
        if rerank and not self.can_rerank:
            raise RequestError(
                f"rerank={rerank}: this index's model has no re-ranker; set rerank=0, or index by a model that has one "
                "(rerank.layers=4)"
            )

    def _by_texts(self, texts: Sequence[str], k: int, rerank: int) -> list[list[Hit]]:
        words = self.model.clip.context_length or CLIPS_WORDS
        with torch.no_grad():
            text = self.model.encode_text(tokenizer_of(model_cfg_of(self.model.clip))(texts, words).to(self._device))
        vectors = vectors_of_queries(self.model, text.pooled.float(), text.aligned)
        if not rerank:
            return self._hits(vectors, text.pooled, k)
        coarse, rows = self._coarse(vectors, max(k, rerank))
        found = []
        for query in range(len(texts)):
            one = pick_rows(text, slice(query, query + 1))
            order, fine = self._ordered(one, rows[query], coarse[query], rerank)
            kept = [at for at in order[:k].tolist() if rows[query, at] >= 0]
            fines = [float(fine[at]) if at < len(fine) else None for at in kept]
            found.append(self._described(one.pooled[0], rows[query, kept], coarse[query, kept], fines))
        return found

    def _ordered(
        self, text: TextFeatures, rows: NDArray[np.int64], coarse: NDArray[np.float32], rerank: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Places of candidates in their final order, and the fine scores of the first `rerank` places."""
        asked = rows[:rerank][rows[:rerank] >= 0]
        video = stored_features(self.index, asked, self._device)
        clips = torch.arange(len(asked), device=self._device)[None]
        fine = fine_scores(self.model, video, text, clips)
        near = coarse_logits(self.model, torch.from_numpy(coarse[: len(asked)]).to(self._device))
        mixed = fused(near[None], fine, self._weight)[0].cpu().numpy()
        inside = np.argsort(-mixed, kind="stable")  # NaN last
        return np.concatenate([inside, np.arange(len(asked), len(rows))]), fine[0].cpu().numpy()

    def _hits(self, vectors: Tensor, pooled: Tensor, k: int) -> list[list[Hit]]:
        coarse, rows = self._coarse(vectors, k)
        found = []
        for query, some in enumerate(rows):
            kept = some >= 0
            found.append(self._described(pooled[query], some[kept], coarse[query][kept], [None] * int(kept.sum())))
        return found

    def _coarse(self, vectors: Tensor, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        self.index.check_sizes()
        queries = vectors.float().cpu().numpy()
        return (
            self._approximate.best_rows(queries, k) if self._approximate else best_rows(self.index.vectors, queries, k)
        )

    def _described(
        self, pooled: Tensor, rows: NDArray[np.int64], coarse: NDArray[np.float32], fine: Sequence[float | None]
    ) -> list[Hit]:
        query = unit(pooled.float()).cpu()
        hits = []
        for at, row in enumerate(rows.tolist()):
            times, entry = self.index.times[row], self.index.entry(row)
            shown = np.flatnonzero(~np.isnan(times))
            likeness = unit(torch.from_numpy(self.index.frames[row][shown].astype(np.float32))) @ query
            moments = tuple(map(Moment, times[shown].tolist(), likeness.tolist()))
            hits.append(Hit(row, entry.path, entry.duration, float(coarse[at]), fine[at], moments))
        return hits


def search(
    index: str | Path, text: str, k: int = 10, *, rerank: int = 0, checkpoint: str = "", device: str = "auto"
) -> list[Hit]:
    """The best `k` videos of an index for a text, best first; of the best `rerank` the fine stage decides.

    Nothing is written. An index that was opened is kept open, and is opened anew when it has been made anew.
    RequestError when there is none, or its model is elsewhere: `checkpoint` says where.
    """
    folder = Folder(str(index))
    made = folder.read(MANIFEST) if folder.exists(MANIFEST) else b""
    return _opened(folder.url, made, checkpoint, device).by_text([text], k, rerank)[0]


@lru_cache(2)  # a model each
def _opened(url: str, _made: bytes, checkpoint: str, device: str) -> Searcher:
    return Searcher(open_index(Folder(url)), checkpoint, device)
