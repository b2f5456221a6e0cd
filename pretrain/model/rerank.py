"""The re-ranker: is this the caption of that clip? Every word asks of every frame, for the few pairs that are worth it.

    frames (and patches) of a clip  -> blocks -> keys and values of each layer: once a clip, whatever the caption (`read`)
    words of a caption              -> blocks, over these and each other's -> end of text -> logit      (`judge`)

Words attend over frames and words; frames attend over frames only. So it is in the re-rankers that are published with
dual encoders (ALBEF, arXiv 2107.07651; Singularity, 2206.03428; UMT, 2303.16058), and that lets a clip be read once
for all captions: attention of everything over everything (CLIP4Clip's `tight`, DRL's cross transformer) has to pass the
frames through the blocks again for each pair, and scored below the plain dual encoder (DRL, 2203.07111: 40.5 to 42.9 R@1
on MSR-VTT). Unlike theirs, one attention serves both: its keys are the frames' and then the words'. All of its weights,
then, begin as those of CLIP's text blocks.

A clip read takes 2 * layers * S * E numbers for S = T * (1 + n * n) tokens: 192 KiB in fp32 for twelve frames on B/32, and
with all patches (rerank.grid=7) 9.4 MiB. Its features take T * E of these, and T * n * n * E: 24 KiB, and 1.2 MiB.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from stillreel.configs import RequestError
from stillreel.configs.model import CLIP_EPS, RerankSettings
from stillreel.pretrain.model.adapter import Towers, joint_width, most_tokens, needs_class_token
from stillreel.pretrain.model.blocks import Block, key_bias
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures, last_place, pick_rows, without_autocast
from stillreel.pretrain.model.towers import activation_of, heads_of

_PAIRS = 64  # scored at once by default: enough to fill a CPU's matrix products, and little memory


class Memory(NamedTuple):
    """What captions ask of B clips: keys and values of their S tokens in every layer."""

    keys: Tensor  # (B, layers, heads, S, E / heads)
    values: Tensor
    mask: Tensor  # (B, S) bool


class PairBlock(Block):
    """A block whose tokens may attend over others that came before them."""

    def forward(  # type: ignore[override]  # a module's forward is its own: torch's Module says nothing of its type
        self,
        tokens: Tensor,
        bias: Tensor | None = None,
        before: tuple[Tensor, Tensor] | None = None,
        only: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (A, L, E) -> tokens (P, L, E), and the keys and values (A, heads, L, E / heads) of those given.

        `before` are keys and values (P, heads, S, E / heads), P a multiple of A: each row is repeated for as many of them, but
        not what can be known of it before. `only` (P,) are the places whose answers are wanted: (P, 1, E).
        """
        q, k, v = self.attn.project(self.ln_1(tokens))
        own = k, v
        if before is not None:
            times = len(before[0]) // len(tokens)
            if times > 1:
                tokens, q, k, v = (one.repeat_interleave(times, dim=0) for one in (tokens, q, k, v))
            k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
        if only is not None:
            rows = torch.arange(len(tokens), device=tokens.device)
            tokens, q = tokens[rows, only][:, None], q[rows, :, only][:, :, None]
        tokens = tokens + self.attn.mix(q, k, v, bias)
        return tokens + self.mlp(self.ln_2(tokens)), *own


class Reranker(nn.Module):
    """Logits of pairs of a clip and a caption. No dropout: a pair's logit is the same in training."""

    def __init__(self, settings: RerankSettings, clip: Towers) -> None:
        super().__init__()
        width = joint_width(clip)
        if settings.grid:
            needs_class_token(clip.visual, f"rerank.grid={settings.grid}")
            places = min(clip.visual.grid_size)
            if settings.grid > places:
                raise RequestError(
                    f"rerank.grid={settings.grid}: a frame of this tower has {places} x {places} patches"
                )
        self.heads = heads_of(width)
        self.positions = nn.Parameter(torch.zeros(most_tokens(clip), width))
        self.types = nn.Parameter(torch.zeros(3 if settings.grid else 2, width))  # of words, frames, patches
        self.blocks = nn.ModuleList(
            PairBlock(width, self.heads, activation_of(clip), CLIP_EPS) for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, 1)

    def forward(self, video: VideoFeatures, text: TextFeatures) -> Tensor:
        """Logits (P,) that caption p is clip p's: features of P clips and of P captions."""
        return self.judge(self.read(video), text)

    def read(self, video: VideoFeatures) -> Memory:
        """What captions need of B clips; it depends on no caption."""
        tokens, mask = self._tokens(video)
        bias, first = key_bias(mask, self.heads), torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
        seen = []
        for layer, block in enumerate(self.blocks, 1):
            # Nobody hears what frames are after the last layer; one that is computed for nothing costs little.
            tokens, *keys_and_values = block(tokens, bias, only=first if layer == len(self.blocks) else None)
            seen.append(keys_and_values)
        keys, values = (torch.stack(parts, dim=1) for parts in zip(*seen, strict=True))
        return Memory(keys, values, mask)

    def judge(self, memory: Memory, text: TextFeatures, clips: Tensor | None = None) -> Tensor:
        """Logits of A captions, each with its own K clips by their rows `clips` (A, K) of the memory: (A, K).

        Without `clips`, caption p is asked of clip p: (P,).
        """
        rows = slice(None) if clips is None else clips.flatten()
        clip_mask = memory.mask[rows]
        times = len(clip_mask) // len(text.mask)
        word_mask, end = text.mask.repeat_interleave(times, dim=0), last_place(text.mask).repeat_interleave(times)
        bias = key_bias(torch.cat([clip_mask, word_mask], dim=1), self.heads)
        tokens = text.tokens + self._first_positions(text.mask.shape[1], "caption", "words") + self.types[0]
        for layer, block in enumerate(self.blocks):
            before = memory.keys[rows, layer], memory.values[rows, layer]
            only = end if layer == len(self.blocks) - 1 else None
            tokens, *_ = block(tokens, bias, before, only)
        with without_autocast(tokens.device.type):
            logits: Tensor = self.score(self.norm(tokens[:, 0].to(self.score.weight.dtype)))[:, 0]
        return logits if clips is None else logits.reshape(clips.shape)

    def candidates(
        self, video: VideoFeatures | Memory, text: TextFeatures, clips: Tensor, *, pairs: int = _PAIRS
    ) -> Tensor:
        """Logits (A, K) of A captions, each with its own candidates: rows `clips` (A, K) of B clips, about `pairs` at once.

        `video` are the clips' features, or what `read` made of them, where there is room for it. Of features, the clips that
        some captions at once ask for are read once for them. Words beyond the longest of these captions are cut off.
        """
        if clips.numel() == 0:
            return text.tokens.new_zeros(clips.shape)
        step, width = max(1, pairs // clips.shape[1]), max(1, pairs)
        lines = []
        for start in range(0, len(clips), step):
            part = cut_padding(pick_rows(text, slice(start, start + step)))
            lines.append([self._judge_some(video, part, some) for some in clips[start : start + step].split(width, 1)])
        return torch.cat([torch.cat(line, dim=1) for line in lines])

    def every(self, video: VideoFeatures | Memory, text: TextFeatures, *, pairs: int = _PAIRS) -> Tensor:
        """Logits (A, B) of A captions with B clips, about `pairs` at once."""
        memory = video if isinstance(video, Memory) else self.read(video)
        clips = torch.arange(len(memory.mask), device=memory.mask.device)
        return self.candidates(memory, text, clips.expand(len(text.mask), -1), pairs=pairs)

    def _judge_some(self, video: VideoFeatures | Memory, text: TextFeatures, clips: Tensor) -> Tensor:
        if isinstance(video, Memory):
            return self.judge(video, text, clips)
        asked, places = clips.unique(return_inverse=True)
        return self.judge(self.read(pick_rows(video, asked)), text, places)

    def _tokens(self, video: VideoFeatures) -> tuple[Tensor, Tensor]:
        """Frames, and after all of them their patches, (B, S, E), and the mask (B, S)."""
        positions = self._first_positions(video.mask.shape[1], "clip", "frames")
        frames = video.frames + positions + self.types[1]
        if len(self.types) == 2:
            return frames, video.mask
        assert video.patches is not None, "features of a model with rerank.grid have patches"
        patches = video.patches + positions[:, None] + self.types[2]
        spread = video.mask[:, :, None].expand(patches.shape[:3])
        return torch.cat([frames, patches.flatten(1, 2)], dim=1), torch.cat([video.mask, spread.flatten(1)], dim=1)

    def _first_positions(self, count: int, what: str, parts: str) -> Tensor:
        if count > len(self.positions):
            raise RequestError(
                f"a {what} of {count} {parts} is too long: the re-ranker has {len(self.positions)} positions"
            )
        return self.positions[:count]


def cut_padding(text: TextFeatures) -> TextFeatures:
    """Captions (A, W) without the columns that are padding in all of them, at the end."""
    longest = 1 + int(last_place(text.mask).max())
    return text._replace(tokens=text.tokens[:, :longest], mask=text.mask[:, :longest])
