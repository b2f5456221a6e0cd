"""benchmarks: annotation files become typed benchmarks, and their videos are found on the disk.

    files      a folder walked once; text, JSON, CSV, pickles (pickles.py) and zips read strictly
    records    from a file to one record a video, by dialect; find: which files play which part
    assemble   records become splits; classes: names and numbers of recognition; choices: questions of
               multi-choice; videos: what is on the disk
    msrvtt, msvd, vatex, lsmdc, didemo, activitynet, kinetics, ssv2, hmdb, diving, folder     one file a benchmark
    open       from a name and settings to all of it
Decodes nothing, and imports no torch.
"""

from stillreel.configs.benchmark import BENCHMARKS, BenchmarkSettings
from stillreel.finetune.benchmarks.benchmark import (
    SPLITS,
    Benchmark,
    Protocol,
    Published,
    Span,
    Split,
    SplitName,
    Video,
)
from stillreel.finetune.benchmarks.open import Opened, Stored, open_benchmark
from stillreel.finetune.benchmarks.videos import Located

__all__ = [
    "BENCHMARKS",
    "SPLITS",
    "Benchmark",
    "BenchmarkSettings",
    "Located",
    "Opened",
    "Protocol",
    "Published",
    "Span",
    "Split",
    "SplitName",
    "Stored",
    "Video",
    "open_benchmark",
]
