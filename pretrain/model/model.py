"""The video-text model: towers, a temporal module, a head.

frames (B, T, 3, H, W) -> encode_frames -> temporal (-> align) -> VideoFeatures
token ids (A, W)       -> encode_words  ->          (-> align) -> TextFeatures
VideoFeatures, TextFeatures -> head -> scores (texts A, videos B)
                            -> reranker -> logits of chosen pairs
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stillreel.configs import RequestError
from stillreel.configs.model import ModelSettings
from stillreel.pretrain.data.tokens import fixed_length
from stillreel.pretrain.model.adapter import (
    AnyClip,
    Towers,
    has_class_token,
    image_size,
    needs_class_token,
    reads_to_the_end,
    text_of,
)
from stillreel.pretrain.model.dropout import PatchDropout, number_modules
from stillreel.pretrain.model.features import (
    Frames,
    TextFeatures,
    VideoFeatures,
    in_fp32,
    masked_mean,
    unit,
    without_autocast,
)
from stillreel.pretrain.model.heads import build_head
from stillreel.pretrain.model.losses import contrastive_loss
from stillreel.pretrain.model.patches3d import Patches3d
from stillreel.pretrain.model.rerank import Reranker
from stillreel.pretrain.model.temporal import Stan, TemporalAlignment, build_temporal
from stillreel.pretrain.model.towers import (
    CausalAttention,
    PackedAttention,
    causal_mask,
    embed_patches,
    encode_words,
    pack_attention,
    project_class_token,
    project_patches,
    project_pixels,
    run_blocks,
)

_ANY = 1 << 20  # tokens: a text tower without a table of positions reads as many as there are


class VideoTextModel(nn.Module):
    """One of the zoo. `build_model` makes a fresh one, `load_peer` one from a published checkpoint.

    Frames are floats, normalized by the towers' mean and deviation. Masks are True (or 1) where there is a frame or a word; None
    means that there is no padding among frames, and that captions end at their end-of-text token.
    """

    def __init__(self, clip: Towers, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.clip = clip
        self._walks_frames, self._walks_words = has_class_token(clip.visual), reads_to_the_end(text_of(clip))
        if self._walks_frames:
            pack_attention(clip.visual, PackedAttention)
        if self._walks_words:
            pack_attention(text_of(clip), CausalAttention)
        if settings.patches == "3d":
            needs_class_token(clip.visual, "patches=3d")
        self.patches = (
            Patches3d(clip.visual.transformer.width, clip.visual.patch_size[0]) if settings.patches == "3d" else None
        )
        self.temporal = build_temporal(settings, clip)
        self.align = None if settings.align == "none" else TemporalAlignment(settings, clip)
        self.head = build_head(settings, clip)
        self.reranker = Reranker(settings.rerank, clip) if settings.rerank.layers else None
        self.patch_dropout = PatchDropout()
        number_modules(self)
        # What the towers have and this model does not use gets no gradient, and DDP would wait for one.
        if self.patches is not None:
            clip.visual.conv1.weight.requires_grad_(False)
        clip.logit_scale.requires_grad_(self.head.scaled and not settings.temperature)

    def forward(
        self, frames: Tensor, frame_mask: Tensor | None, token_ids: Tensor, token_mask: Tensor | None
    ) -> Tensor:
        """Scores (A, B) of A captions with B clips."""
        return self.similarity(self.encode_video(frames, frame_mask), self.encode_text(token_ids, token_mask))

    def drop_patches(self, rate: float) -> None:
        """Leave out this share of each clip's patches in training. RequestError where the model needs all of them."""
        if not 0 <= rate < 1:
            raise RequestError(f"patch_dropout={rate}: give a share from 0 to below 1")
        if rate:
            needs_class_token(self.clip.visual, f"patch_dropout={rate}")
        if rate and isinstance(self.temporal, Stan) and self.settings.stan.time == "conv":
            raise RequestError(
                f"patch_dropout={rate} leaves holes in the grid that stan.time=conv convolves over; set patch_dropout=0"
            )
        if rate and self.settings.rerank.grid:
            raise RequestError(
                f"patch_dropout={rate} leaves holes in the grid that rerank.grid={self.settings.rerank.grid} takes means over; "
                "set patch_dropout=0"
            )
        self.patch_dropout.rate = rate

    def encode_video(
        self, frames: Tensor, frame_mask: Tensor | None = None, draws: Tensor | None = None
    ) -> VideoFeatures:
        """Clips (B, T, 3, H, W), mask (B, T).

        `draws`, int64 (B,), is what dropout is drawn by in training; without it torch's generator draws.
        """
        seen = self.encode_frames(frames, frame_mask, draws)
        joined = self.temporal(seen)
        pooled = masked_mean(unit(joined) if self.settings.pool == "unit" else joined, seen.mask)
        aligned = self.align.video(seen, self.temporal) if self.align else None
        return VideoFeatures(joined, seen.mask, pooled, aligned, seen.patches, draws)

    def encode_frames(self, frames: Tensor, frame_mask: Tensor | None = None, draws: Tensor | None = None) -> Frames:
        """What the image tower says of each frame, before the temporal module."""
        visual = self.clip.visual
        mask = self._frame_mask(frames, frame_mask)
        if not self._walks_frames:
            vectors = self.clip.encode_image(frames.flatten(0, 1)).unflatten(0, mask.shape)
            return Frames(vectors, mask, (), visual, None, draws)
        if self.patches is None:
            patches = project_pixels(visual, frames.flatten(0, 1))
        else:  # padding frames read as the zeros that stand around a clip
            patches = self.patches(frames * mask[:, :, None, None, None]).flatten(2).transpose(1, 2)
        places = self.patch_dropout(draws, len(mask), patches.shape[1], patches.device)
        of_frames = None if places is None else places.repeat_interleave(mask.shape[1], dim=0)
        tokens, kept = run_blocks(visual, embed_patches(visual, patches, of_frames), self.temporal.depth)
        features = project_class_token(visual, tokens[:, 0]).unflatten(0, mask.shape)
        blocks = tuple(block.unflatten(0, mask.shape) for block in kept)
        return Frames(features, mask, blocks, visual, places, draws, self._patch_tokens(tokens, mask))

    def encode_text(
        self, token_ids: Tensor, token_mask: Tensor | None = None, draws: Tensor | None = None
    ) -> TextFeatures:
        """Captions (A, W) of W <= context_length token ids, mask (A, W), draws (A,) as of clips."""
        self._check_ids(token_ids, token_mask)
        if self._walks_words:
            text = text_of(self.clip)
            token_ids, mask = self._end_texts(token_ids, token_mask)
            tokens = encode_words(text, token_ids) @ text.text_projection
            pooled = tokens[torch.arange(len(tokens), device=tokens.device), token_ids.argmax(dim=1)]
        else:
            tokens, mask, pooled = self.clip.encode_words(token_ids)
            mask = mask if token_mask is None else token_mask.bool()
        aligned = self.align.text(tokens, mask) if self.align else None
        return TextFeatures(tokens, mask, pooled, aligned, draws)

    def similarity(self, video: VideoFeatures, text: TextFeatures) -> Tensor:
        """Scores (texts, videos): by the learned scale where there is one, else cosines; `tight` has neither."""
        main, aligned = self.similarities(video, text)
        if aligned is None:
            return main
        weight = self.settings.tab.weight
        return weight * main + (1 - weight) * aligned

    def similarities(self, video: VideoFeatures, text: TextFeatures) -> tuple[Tensor, Tensor | None]:
        """The head's scores and, with TAB, those of the aligned vectors, each (texts, videos), in fp32."""
        with without_autocast(text.pooled.device.type):
            video, text = in_fp32(video), in_fp32(text)
            scale = self.clip.logit_scale.exp() if self.head.scaled and not self.settings.temperature else 1.0
            main = scale * self.head(video, text)
            if text.aligned is None or video.aligned is None:
                return main, None
            return main, scale * text.aligned @ video.aligned.T

    def logits(self, scores: Tensor) -> Tensor:
        """Scores as the loss takes them: over the fixed temperature, where there is one."""
        return scores / self.settings.temperature if self.settings.temperature else scores

    @property
    def sums_directions(self) -> bool:
        """Whether the published loss is the sum of its two directions, not their mean: STAN's, with its fixed temperature."""
        return self.settings.faithful != "no" and self.settings.temperature > 0

    def loss(self, video: VideoFeatures, text: TextFeatures) -> Tensor:
        """The published loss of B clips and their captions. With TAB, two losses are mixed, not one of the mixed scores."""
        main, aligned = self.similarities(video, text)
        loss = contrastive_loss(self.logits(main), summed=self.sums_directions)
        if aligned is None:
            return loss
        weight = self.settings.tab.weight
        return weight * loss + (1 - weight) * contrastive_loss(self.logits(aligned), summed=self.sums_directions)

    def score(
        self,
        frames: Tensor,
        frame_mask: Tensor | None,
        token_ids: Tensor,
        token_mask: Tensor | None,
        *,
        fine: bool = False,
        chunk: int = 64,
    ) -> Tensor:
        """Scores (texts, videos) of all captions with all clips, without gradients or dropout, `chunk` of each at a time.

        `fine` asks the re-ranker of every pair: full interaction. RequestError where there is none.
        With `faithful=peer`, the masks of CLIP2Video's clips mix within a chunk, as they do within a batch of its code.
        """
        with torch.no_grad(), _evaluating(self):
            videos = [
                self.encode_video(part, None if frame_mask is None else frame_mask[start : start + chunk])
                for start, part in _parts(frames, chunk)
            ]
            texts = [
                self.encode_text(part, None if token_mask is None else token_mask[start : start + chunk])
                for start, part in _parts(token_ids, chunk)
            ]
            if fine:
                reranker = self.needed_reranker()
                read, asking = [reranker.read(in_fp32(video)) for video in videos], [in_fp32(text) for text in texts]
                return torch.cat([torch.cat([reranker.every(clips, text) for clips in read], 1) for text in asking])
            return torch.cat([torch.cat([self.similarity(video, text) for video in videos], 1) for text in texts])

    def rerank(self, video: VideoFeatures, text: TextFeatures) -> Tensor:
        """Logits (P,) that caption p is clip p's, of P of each. RequestError where there is no re-ranker."""
        logits: Tensor = self.needed_reranker()(in_fp32(video), in_fp32(text))
        return logits

    def needed_reranker(self) -> Reranker:
        """The re-ranker, for what cannot do without. RequestError where there is none."""
        if self.reranker is None:
            raise RequestError("this model has no re-ranker; one with rerank.layers=4 has, such as model=rerank-b32")
        return self.reranker

    def _patch_tokens(self, tokens: Tensor, mask: Tensor) -> Tensor | None:
        """Of the last block's tokens (B * T, 1 + L, D), those that the re-ranker reads: (B, T, n * n, E)."""
        side = self.settings.rerank.grid
        return project_patches(self.clip.visual, tokens[:, 1:], side).unflatten(0, mask.shape) if side else None

    def _frame_mask(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        """The mask (B, T) as booleans. RequestError where frames or mask are not what the towers read."""
        size = image_size(self.clip)
        if (
            frames.ndim != 5
            or frames.shape[2] != 3
            or tuple(frames.shape[3:]) != size
            or not frames.is_floating_point()
        ):
            raise RequestError(
                f"frames are {frames.dtype} {tuple(frames.shape)}; expected normalized floats (B, T, 3, {size[0]}, {size[1]})"
            )
        if mask is None:
            return torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        if mask.shape != frames.shape[:2]:
            raise RequestError(f"frame_mask is {tuple(mask.shape)}; the frames' B and T are {tuple(frames.shape[:2])}")
        return mask.bool()

    def _check_ids(self, token_ids: Tensor, mask: Tensor | None) -> None:
        longest, exactly = self.clip.context_length, 0 if self._walks_words else fixed_length(self.clip.model_cfg)
        if exactly and token_ids.shape[-1] != exactly:
            raise RequestError(
                f"token ids are {tuple(token_ids.shape)}; this text tower reads captions of {exactly} tokens, padded by its "
                "own tokenizer"
            )
        if token_ids.ndim != 2 or token_ids.shape[1] > (longest or _ANY) or token_ids.is_floating_point():
            raise RequestError(
                f"token ids are {token_ids.dtype} {tuple(token_ids.shape)}; expected integers (A, W) with W up to {longest}"
            )
        if mask is not None and mask.shape != token_ids.shape:
            raise RequestError(f"token_mask is {tuple(mask.shape)}; the token ids are {tuple(token_ids.shape)}")

    def _end_texts(self, token_ids: Tensor, token_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Token ids that end, and the mask (A, W) of their words.

        A caption that was cut without its end-of-text token gets it in place of its last word. The published STAN reads such
        a caption at the start token instead, which is the same vector for all (`faithful`); its Mug masks ids of zero.
        """
        end = self.clip.vocab_size - 1
        places = torch.arange(token_ids.shape[1], device=token_ids.device)
        ends = token_ids == end
        if token_mask is None:
            mask = (places <= ends.int().argmax(dim=1)[:, None]) | ~ends.any(dim=1)[:, None]
        else:
            mask = token_mask.bool()
        if self.settings.faithful != "no":
            return token_ids, token_ids != 0 if self.settings.head == "mug" else mask
        last = (places * mask).amax(dim=1)[:, None]
        cut = ~ends.any(dim=1)[:, None] & (places == last)
        return token_ids.masked_fill(cut, end), mask


def assign_tensors(model: VideoTextModel, tensors: Mapping[str, Tensor]) -> None:
    """Make these the model's own, strictly by name, and set it to evaluation; it may have been built on the meta device."""
    model.load_state_dict(tensors, strict=True, assign=True)
    clip = model.clip
    if not isinstance(clip, AnyClip):  # that one is never built there: of its buffers no file has any
        clip.attn_mask = causal_mask(clip.context_length).to(clip.positional_embedding.device)
    model.eval()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _parts(tensor: Tensor, chunk: int) -> Sequence[tuple[int, Tensor]]:
    return [(start, tensor[start : start + chunk]) for start in range(0, len(tensor), chunk)]
