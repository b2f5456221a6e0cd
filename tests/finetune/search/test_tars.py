"""Foreign tars of real videos, as an index reads them: the frames and times of a reader of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stillreel.configs.video import VideoSettings
from stillreel.finetune.search.sources import open_source
from stillreel.pretrain.video import VideoReader
from tests.pretrain.data.video_tars import sample_of, write_videos


def test_videos_of_tars_are_read_as_files_are(tmp_path: Path) -> None:
    settings = VideoSettings(sampler="segments", frames=3, size=32)
    source = open_source(str(write_videos(tmp_path, [3])), settings)
    for number, entry in enumerate(source.survey()):
        assert entry.path == f"00000.tar/{number:09d}"
        file = tmp_path / "v.mp4"
        file.write_bytes(sample_of(number)[0][1])
        found, clip = source.read(entry), VideoReader(settings).read(file)
        assert np.array_equal(found.frames, clip.frames) and found.mask.all()
        assert np.array_equal(found.times, clip.times) and found.end == clip.end and not found.flaws
