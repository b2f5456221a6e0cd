"""The model with its objectives. A step encodes own rows (`forward`, which DDP wraps) and compares them with all others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from stillreel.configs import RequestError
from stillreel.configs.train import ObjectiveSettings
from stillreel.pretrain.data.identity import Identity
from stillreel.pretrain.model import VideoTextModel
from stillreel.pretrain.model.features import TextFeatures, VideoFeatures, in_fp32, pick_rows
from stillreel.pretrain.model.heads import Dot, Mug
from stillreel.pretrain.objectives.classes import Classes, gather_classes, share_of
from stillreel.pretrain.objectives.contrast import info_nce, sigmoid_loss
from stillreel.pretrain.objectives.distillation import distillation_loss
from stillreel.pretrain.objectives.gather import gather_features
from stillreel.pretrain.objectives.identity import Known, Truth, gather_identity
from stillreel.pretrain.objectives.matching import draw_negatives, matching_loss

_NUMBERS = (
    1 << 26
)  # of logits at once (268 MB in fp32, of which a loss holds some ten): 8,192 clips with as many captions


class Batch(NamedTuple):
    """A rank's b rows of a global batch, on its device. T and W must be equal on all ranks."""

    frames: Tensor  # (b, T, 3, H, W), normalized
    frame_mask: Tensor | None  # (b, T)
    token_ids: Tensor  # (b, W)
    token_mask: Tensor | None  # (b, W)
    identity: Identity
    classes: Classes | None = None  # where clips are told apart by classes

    def rows(self, rows: slice) -> Batch:
        return Batch(
            self.frames[rows],
            None if self.frame_mask is None else self.frame_mask[rows],
            self.token_ids[rows],
            None if self.token_mask is None else self.token_mask[rows],
            Identity(*(field[rows] for field in self.identity)),
            None if self.classes is None else self.classes.rows(rows),
        )


class Encoded(NamedTuple):
    """Features of own rows, in fp32 or fp64: sums over ranks and chunks are taken of their gradients."""

    video: VideoFeatures
    text: TextFeatures
    classes: TextFeatures | None = None  # of each row's share of the texts of classes: (b, m, ...)


class Losses(NamedTuple):
    """Of own rows. The batch's are the means over ranks."""

    total: Tensor  # with its gradient
    parts: dict[str, Tensor]  # each objective's, before its weight, without gradient


class Task(nn.Module):
    """What is trained: the model and the bias of the sigmoid loss. A re-ranker that nothing is asked of is left as it is.

    `autocast` is the type of the towers' and the re-ranker's arithmetic; weights stay as they are, logits are in fp32.
    """

    def __init__(
        self,
        model: VideoTextModel,
        settings: ObjectiveSettings,
        *,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        asked = {name: getattr(settings, name) for name in ("matching", "distill") if getattr(settings, name)}
        if asked and model.reranker is None:
            wrong = " and ".join(f"{name}={weight}" for name, weight in asked.items())
            raise RequestError(
                f"{wrong} needs a re-ranker, and the model has none; set rerank.layers=4 in it, or 0 here"
            )
        if settings.classes and not isinstance(model.head, Dot):
            raise RequestError(
                f"objective.classes={settings.classes} compares vectors, and model.head={model.settings.head} compares words; "
                "set model.head=dot, or objective.classes=0"
            )
        model.drop_patches(settings.patch_dropout)
        self.model = model
        self.settings = settings
        self.reranks = bool(asked)
        self.bias = nn.Parameter(model.clip.logit_scale.new_tensor(settings.sigmoid_bias)) if settings.sigmoid else None
        self.autocast = autocast
        if model.reranker is not None and not settings.matching:
            model.reranker.requires_grad_(False)
        if settings.logit_scale == "fixed":
            model.clip.logit_scale.requires_grad_(False)  # DDP would wait for its gradient

    def forward(self, batch: Batch) -> Encoded:
        """Features of own rows. Those that nobody compares, of words and frames, are left out: they are not sent."""
        draws = batch.identity.draws
        with self._casting(batch.frames.device):
            video = self.model.encode_video(batch.frames, batch.frame_mask, draws)
            text = self.model.encode_text(batch.token_ids, batch.token_mask, draws)
            classes = self._class_texts(batch.classes) if self.settings.classes else None
        if not self.reranks:
            video = video._replace(patches=None)
        if isinstance(self.model.head, Dot) and not self.reranks:
            video = video._replace(frames=video.frames[:, :0], mask=video.mask[:, :0], draws=None)
            text = text._replace(tokens=text.tokens[:, :0], mask=text.mask[:, :0], draws=None)
        return Encoded(in_fp32(video), in_fp32(text), None if classes is None else in_fp32(classes))

    def compare(self, own: Encoded, identity: Identity, classes: Classes | None = None) -> Losses:
        """The losses of own rows against those of all ranks, which must all call it."""
        settings = self.settings
        losses: dict[str, Tensor] = {}
        if settings.infonce or settings.sigmoid or self.reranks:
            losses |= self._contrast(own, identity)
        if settings.classes:
            assert classes is not None and own.classes is not None
            losses["classes"] = self._classify(own.video, gather_classes(own.classes, classes.total), classes.labels)
        total = sum(getattr(settings, name) * loss for name, loss in losses.items())
        assert isinstance(total, Tensor)
        return Losses(total, {name: loss.detach() for name, loss in losses.items()})

    def clamp_scale(self) -> None:
        """To be called after each step of the optimizer."""
        scale = self.model.clip.logit_scale
        if scale.requires_grad:
            scale.data.clamp_(0, math.log(self.settings.max_logit_scale))

    def _contrast(self, own: Encoded, identity: Identity) -> dict[str, Tensor]:
        """The losses of clips and captions with each other. Of a large batch, so many rows at once that their logits fit."""
        known, count = gather_identity(identity), len(identity.captions)
        whole = Encoded(gather_features(own.video), gather_features(own.text))
        at_once = self._rows_at_once(whole)
        if self.reranks:
            truth, logits = known.truth(), self._logits(own, whole)
            return self._judge(logits, truth) | self._rerank(logits, own, whole, truth, identity.units)
        if at_once >= count:
            return self._judge(self._logits(own, whole), known.truth())
        losses: dict[str, Tensor] = {}
        for start in range(0, count, at_once):
            rows = slice(start, min(start + at_once, count))
            # Their logits are computed again in the backward pass, which costs less than any block does, and never lie together.
            part = checkpoint(self._judge_rows, own, whole, known, rows, use_reentrant=False, preserve_rng_state=False)
            for name, loss in part.items():
                losses[name] = losses.get(name, 0) + (rows.stop - start) / count * loss
        return losses

    def _rows_at_once(self, whole: Encoded) -> int:
        columns = len(whole.text.pooled)
        if isinstance(self.model.head, Mug):
            columns *= whole.text.tokens.shape[1] * whole.video.frames.shape[1]
        return max(1, _NUMBERS // columns)

    def _judge_rows(self, own: Encoded, whole: Encoded, known: Known, rows: slice) -> dict[str, Tensor]:
        part = Encoded(pick_rows(own.video, rows), pick_rows(own.text, rows))
        return self._judge(self._logits(part, whole), known.truth(rows))

    def _judge(self, logits: list[_Logits], truth: Truth) -> dict[str, Tensor]:
        """The losses of these rows, means over them."""
        losses: dict[str, Tensor] = {}
        if self.settings.infonce:
            summed = self.model.sums_directions
            losses["infonce"] = _sum(
                one.share * info_nce(one.captions, one.clips, truth, summed=summed) for one in logits
            )
        if self.bias is not None:
            bias = self.bias
            losses["sigmoid"] = _sum(one.share * sigmoid_loss(one.captions, bias, truth) for one in logits)
        return losses

    def _logits(self, own: Encoded, whole: Encoded) -> list[_Logits]:
        """The head's, and with TAB those of the aligned vectors: two losses are mixed, as published."""
        captions, alone = self._shares(whole.video, own.text), len(own.text.pooled) == len(whole.text.pooled)
        clips = captions if alone else self._shares(own.video, whole.text)
        return [
            _Logits(share, of_captions, of_clips.T)
            for (share, of_captions), (_, of_clips) in zip(captions, clips, strict=True)
        ]

    def _shares(self, video: VideoFeatures, text: TextFeatures) -> list[tuple[float, Tensor]]:
        """Logits (texts, videos) of each way to compare, and its share of a loss."""
        main, aligned = self.model.similarities(video, text)
        if aligned is None:
            return [(1.0, self.model.logits(main))]
        weight = self.model.settings.tab.weight
        return [(weight, self.model.logits(main)), (1 - weight, self.model.logits(aligned))]

    def _class_texts(self, classes: Classes | None) -> TextFeatures:
        assert classes is not None, "this objective is of clips that have a class"
        return share_of(self.model.encode_text(classes.token_ids.flatten(0, 1)), classes.token_ids.shape[1])

    def _classify(self, video: VideoFeatures, texts: TextFeatures, labels: Tensor) -> Tensor:
        """Cross entropy of own clips among all classes; with TAB two of them are mixed, as of captions."""
        losses = [share * F.cross_entropy(logits.T, labels) for share, logits in self._shares(video, texts)]
        return torch.stack(losses).sum()

    def _rerank(
        self, logits: list[_Logits], own: Encoded, whole: Encoded, truth: Truth, units: Tensor
    ) -> dict[str, Tensor]:
        """The losses of the re-ranker, and of the coarse model by it."""
        reranker, losses = self.model.needed_reranker(), {}
        by_caption = _sum(one.share * one.captions for one in logits)
        by_clip = _sum(one.share * one.clips for one in logits)
        with self._casting(truth.slots.device):
            if self.settings.matching:
                clips = draw_negatives(by_caption, truth, units[:, 0])
                captions = draw_negatives(by_clip, truth, units[:, 1])
                losses["matching"] = matching_loss(reranker, whole.video, whole.text, truth, clips, captions)
            if self.settings.distill:
                count = self.settings.candidates
                losses["distill"] = distillation_loss(reranker, own[:2], whole[:2], by_caption, by_clip, truth, count)
        return losses

    def _casting(self, device: torch.device) -> AbstractContextManager[None]:
        return torch.autocast(device.type, self.autocast) if self.autocast else nullcontext()


def _sum(parts: Iterable[Tensor]) -> Tensor:
    """Of one tensor or more of a shape; the builtin adds them to the number 0, and says so in its type."""
    return reduce(torch.add, parts)


class _Logits(NamedTuple):
    """Of one way to compare, and its share of the loss."""

    share: float
    captions: Tensor  # (b, B): own captions with all clips
    clips: Tensor  # (b, B): own clips with all captions
