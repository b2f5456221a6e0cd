"""Settings of the benchmarks: whose data, which split, and which files where a folder does not say it all."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from stillreel.configs.settings import Settings

BenchmarkName = Literal[
    "msrvtt",
    "msvd",
    "vatex",
    "lsmdc",
    "didemo",
    "activitynet",
    "kinetics400",
    "kinetics600",
    "kinetics700",
    "ssv2",
    "hmdb51",
    "ucf101",
    "diving48",
    "folder",
]
BENCHMARKS: tuple[str, ...] = get_args(BenchmarkName)
# What a benchmark is published with, where nothing else is given: paragraphs by CLIP4Clip's max_words and max_frames.
USUAL: dict[str, dict[str, int]] = {name: {"context_length": 64, "frames": 64} for name in ("didemo", "activitynet")}


class FileSettings(Settings):
    """Annotation files, by path (within DATA, or from here); several are joined by commas, a zip's member is ZIP::MEMBER."""

    train: str = Field("", description="list or table of the training split; empty: found in `data`")
    validation: str = Field("", description="list or table of the validation split; empty: found in `data`")
    test: str = Field("", description="list or table of the test split; empty: found in `data`")
    captions: str = Field("", description="file of the captions of all splits, where they are not in the lists")
    labels: str = Field("", description="file of the class names, in the order of the class ids (recognition)")
    mapping: str = Field("", description="MSVD: file that says which vidN.avi each clip is")


class ColumnSettings(Settings):
    """Columns of the table of a folder of one's own; empty: by their usual names."""

    video: str = Field("", description="column of the video's file name; empty: by its usual names")
    caption: str = Field(
        "", description="column of the caption, or of a JSON list of captions; empty: by its usual names"
    )
    label: str = Field("", description="column of the class; a table that has it and no caption is for recognition")
    split: str = Field("", description="column that says train, validation or test; a table without it is all test")


class BenchmarkSettings(Settings):
    """Where a benchmark's annotation files and videos lie, and what to do when some do not."""

    data: str = Field("", description="folder that holds the annotation files and, at any depth, the videos")
    videos: str = Field(
        "", description="folder of the videos, where it is not in `data`, or to choose one of several there"
    )
    variant: str = Field(
        "",
        description="published split: MSR-VTT 1ka-9k, 1ka-7k, 1kb, full or mc (multi-choice); LSMDC mc; VATEX hgr or "
        "clip2video; HMDB51 and UCF101 1, 2 or 3; empty: the first of these, of LSMDC retrieval",
    )
    allow_missing: bool = Field(
        False,
        description="go on though videos are missing: each counts as a miss in the test, and is left out of training",
    )
    files: FileSettings = FileSettings()
    column: ColumnSettings = ColumnSettings()
