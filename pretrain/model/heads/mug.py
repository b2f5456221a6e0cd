"""Mug: every word with every frame, weighed by each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillreel.configs.model import ModelSettings
from stillreel.pretrain.model.adapter import Towers, joint_width
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures, last_place, unit

_SHARPNESS = 100.0  # of all softmaxes, as published; the temperature of the loss is another


class Mug(nn.Module):
    """Similarities (A, B) of words and frames, each side summed by softmaxes over the other's.

    Liu et al., Mug-STAN (arXiv 2311.15075), "mutual-guided" alignment: the modes of its code, and in `wti` the
    weighted token-wise interaction of Wang et al., DRL (2022), with its two learned weights. The published code takes a
    similarity of exactly zero for padding, and a token id of zero too (`faithful`); here masks say what is padding.
    """

    scaled = True

    def __init__(self, settings: ModelSettings, clip: Towers) -> None:
        super().__init__()
        self.mode = settings.mug
        self.zero_is_padding = settings.faithful != "no"
        width = joint_width(clip)
        self.word_weight = nn.Linear(width, 1) if settings.mug == "wti" else None
        self.frame_weight = nn.Linear(width, 1) if settings.mug == "wti" else None

    def forward(self, video: VideoFeatures, text: TextFeatures) -> Tensor:
        words, frames = unit(text.tokens), unit(video.frames)
        match self.mode:
            case "frame_token_simple":
                return self._simple(words, frames, text.mask, video.mask)
            case "frame_token":
                return self._attended(words, frames, text.mask, video.mask)
            case "frame_text":
                return self._pooled(words, frames, text.mask, video.mask)
            case "wti":
                return self._weighted(words, frames, text, video)

    def _simple(self, words: Tensor, frames: Tensor, word_mask: Tensor, frame_mask: Tensor) -> Tensor:
        each = _similarities(words, frames, word_mask)  # (A, B, W, T)
        by_word = _soft_sum(each, each, frame_mask[None, :, None, :], dim=3)
        by_frame = _soft_sum(each, each, self._valid(each, word_mask[:, None, :, None]), dim=2)
        text = _soft_sum(by_word, by_word, self._valid(by_word, word_mask[:, None, :]), dim=2)
        return (text + _soft_sum(by_frame, by_frame, frame_mask[None], dim=2)) / 2

    def _attended(self, words: Tensor, frames: Tensor, word_mask: Tensor, frame_mask: Tensor) -> Tensor:
        each = _similarities(words, frames, word_mask)
        of_frames = _sharp(each, frame_mask[None, :, None, :], dim=3)  # each word's weights of the frames
        of_words = _sharp(each, self._valid(each, word_mask[:, None, :, None]), dim=2)
        # <sum_t weight_t frame_t, word> is sum_t weight_t <frame_t, word>: the attended features need not be formed.
        by_word = (of_frames * each).sum(dim=3)
        by_frame = (of_words * torch.einsum("awe,bte->abwt", words, frames)).sum(dim=2)
        text = torch.einsum("abw,awe->abe", _sharp(by_word, self._valid(by_word, word_mask[:, None]), dim=2), words)
        video = torch.einsum("abt,bte->abe", _sharp(by_frame, frame_mask[None], dim=2), frames)
        return (text * video).sum(dim=-1)

    def _pooled(self, words: Tensor, frames: Tensor, word_mask: Tensor, frame_mask: Tensor) -> Tensor:
        last = words[torch.arange(len(words), device=words.device), last_place(word_mask)]
        by_frame = torch.einsum("ae,bte->abt", last, frames)
        return _soft_sum(by_frame, by_frame, frame_mask[None], dim=2)

    def _weighted(self, words: Tensor, frames: Tensor, text: TextFeatures, video: VideoFeatures) -> Tensor:
        assert self.word_weight is not None and self.frame_weight is not None
        each = torch.einsum("awe,bte->abwt", words, frames)
        of_words = self.word_weight(text.tokens)[..., 0].masked_fill(~text.mask, -torch.inf).softmax(dim=-1)
        of_frames = self.frame_weight(video.frames)[..., 0].masked_fill(~video.mask, -torch.inf).softmax(dim=-1)
        by_word = each.masked_fill(~video.mask[None, :, None, :], -torch.inf).amax(dim=3)
        nothing = 0 if self.zero_is_padding else -torch.inf
        by_frame = each.masked_fill(~text.mask[:, None, :, None], nothing).amax(dim=2)
        text_side = torch.einsum("abw,aw->ab", by_word, of_words)
        return (text_side + torch.einsum("abt,bt->ab", by_frame, of_frames)) / 2

    def _valid(self, similarities: Tensor, mask: Tensor) -> Tensor:
        return similarities != 0 if self.zero_is_padding else mask


def _similarities(words: Tensor, frames: Tensor, word_mask: Tensor) -> Tensor:
    return torch.einsum("awe,bte->abwt", words * word_mask[:, :, None], frames)


def _sharp(values: Tensor, mask: Tensor, dim: int) -> Tensor:
    return (_SHARPNESS * values).masked_fill(~mask, -torch.inf).softmax(dim=dim)


def _soft_sum(values: Tensor, by: Tensor, mask: Tensor, dim: int) -> Tensor:
    return (values * _sharp(by, mask, dim)).sum(dim=dim)
