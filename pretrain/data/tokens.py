"""Captions as a text tower reads them: by CLIP's own tokenizer, or the one of the hub that its towers were trained with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from stillreel.configs import RequestError


class Tokenizer(NamedTuple):
    """Which tokenizer, in words: it is loaded where it is called, and a worker that is sent one loads its own.

    `name` is of the hub, or a folder; empty is CLIP's own. `options` are open_clip's for it, in JSON. `length` is how many
    tokens the tower reads of every caption; 0: as many as are asked for.
    """

    name: str = ""
    options: str = "{}"
    length: int = 0

    def __call__(self, captions: Sequence[str], words: int) -> Tensor:
        """Token ids, int64 (B, words), or (B, length): start, text, end, then padding. A long caption is cut, and ends with the
        end token. RequestError where the tokenizer is not on this machine."""
        tokenizer = _load(self.name, self.options)
        words = min(words, self.length or words)
        ids: Tensor = tokenizer(list(captions), context_length=words)
        if words == self.length or not self.length:
            return ids
        hub = getattr(tokenizer, "tokenizer", None)
        return F.pad(ids, (0, self.length - words), value=0 if hub is None else hub.pad_token_id)


CLIPS_OWN = Tokenizer()
CLIPS_WORDS = 77  # tokens, the most that CLIP reads

_AT_ONCE = 4096


def tokenizer_of(model_cfg: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of an open_clip configuration, as open_clip chooses it."""
    text = model_cfg["text_cfg"]
    options = dict(text.get("tokenizer_kwargs") or {})
    if text.get("tokenizer_mode"):
        options["tokenizer_mode"] = text["tokenizer_mode"]
    told = json.dumps(options, sort_keys=True)
    return Tokenizer(text.get("hf_tokenizer_name") or "", told, fixed_length(model_cfg))


def fixed_length(model_cfg: Mapping[str, Any]) -> int:
    """Tokens that every caption must have for a text tower; 0 where it may have fewer, since it is causal or has a mask."""
    text = model_cfg["text_cfg"]
    pool, length = text.get("pool_type", "argmax"), int(text.get("context_length", CLIPS_WORDS))
    causal = not text.get("no_causal_mask") and not text.get("embed_cls") and pool == "argmax"
    projected = not text.get("proj_bias") and text.get("proj_type", "linear") == "linear"
    return 0 if text.get("hf_model_name") or (causal and projected) else length


def count_cut(captions: Sequence[str], words: int, tokenizer: Tokenizer = CLIPS_OWN) -> int:
    """How many of these captions are longer than so many tokens, and lose their end."""
    words = min(words, tokenizer.length or words)
    long = [caption for caption in captions if len(caption.encode()) > words - 2]  # a token has a byte at least
    cut = 0
    for start in range(0, len(long), _AT_ONCE):
        some = long[start : start + _AT_ONCE]
        longer = tokenizer._replace(length=0)(some, words + 1)
        cut += int((tokenizer._replace(length=0)(some, words) != longer[:, :words]).any(dim=1).sum())
    return cut


@cache
def _load(name: str, options: str) -> Any:
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer  # takes a moment, which what needs no words is spared

    told = json.loads(options)
    if not name:
        return SimpleTokenizer(**told)
    try:
        return HFTokenizer(name, **told)
    except (ImportError, OSError, ValueError, KeyError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RequestError(
            f"the tokenizer of these towers, {name}, cannot be loaded ({why}); it needs transformers, and its files in the hub's "
            "cache, or in the folder that text_cfg.hf_tokenizer_name of config.json names"
        ) from None
