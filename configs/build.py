"""Settings of `stillreel animate`, `verify`, `stats`, `preview`, `download` and `demo`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from stillreel.configs.settings import Settings

Fraction = Annotated[float, Field(ge=0, le=1)]


class SourceSettings(Settings):
    """How to read a SOURCE whose shape does not say it all."""

    captions: str = Field("", description="captions table of a picture folder; empty: the one that lies in it")
    picture: str = Field("", description="column of the picture's file (or bytes); empty: by its usual names")
    caption: str = Field("", description="column of the caption; empty: by its usual names")
    key: str = Field(
        "", description="column of the sample's own key (Parquet); empty: by its usual names, else the row"
    )


class ClipSettings(Settings):
    """What decides the bytes of a build. Hashed into the plan; a resume must repeat it."""

    name: str = Field("", description="prefix of shards and keys, [a-z0-9_]; empty: from the source")
    store: Literal["recipe", "frames", "video"] = Field(
        "recipe", description="recipe: the picture and how to film it; frames: T JPEGs; video: an mp4"
    )
    grammar: str = Field(
        "film", description="how recipes are drawn: a preset (film, still, jump, zoom, pan, ...) or a YAML file"
    )
    frames: int = Field(12, ge=1, le=999, description="T, frames a clip")
    size: int = Field(224, ge=16, le=2048, description="H = W of a frame, pixels")
    seed: int = Field(0, ge=0, lt=2**63, description="of all drawing; 0 is a seed")
    looks: str = Field("none", description="color of the clip: none, a preset, or a YAML file")
    quality: int = Field(
        90, ge=1, le=100, description="JPEG quality of frames; a video's crf is 18 + (100 - quality) / 2"
    )
    fps: int = Field(3, ge=1, le=120, description="frames a second, store=video")
    max_side: int = Field(512, ge=0, le=16384, description="longer side of a stored picture, pixels; 0: as it comes")
    max_pixels: int = Field(178956970, ge=1, description="a picture whose header claims more is rejected unread")
    min_side: int = Field(32, ge=1, description="a picture with a shorter side below this is rejected")
    shard_size: int = Field(1000, ge=1, le=100000, description="planned samples a shard")

    @field_validator("name")
    @classmethod
    def _name_fits_keys(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z0-9_]{0,48}", name) or name.startswith("__"):
            raise ValueError("expected up to 48 of [a-z0-9_], and no leading __ (webdataset skips such members)")
        return name

    @field_validator("max_side")
    @classmethod
    def _pictures_stay_filmable(cls, side: int) -> int:
        if 0 < side < 160:
            raise ValueError("expected 0 (keep) or at least 160: a 5:1 picture must keep 32 px on its short side")
        return side


class BuildSettings(Settings):
    """How a build is run. Reaches no plan, tar, parquet or idx: a resume may change it."""

    max_rejects: Fraction = Field(0.1, description="stop when more than this fraction is rejected; 1: no limit")
    attempts: int = Field(3, ge=1, description="tries of a shard whose worker fails, before it is set aside")
    ray: str = Field(
        "local", description="local: a private Ray; off: `workers` processes without Ray; auto or an ADDRESS: a cluster"
    )
    workers: int = Field(0, ge=0, description="shards in work at once; 0: one a CPU, with ray=off one")
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        "auto", description="auto: a bar on a terminal, lines in a log"
    )
    check: Literal["sizes", "full"] = Field("sizes", description="how a resume checks finished shards; full: hash them")


class AnimateSettings(BuildSettings, ClipSettings):
    """What is built, from which samples of which source, and how it is run."""

    source: SourceSettings = SourceSettings()
    extend: Literal["no", "new", "rejects"] = Field(
        "no", description="add to a finished build: new: samples it lacks; rejects: its rejected rows, again"
    )

    def clip(self) -> ClipSettings:
        """The part that decides the bytes."""
        return ClipSettings(**{key: getattr(self, key) for key in ClipSettings.model_fields})


class DownloadSettings(Settings):
    url: str = Field("", description="column of the URL; empty: by its usual names, or by what the first row holds")
    caption: str = Field("", description="column of the caption; empty: by its usual names, or the other column of two")
    max_side: int = Field(
        512, ge=32, le=16384, description="longer side; larger pictures are shrunk, others kept as they are"
    )
    quality: int = Field(95, ge=1, le=100, description="JPEG quality of what is encoded anew")
    shard_size: int = Field(1000, ge=1, le=100_000, description="rows a tar")
    processes: int = Field(0, ge=0, description="0: one a CPU")
    threads: int = Field(64, ge=1, le=1024, description="downloads at once, in each process")
    timeout: int = Field(10, ge=1, description="seconds to wait for a picture")
    retries: int = Field(
        0, ge=0, le=10, description="tries more of a picture, at once; running the command again retries too"
    )
    opt_outs: bool = Field(True, description="honor X-Robots-Tag: noai, noimageai, noindex, noimageindex")
    user_agent_token: str = Field("", description="name of this downloader in its user agent")
    progress: Literal["auto", "bar", "lines", "off"] = Field("auto", description="as in animate")


class VerifySettings(Settings):
    workers: int = Field(0, ge=0, description="threads that read and hash; 0: one a CPU")
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        "auto", description="auto: a bar on a terminal, lines in a log"
    )


class StatsSettings(Settings):
    json_output: bool = Field(False, alias="json", description="JSON on standard output, not a table")


class DemoSettings(Settings):
    out: str = Field("demo", description="folder to make it in")
    stills: int = Field(5000, ge=20, le=1_000_000, description="pictures to draw, held-out ones included")
    heldout: int = Field(256, ge=0, le=1000, description="of them kept apart, each with a caption that no other has")
    seed: int = Field(0, ge=0, lt=2**63, description="of the drawings, the recipes and the training")
    steps: int = Field(0, ge=0, description="of pretraining; 0: the preset's. Its warm-up and evaluations go along")
    contents: int = Field(160, ge=4, le=1000, description="things that finetuning trains on, each with six motions")
    ray: str = Field("local", description="as in animate")
    workers: int = Field(0, ge=0, description="processes that draw and animate; 0: one a CPU")
    progress: Literal["auto", "bar", "lines", "off"] = Field("auto", description="as in animate")

    @model_validator(mode="after")
    def _most_are_trained_on(self) -> DemoSettings:
        if self.heldout * 2 > self.stills:
            raise ValueError(f"heldout={self.heldout} is more than half of stills={self.stills}")
        return self


class PreviewSettings(Settings):
    samples: int = Field(48, ge=1, le=200, description="clips on the page")
    seed: int = Field(0, ge=0, description="which ones")
    page: str = Field("", description="where to write; empty: OUT/preview.html")
