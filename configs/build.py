"""Settings of `stillreel animate`, `verify`, `repair`, `status`, `stats`, `preview`, `download` and `demo`."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from stillreel.configs.settings import Settings, named_by

Fraction = Annotated[float, Field(ge=0, le=1)]


_YOUNGER = {
    "picture_cpu_seconds": 30,
    "max_aspect": 5.0,
    "aim": "none",
}  # than the first plans, with the value that those were made with


def _fits_keys(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{0,48}", name) or name.startswith("__"):
        raise ValueError("expected up to 48 of [a-z0-9_], and no leading __ (webdataset skips such members)")
    return name


KeyPrefix = Annotated[str, AfterValidator(_fits_keys)]


class SourceSettings(Settings):
    """How to read a SOURCE whose shape does not say it all."""

    captions: str = Field(
        "", description="table of the captions of a folder of pictures; empty: the one that lies in it"
    )
    picture: str = Field(
        "",
        description="column of the picture's file name or bytes; of tars, the ending of its member; empty: the usual ones",
    )
    caption: str = Field(
        "",
        description="column of the caption; of tars, the field of their JSON, or a member's ending; empty: the usual ones",
    )
    key: str = Field(
        "", description="Parquet: column of the sample's key; empty: by its usual names, else the row number"
    )
    split: str = Field(
        "", description="part of the source by the names of folders or files: train, test, ...; all: every one"
    )

    def identity(self) -> dict[str, Any]:
        """What plans and fingerprints hold of them. Settings that came later are left out at their default."""
        first = ("captions", "picture", "caption", "key")
        return {name: value for name, value in self.model_dump().items() if value or name in first}


class ClipSettings(Settings):
    """What decides the bytes of a build. Hashed into the plan; a resume must repeat it."""

    name: KeyPrefix = Field("", description="prefix of shard names and sample keys, [a-z0-9_]; empty: from SOURCE")
    store: Literal["recipe", "frames", "video"] = Field(
        "recipe",
        description="what a sample holds. recipe: picture and camera path, rendered in training; frames: T JPEGs; video: an mp4",
    )
    grammar: str = Field(
        "film",
        description="how camera paths are drawn: a preset (film, still, jump, zoom, pan, ...) or a YAML file",
        json_schema_extra=named_by("grammars"),
    )
    aim: Literal["none", "salient"] = Field(
        "none",
        description="what views are moved toward. salient: the point at which the picture differs most from what lies around it",
    )
    frames: int = Field(12, ge=1, le=999, description="T, frames per clip")
    size: int = Field(224, ge=16, le=2048, description="H = W of a frame, in pixels")
    seed: int = Field(0, ge=0, lt=2**63, description="random seed of everything that is drawn; 0 is a seed")
    looks: str = Field(
        "none",
        description="color augmentation, one for a whole clip: none, a preset (graded, drifting) or a YAML file",
        json_schema_extra=named_by("looks"),
    )
    quality: int = Field(
        90, ge=1, le=100, description="JPEG quality of frames, 1 to 100; a video's CRF is 18 + (100 - quality) / 2"
    )
    fps: int = Field(3, ge=1, le=120, description="frames per second of an mp4, of store=video")
    max_side: int = Field(
        512,
        ge=0,
        le=16384,
        description="longer side of a stored picture, in pixels: larger ones are shrunk; 0: kept as they are",
    )
    max_pixels: int = Field(
        178956970, ge=1, description="pictures of more pixels than this, by their header, are rejected"
    )
    max_aspect: float = Field(
        5.0, ge=1, le=5, description="pictures with one side more than this many times the other are rejected"
    )
    min_side: int = Field(32, ge=1, description="pictures with a shorter side below this many pixels are rejected")
    picture_cpu_seconds: int = Field(
        30, ge=1, description="pictures that take more CPU time to decode than this, whenever it is tried, are rejected"
    )
    shard_size: int = Field(
        1000, ge=1, le=100000, description="samples per shard, as planned: rejected ones leave gaps"
    )

    def planned(self) -> dict[str, Any]:
        """As a plan keeps them: a setting that is younger than plans are stays out where it is at its default."""
        values = self.model_dump(mode="json")
        return {key: value for key, value in values.items() if _YOUNGER.get(key) != value}

    @field_validator("max_side")
    @classmethod
    def _pictures_stay_filmable(cls, side: int) -> int:
        if 0 < side < 160:
            raise ValueError("expected 0 (keep) or at least 160: a 5:1 picture must keep 32 px on its short side")
        return side


class TaskSettings(Settings):
    """What Ray keeps for the making of one shard."""

    cpus: float = Field(
        1, gt=0, description="CPUs that Ray keeps for a shard's task; its frames are made in one thread"
    )
    memory: float = Field(
        0, ge=0, description="memory that Ray keeps for a shard's task, in GB; 0: tasks are not counted by it"
    )
    resources: str = Field(
        "",
        description="other resources of a cluster's hosts that Ray keeps for a shard's task: NAME=AMOUNT, by commas; disk=1 "
        "keeps tasks on hosts that were started with --resources='{\"disk\": 4}'",
    )

    @field_validator("resources")
    @classmethod
    def _are_amounts(cls, told: str) -> str:
        _amounts(told)
        return told

    def options(self) -> dict[str, Any]:
        """As Ray's tasks take them."""
        kept = {"memory": int(self.memory * 1e9)} if self.memory else {}
        return {"num_cpus": self.cpus, "resources": _amounts(self.resources), **kept}


def _amounts(told: str) -> dict[str, float]:
    amounts: dict[str, float] = {}
    for word in filter(None, (part.strip() for part in told.split(","))):
        name, _, amount = word.partition("=")
        try:
            amounts[name.strip()] = float(amount)
        except ValueError:
            amounts[name.strip()] = 0
        if name.strip() in ("", "CPU", "GPU", "memory") or not 0 < amounts[name.strip()] < math.inf:
            raise ValueError(f"{word!r}: expected NAME=AMOUNT, by commas, of resources that are no CPUs and no memory")
    return amounts


class RunSettings(Settings):
    """How shards are made. Reaches no plan, tar, parquet or idx: a resume may change it."""

    attempts: int = Field(3, ge=1, description="tries of a shard whose worker fails, before it has failed")
    ray: str = Field(
        "local",
        description="local: a private Ray; off: `workers` processes without Ray; inline: in this process, for a debugger or a "
        "profiler: what crashes a worker ends it, too; auto or an ADDRESS: a cluster",
    )
    workers: int = Field(0, ge=0, description="shards in work at once; 0: one a CPU, with ray=off one")
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        "auto", description="auto: a bar on a terminal, lines in a log"
    )
    check: Literal["sizes", "full"] = Field("sizes", description="how a resume checks finished shards; full: hash them")
    task: TaskSettings = TaskSettings()


class BuildSettings(RunSettings):
    """The same, and when a build gives up."""

    max_rejects: Fraction = Field(0.1, description="stop when more than this fraction is rejected; 1: no limit")


class FilterSettings(Settings):
    """Which samples of a source are wanted; the others are rejected, each with its reason, and do not count as bad."""

    where: str = Field(
        "",
        description="samples that are taken, by the source's columns (of tars: img2dataset's, or their JSON), caption and key: "
        "similarity > 0.3 and width >= 256",
    )
    scores: str = Field("", description="Parquet file with more columns for where=, joined by its column key")
    blocklist: str = Field("", description="file of keys, URLs or sha256 of samples that are not taken, one a line")


class AnimateSettings(BuildSettings, FilterSettings, ClipSettings):
    """What is built, from which samples of which source, and how it is run."""

    source: SourceSettings = SourceSettings()
    extend: Literal["no", "new", "rejects"] = Field(
        "no", description="add to a finished build: new: samples it lacks; rejects: its rejected rows, again"
    )

    dry_run: bool = Field(
        False,
        description="build nothing: say what it would come to, by a hundred samples that are made, and if it fits",
    )

    def filter(self) -> FilterSettings:
        """The part that decides which samples are taken."""
        return FilterSettings(**{key: getattr(self, key) for key in FilterSettings.model_fields})

    def clip(self) -> ClipSettings:
        """The part that decides the bytes."""
        return ClipSettings(**{key: getattr(self, key) for key in ClipSettings.model_fields})


class DownloadSettings(Settings):
    url: str = Field("", description="column of the URL; empty: by its usual names, or by what the first row holds")
    caption: str = Field("", description="column of the caption; empty: by its usual names, or the other column of two")
    max_side: int = Field(
        512, ge=32, le=16384, description="longer side, in pixels: larger pictures are shrunk, others kept as they are"
    )
    quality: int = Field(95, ge=1, le=100, description="JPEG quality of pictures that are shrunk, 1 to 100")
    shard_size: int = Field(1000, ge=1, le=100_000, description="rows per tar")
    processes: int = Field(0, ge=0, description="processes that download; 0: one per CPU")
    threads: int = Field(64, ge=1, le=1024, description="simultaneous downloads of each process")
    timeout: int = Field(10, ge=1, description="seconds to wait for a picture")
    retries: int = Field(
        0, ge=0, le=10, description="immediate retries of a picture; running the command again retries, too"
    )
    opt_outs: bool = Field(True, description="honor X-Robots-Tag: noai, noimageai, noindex, noimageindex")
    user_agent_token: str = Field(
        "", description="name of this downloader in its HTTP user agent, which robots directives may address"
    )
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        "auto", description="auto: a bar on a terminal, lines in a log"
    )


class VerifySettings(Settings):
    workers: int = Field(
        0, ge=0, description="threads that read and hash, on Ray shards in work at once; 0: one per CPU"
    )
    ray: str = Field(
        "off", description="off: threads of this process; local: a private Ray; auto or an ADDRESS: a cluster"
    )
    task: TaskSettings = TaskSettings()
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        "auto", description="auto: a bar on a terminal, lines in a log"
    )


class StatsSettings(Settings):
    json_output: bool = Field(False, alias="json", description="JSON on standard output, not a table")


class RepairSettings(BuildSettings):
    """How shards are made anew; what they hold stands in the plans."""

    check: Literal["sizes", "full"] = Field(
        "full", description="how shards are looked at. full: every byte is hashed; sizes: of files, against receipts"
    )
    source: str = Field("", description="where SOURCE lies now, if it has moved; its last part must be what it was")
    retry_rejects: bool = Field(False, description="then try rejected samples again, as an extension")
    max_rejects: Fraction = Field(1, description="stop when more than this fraction is rejected; 1: no limit")


class StatusSettings(Settings):
    json_output: bool = Field(False, alias="json", description="JSON on standard output, not lines to read")


class DemoSettings(Settings):
    out: str = Field("demo", description="folder that everything is made in")
    stills: int = Field(5000, ge=20, le=1_000_000, description="pictures to draw, held-out ones included")
    heldout: int = Field(
        256,
        ge=0,
        le=1000,
        description="pictures that are held out for evaluation, each with a caption that no other has",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="random seed of the pictures, the camera paths and the training")
    steps: int = Field(
        0, ge=0, description="steps of pretraining, to which warm-up and evaluations are scaled; 0: the preset's"
    )
    contents: int = Field(160, ge=4, le=1000, description="objects that finetuning trains on, each in six motions")
    study: bool = Field(
        True, description="also run `stillreel study demo`, the grid of what animating buys, very small"
    )
    ray: str = Field("local", description="local: a private Ray; off: without Ray; auto or an ADDRESS: a cluster")
    workers: int = Field(0, ge=0, description="processes that draw and animate; 0: one per CPU")
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        "auto", description="auto: a bar on a terminal, lines in a log"
    )

    @model_validator(mode="after")
    def _most_are_trained_on(self) -> DemoSettings:
        if self.heldout * 2 > self.stills:
            raise ValueError(f"heldout={self.heldout} is more than half of stills={self.stills}")
        return self


class PreviewSettings(Settings):
    samples: int = Field(48, ge=1, le=200, description="clips that the page shows")
    seed: int = Field(0, ge=0, description="random seed of which clips are shown")
    page: str = Field("", description="HTML file that is written; empty: OUT/preview.html")
