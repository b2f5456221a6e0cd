"""Captions as the text tower reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from torch import Tensor

_AT_ONCE = 4096


def tokenize(captions: Sequence[str], words: int) -> Tensor:
    """CLIP's token ids, int64 (B, words): start, text, end, then zeros. A long caption is cut, and ends with the end token."""
    ids: Tensor = _tokenizer()(list(captions), context_length=words)
    return ids


def count_cut(captions: Sequence[str], words: int) -> int:
    """How many of these captions are longer than so many tokens, and lose their end."""
    long = [caption for caption in captions if len(caption.encode()) > words - 2]  # a token has a byte at least
    cut = 0
    for start in range(0, len(long), _AT_ONCE):
        some = long[start : start + _AT_ONCE]
        cut += int((tokenize(some, words) != tokenize(some, words + 1)[:, :words]).any(dim=1).sum())
    return cut


@cache
def _tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer  # takes a moment, which what needs no words is spared

    return SimpleTokenizer()
