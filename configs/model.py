"""Settings of the video-text model, and of reading published checkpoints. Presets name them; checkpoints keep them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stillreel.configs.build import Fraction
from stillreel.configs.settings import Settings

CLIP_EPS = 1e-5
PUBLISHED_EPS = 1e-12  # of CLIP4Clip's and CLIP2Video's own layer norms

Faithful = Literal["no", "own_mask", "peer"]
Temporal = Literal["mean", "seq", "lstm", "tdb", "stan"]
Align = Literal["none", "frames", "slow", "slow_tdb"]
Head = Literal["dot", "mug", "tight"]
MugMode = Literal["frame_token_simple", "frame_token", "frame_text", "wti"]
Difference = Literal["attention", "mlp", "plain"]
Count = Annotated[int, Field(ge=1)]


class TowerSettings(Settings):
    """Which CLIP the image and text towers are."""

    name: str = Field(
        "ViT-B-32",
        description="the CLIP: open_clip's name (ViT-B-32-quickgelu, ViT-B-16-SigLIP), tiny, local-dir:FOLDER or hf-hub:NAME",
    )
    pretrained: str = Field(
        "", description="CLIP's weights: open_clip's tag (openai), or a file; empty: random initialization"
    )


class StanSettings(Settings):
    depth: Count = Field(
        4, description="STAN: transformer layers of its branch, beside as many last blocks of the image tower"
    )
    time: Literal["attention", "conv"] = Field(
        "attention", description="STAN: temporal module: self-attention or a convolution over frames"
    )
    frames: Count = Field(64, description="STAN: rows of its temporal position embedding: the most frames of a clip")
    drop_path: Fraction = Field(
        0.1, description="STAN: stochastic depth of the last layer of its branch; rises linearly from 0 at the first"
    )


class TabSettings(Settings):
    centers: Count = Field(5, description="CLIP2Video's TAB: K, cluster centers that words and frames share")
    weight: Fraction = Field(
        0.5, description="CLIP2Video's TAB: weight of the global similarity; the aligned one has the rest"
    )


class TightSettings(Settings):
    heads: int = Field(0, ge=0, description="head=tight: attention heads; 0: width / 64")
    dropout: Fraction = Field(0.1, description="head=tight: dropout on the joint sequence of words and frames")


class RerankSettings(Settings):
    layers: int = Field(
        0, ge=0, description="re-ranker: cross-attention blocks, words attending to frames; 0: no re-ranker"
    )
    grid: int = Field(
        0, ge=0, description="re-ranker: n x n pooled patch tokens per frame beside its class token; 0: none"
    )


class ModelSettings(Settings):
    """A video-text model: towers, what joins the frames, what compares a clip with a caption."""

    towers: TowerSettings = TowerSettings()
    temporal: Temporal = Field(
        "mean",
        description="temporal module. mean: meanP; seq: CLIP4Clip's seqTransf; lstm: its seqLSTM; tdb: CLIP2Video's; stan",
    )
    align: Align = Field(
        "none",
        description="CLIP2Video's TAB. frames: on all frames; slow: on every second one, too; slow_tdb: and on their differences",
    )
    head: Head = Field(
        "dot",
        description="similarity. dot: of two vectors; mug: Mug-STAN's, words by frames; tight: CLIP4Clip's cross encoder",
    )
    patches: Literal["2d", "3d"] = Field(
        "2d", description="patch embedding: CLIP's 2-D convolution, or CLIP4Clip's 3-D one over three frames"
    )
    pool: Literal["unit", "plain"] = Field(
        "unit", description="mean pooling: of L2-normalized frame features, or of plain ones"
    )
    temperature: float = Field(
        0,
        ge=0,
        description="fixed softmax temperature of the loss (STAN: 0.01); 0: CLIP's logit scale, which is learned",
    )
    layers: Count = Field(4, description="transformer layers of seq, tdb and tight")
    difference: Difference = Field("attention", description="CLIP2Video's TDB: how differences of frames are projected")
    stan: StanSettings = StanSettings()
    tab: TabSettings = TabSettings()
    mug: MugMode = Field(
        "frame_token_simple", description="head=mug: how words and frames weigh each other (Mug-STAN's modes)"
    )
    tight: TightSettings = TightSettings()
    rerank: RerankSettings = RerankSettings()
    eps: float = Field(
        0,
        ge=0,
        description="epsilon of the temporal module's layer norms; 0: CLIP's 1e-5, or with `faithful` the published 1e-12",
    )
    faithful: Faithful = Field(
        "no",
        description="reproduce the published code's bugs. peer: all; own_mask: all but CLIP2Video's masks, mixed up in a batch",
    )

    @property
    def norm_eps(self) -> float:
        """Epsilon of the layer norms of blocks over frames (STAN's are the tower's)."""
        return self.eps or (CLIP_EPS if self.faithful == "no" else PUBLISHED_EPS)

    @model_validator(mode="after")
    def _parts_fit(self) -> ModelSettings:
        if self.align == "slow" and self.temporal not in ("seq", "tdb"):
            raise ValueError(f"align=slow needs the positions of temporal=seq or tdb, given {self.temporal}")
        if self.align == "slow_tdb" and self.temporal != "tdb":
            raise ValueError(f"align=slow_tdb needs temporal=tdb, given {self.temporal}")
        if self.align != "none" and self.head != "dot":
            raise ValueError(f"align={self.align} needs head=dot, given {self.head}")
        if self.rerank.grid and not self.rerank.layers:
            raise ValueError(f"rerank.grid={self.rerank.grid} is for a re-ranker; give rerank.layers too, such as 4")
        return self


class PeerOptions(Settings):
    """What a published checkpoint does not say of itself. The defaults are those of the released ones."""

    family: Literal["auto", "clip4clip", "clip2video", "stan"] = Field(
        "auto", description="whose checkpoint it is; auto: by the names of its tensors"
    )
    faithful: Faithful = Field("no", description="reproduce bugs of the published code, as model.faithful does")
    center_weight: Fraction = Field(
        0.5, description="CLIP2Video: weight of the global similarity beside the aligned one"
    )
    center_proj: Literal["TAB", "TAB_TDB"] = Field(
        "TAB_TDB", description="CLIP2Video: TAB on every second frame, without or with their differences (TDB)"
    )
    temperature: float = Field(0.01, gt=0, description="STAN: fixed softmax temperature of its loss")
    head: Literal["dot", "mug"] = Field("dot", description="STAN: dot, or mug for Mug-STAN")
    mug: MugMode = Field("frame_token_simple", description="Mug-STAN: how words and frames weigh each other")
    cross_heads: int = Field(
        0, ge=0, description="CLIP4Clip's tightTransf: attention heads of its cross encoder; 0: width / 64"
    )
