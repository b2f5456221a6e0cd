"""Captions that are cut are counted by the tokenizer of the towers that read them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from stillreel.configs.finetune import ProtocolSettings
from stillreel.finetune.benchmarks import Benchmark, Located, Protocol, Split, Video
from stillreel.finetune.data.clips import Clip
from stillreel.finetune.data.loader import Pair, describe_cut
from stillreel.finetune.evaluation.benchmark import benchmark_protocol
from stillreel.pretrain.data.tokens import CLIPS_OWN, Tokenizer, count_cut, tokenizer_of
from tests import towers


class Letters(Tokenizer):
    """As SigLIP's: no start, the end is 1, padding 0; a token a letter, where CLIP has one a word."""

    def __call__(self, captions: Sequence[str], words: int) -> Tensor:
        words = min(words, self.length or words)
        rows = [[*(ord(letter) for letter in caption[: words - 1]), 1] for caption in captions]
        return torch.tensor([row + [0] * (words - len(row)) for row in rows])


SAID = ["a dog", "a dog runs", "a dog runs in the park"]


@pytest.mark.parametrize(
    ("words", "by_letter", "by_word"), [(32, 0, 0), (23, 0, 0), (22, 1, 0), (8, 2, 0), (7, 2, 1), (6, 2, 1), (5, 3, 1)]
)
def test_what_is_cut_hangs_on_the_tokenizer(words: int, by_letter: int, by_word: int) -> None:
    """The longest has 22 letters and an end; six words, a start and an end."""
    assert count_cut(SAID, words, Letters()) == by_letter
    assert count_cut(SAID, words, CLIPS_OWN) == by_word


def test_a_tower_that_reads_so_many_tokens_cuts_at_so_many() -> None:
    assert count_cut(SAID, 32, Letters(length=10)) == 2
    told = tokenizer_of(towers.small_cfg("ViT-B-16-SigLIP"))
    assert (told.name, told.length) == ("timm/ViT-B-16-SigLIP", 64)
    assert count_cut(SAID, 32, CLIPS_OWN._replace(length=6)) == 1


@pytest.mark.parametrize(("tokenizer", "cut"), [(Letters(), 2), (CLIPS_OWN, 0)])
def test_an_evaluation_and_a_run_tell_what_the_model_cuts(tokenizer: Tokenizer, cut: int) -> None:
    videos = tuple(Video(f"v{number}", (said,)) for number, said in enumerate(SAID))
    benchmark = Benchmark("folder", "", Protocol("own", "retrieval", "single"), {"test": Split("test", videos)})
    settings = ProtocolSettings(context_length=8)
    protocol = benchmark_protocol(Located(benchmark, {}, {}, ""), "test", settings, tokenizer)
    assert protocol.cut == cut
    assert ("8 tokens (2 of 3 texts cut)" in protocol.described) == bool(cut)
    pairs = [Pair(f"v{number}#0", f"v{number}", Clip("", None), said) for number, said in enumerate(SAID)]
    assert describe_cut(pairs, 8, tokenizer) == f"train: {cut} of 3 captions are longer than 8 tokens, and cut"
