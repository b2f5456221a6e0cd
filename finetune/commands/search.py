"""`stillreel search INDEX [TEXT]`: the best videos of an index, for text, a picture, a video, or a file of texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from stillreel.configs import DataError, RequestError
from stillreel.configs.search import SearchSettings
from stillreel.configs.system.storage import Folder
from stillreel.finetune.search.searcher import Hit, Searcher
from stillreel.finetune.search.store import open_index
from stillreel.pretrain.video import VideoReader
from stillreel.pretrain.video.picture import frames_of_picture

_MOST_QUERIES = 1_000_000
_LONGEST_LINE = 10_000  # characters


def run(index: str, text: str, settings: SearchSettings) -> int:
    """Print what is found: a table, or with json=true a line of JSON a query."""
    given = {"TEXT": text, "image=": settings.image, "video=": settings.video, "queries=": settings.queries}
    asked = [name for name, value in given.items() if value.strip()]
    if len(asked) != 1:
        raise RequestError(
            f"give one of TEXT, image=FILE, video=FILE and queries=FILE; given: {', '.join(asked) or 'none'}"
        )
    if settings.rerank and asked[0] in ("image=", "video="):
        raise RequestError(f"rerank={settings.rerank}: re-ranking asks words; with {asked[0]} it must be 0")
    texts = _texts(settings.queries) if settings.queries else [text]
    searcher = Searcher(
        open_index(Folder(index)), settings.checkpoint, settings.device, weight=settings.weight, faiss=settings.faiss
    )
    for query, hits in zip(*_search(searcher, texts, settings), strict=True):
        if settings.json_output:
            print(json.dumps({"query": query, "results": [hit.to_json() for hit in hits]}, ensure_ascii=False))
        else:
            print(_in_lines(query, hits, headed=len(texts) > 1))
    return 0


def _search(searcher: Searcher, texts: list[str], settings: SearchSettings) -> tuple[list[str], list[list[Hit]]]:
    if settings.image:
        return [settings.image], [
            searcher.by_frames(*frames_of_picture(_read(settings.image), searcher.video), settings.k)
        ]
    if settings.video:
        clip = VideoReader(searcher.video).read(settings.video)
        return [settings.video], [searcher.by_frames(clip.frames, clip.mask, settings.k)]
    return texts, searcher.by_text(texts, settings.k, settings.rerank)


def _texts(file: str) -> list[str]:
    try:
        lines = [line.strip() for line in _read(file).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: expected UTF-8, a query a line: {error}") from None
    texts = [line for line in lines if line]
    if not texts or len(texts) > _MOST_QUERIES:
        raise RequestError(f"{file} holds {len(texts):,} queries; expected 1 to {_MOST_QUERIES:,}, one a line")
    if (longest := max(map(len, texts))) > _LONGEST_LINE:
        raise RequestError(f"{file}: a query of {longest:,} characters; at most {_LONGEST_LINE:,}")
    return texts


def _read(file: str) -> bytes:
    path = Path(file).expanduser()
    if not path.is_file():
        raise RequestError(f"{file}: no such file")
    return path.read_bytes()


def _in_lines(query: str, hits: list[Hit], *, headed: bool) -> str:
    lines = [query] if headed else []
    for place, hit in enumerate(hits, 1):
        fine = "" if hit.fine is None else f"  {hit.fine:+8.3f}"
        best = max(hit.moments, key=lambda one: np.nan_to_num(one.similarity, nan=-1))
        lines.append(
            f"{place:>4}  {hit.coarse:.4f}{fine}  {hit.path}  best at {best.seconds:.1f} of {hit.duration:.1f} s"
        )
    return "\n".join(lines)
