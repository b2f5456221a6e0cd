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
    "ssv2",
    "hmdb51",
    "ucf101",
    "folder",
]
BENCHMARKS: tuple[str, ...] = get_args(BenchmarkName)


class FileSettings(Settings):
    """Annotation files, by path (within DATA, or from here); several are joined by commas, a zip's member is ZIP::MEMBER."""

    train: str = Field("", description="list or table of the training split; empty: found in DATA")
    validation: str = Field("", description="the same of the validation split")
    test: str = Field("", description="the same of the test split")
    captions: str = Field("", description="captions of all splits, where they lie apart from the lists")
    labels: str = Field("", description="names of the classes, in the order of their numbers")
    mapping: str = Field("", description="MSVD: which vidN.avi each clip is")


class ColumnSettings(Settings):
    """Columns of the table of a folder of one's own; empty: by their usual names."""

    video: str = Field("", description="the video's file")
    caption: str = Field("", description="the caption, or a JSON list of them")
    label: str = Field("", description="the class; a table with a label and no caption is for recognition")
    split: str = Field("", description="train, validation or test; a table without it is all test")


class BenchmarkSettings(Settings):
    """Where a benchmark's annotation files and videos lie, and what to do when some do not."""

    data: str = Field("", description="folder that holds the annotation files and, at any depth, the videos")
    videos: str = Field("", description="folder of the videos, if they lie elsewhere, or to choose one of several")
    variant: str = Field(
        "", description="split: 1ka-9k, 1ka-7k or full; hgr or clip2video; 1, 2 or 3; empty: the first of them"
    )
    allow_missing: bool = Field(
        False, description="go on without some videos: each is a miss in the test, and left out of training"
    )
    files: FileSettings = FileSettings()
    column: ColumnSettings = ColumnSettings()
