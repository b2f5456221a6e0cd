"""Captions as the text tower reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from torch import Tensor


def tokenize(captions: Sequence[str], words: int) -> Tensor:
    """CLIP's token ids, int64 (B, words): start, text, end, then zeros. A long caption is cut, and ends with the end token."""
    ids: Tensor = _tokenizer()(list(captions), context_length=words)
    return ids


@cache
def _tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer  # takes a moment, which what needs no words is spared

    return SimpleTokenizer()
