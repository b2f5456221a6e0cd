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

    name: str = Field("ViT-B-32", description="open_clip's ViT-* (-quickgelu), tiny, local-dir:FOLDER, hf-hub:NAME")
    pretrained: str = Field("", description="a tag that open_clip knows (openai), or a file; empty: random weights")


class StanSettings(Settings):
    depth: Count = Field(4, description="layers of the branch, beside the last ones of the image tower")
    time: Literal["attention", "conv"] = Field("attention", description="how the frames of a patch meet")
    frames: Count = Field(64, description="rows of the time embedding: the longest clip, in frames")
    drop_path: Fraction = Field(0.1, description="of the last layer, in training; rises from 0 at the first")


class TabSettings(Settings):
    centers: Count = Field(5, description="K, shared by words and frames")
    weight: Fraction = Field(0.5, description="of the main similarity; the aligned one has the rest")


class TightSettings(Settings):
    heads: int = Field(0, ge=0, description="of attention; 0: width / 64")
    dropout: Fraction = Field(0.1, description="of the joint sequence, in training")


class RerankSettings(Settings):
    layers: int = Field(0, ge=0, description="blocks through which words ask of frames; 0: no re-ranker")
    grid: int = Field(0, ge=0, description="n: n x n patch tokens a frame beside its own; 0: none")


class ModelSettings(Settings):
    """A video-text model: towers, what joins the frames, what compares a clip with a caption."""

    towers: TowerSettings = TowerSettings()
    temporal: Temporal = Field("mean", description="what joins the frames: mean, seq, lstm, tdb or stan")
    align: Align = Field(
        "none", description="TAB over frames; with slow: also over every second one; with slow_tdb: and its differences"
    )
    head: Head = Field(
        "dot", description="dot: a vector each; mug: words with frames; tight: every pair through blocks"
    )
    patches: Literal["2d", "3d"] = Field("2d", description="3d: a patch sees the frames before and after its own")
    pool: Literal["unit", "plain"] = Field("unit", description="the mean of frames of length one, or as they come")
    temperature: float = Field(
        0, ge=0, description="fixed temperature, applied in the loss; 0: CLIP's learned scale, in scores"
    )
    layers: Count = Field(4, description="blocks of seq, tdb and tight")
    difference: Difference = Field("attention", description="how tdb projects the differences of frames")
    stan: StanSettings = StanSettings()
    tab: TabSettings = TabSettings()
    mug: MugMode = Field("frame_token_simple", description="how words and frames of the mug head weigh each other")
    tight: TightSettings = TightSettings()
    rerank: RerankSettings = RerankSettings()
    eps: float = Field(
        0, ge=0, description="of layer norms over frames; 0: CLIP's 1e-5, or the published 1e-12 if faithful"
    )
    faithful: Faithful = Field(
        "no", description="peer: with the bugs of the published code; own_mask: but for CLIP2Video's mixed-up masks"
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
        "auto", description="auto: by its tensors' names"
    )
    faithful: Faithful = Field("no", description="as in the model's settings")
    center_weight: Fraction = Field(0.5, description="CLIP2Video: of the main similarity beside the aligned one")
    center_proj: Literal["TAB", "TAB_TDB"] = Field(
        "TAB_TDB", description="CLIP2Video: the slow frames without or with their differences"
    )
    temperature: float = Field(0.01, gt=0, description="STAN: the fixed temperature of its loss")
    head: Literal["dot", "mug"] = Field("dot", description="STAN: mug for Mug-STAN")
    mug: MugMode = Field("frame_token_simple", description="Mug-STAN: its mode")
    cross_heads: int = Field(0, ge=0, description="CLIP4Clip tight: heads of its cross encoder; 0: width / 64")
